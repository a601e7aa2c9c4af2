//! Putting an image into a guest's memory, with all that it finds there when it starts.

use std::fs::File;

use gamut_abi::guest::GUEST_ABI_VERSION;
use gamut_abi::guest::boot::{BOOT_MAGIC, BootBlock};
use gamut_abi::guest::hypercall::PORTS;
use gamut_abi::guest::note::{NEEDS_BLOCK, NEEDS_NETWORK, Note};

use crate::error::{Error, ImageError, Result};
use crate::layout::{
    BOOT_ADDRESS, CLOCK_ADDRESS, CONFIG_TEXT, DESCRIPTORS_ADDRESS, Layout, PAGE_BYTES, PAGE_TABLES,
    RING0_STACK_ADDRESS, STUB_ADDRESS,
};
use crate::memory::{GuestMemory, bytes_of};
use crate::paging::{PageTables, Rights};
use crate::{entropy, tables};
use gamut_abi::guest::elf::{Elf, unikernel_note};

/// An ELF file that can be a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its headers.
    pub elf: Elf,
    /// What it says of itself.
    pub note: Note,
}

impl Image {
    /// Reads an ELF file's headers and note.
    ///
    /// # Errors
    /// Names what is wrong with it, and how to build it right.
    pub fn parse(file: &[u8]) -> std::result::Result<Self, ImageError> {
        let elf = Elf::parse(file)?;
        let note = unikernel_note(file)?;
        note.check_version()?;
        Ok(Self { elf, note })
    }

    /// Checks that it gets the devices without which it cannot run.
    ///
    /// # Errors
    /// Names the one that is missing.
    pub fn check_devices(&self, nics: usize, disks: usize) -> std::result::Result<(), ImageError> {
        let lacks = |flag, count| self.note.needs & flag != 0 && count == 0;
        if lacks(NEEDS_NETWORK, nics) {
            return Err(ImageError::new(
                "Gamut note",
                "it cannot run without a network; give it one other than none",
            ));
        }
        if lacks(NEEDS_BLOCK, disks) {
            return Err(ImageError::new(
                "Gamut note",
                "it cannot run without a block device; give it a volume (-v NAME:/PATH)",
            ));
        }
        Ok(())
    }
}

/// Memory in which a guest can start, and where it does.
#[derive(Debug)]
pub struct Prepared {
    /// The memory.
    pub memory: GuestMemory,
    /// Where things lie in it.
    pub layout: Layout,
    /// The first instruction.
    pub entry: u64,
}

/// Fills memory for a start: image, tables, boot block and configuration text.
///
/// # Errors
/// If it does not fit, or the system has no memory for it.
pub fn prepare(
    path: &str,
    file: &[u8],
    image: &Image,
    config_text: &[u8],
    memory_bytes: Option<u64>,
    rofs: Option<&File>,
) -> Result<Prepared> {
    let refused = |problem| Error::Image {
        path: path.to_owned(),
        problem,
    };
    let rofs_bytes = rofs
        .map(|file| file.metadata().map(|metadata| metadata.len()))
        .transpose()
        .map_err(|error| Error::system("find the size of the read-only file system", error))?;
    let layout =
        Layout::plan(&image.elf, &image.note, memory_bytes, rofs_bytes).map_err(refused)?;
    if config_text.len() as u64 > CONFIG_TEXT.end - CONFIG_TEXT.start {
        return Err(Error::Config {
            path: gamut_abi::monitor::CONFIG_PATH.to_owned(),
            problem: format!(
                "arguments, environment and network are {} bytes together; at most {} are handed \
                 over",
                config_text.len(),
                CONFIG_TEXT.end - CONFIG_TEXT.start
            ),
        });
    }
    let mut memory = GuestMemory::new(layout.memory_bytes)?;
    if let (Some(file), Some(range)) = (rofs, &layout.rofs) {
        memory.add_rofs(range, file)?;
    }
    fill(&mut memory, file, image, config_text, &layout).map_err(refused)?;
    Ok(Prepared {
        memory,
        entry: image.elf.entry,
        layout,
    })
}

fn fill(
    memory: &mut GuestMemory,
    file: &[u8],
    image: &Image,
    config_text: &[u8],
    layout: &Layout,
) -> std::result::Result<(), ImageError> {
    for segment in &image.elf.segments {
        let data = file.get(segment.file.clone()).unwrap_or_default();
        put(memory, segment.memory.start, data)?;
        memory.allow(segment.memory.clone(), segment.is_writable);
    }
    memory.allow(layout.stack.start..layout.heap.end, true);
    put(
        memory,
        DESCRIPTORS_ADDRESS,
        &tables::descriptors(DESCRIPTORS_ADDRESS, &PORTS),
    )?;
    put(memory, STUB_ADDRESS, &tables::stub())?;
    put(memory, CONFIG_TEXT.start, config_text)?;
    let config_end = CONFIG_TEXT.start + config_text.len() as u64;
    memory.allow(CONFIG_TEXT.start..config_end, false);
    put(
        memory,
        BOOT_ADDRESS,
        bytes_of(&boot_block(layout, config_text)?),
    )?;
    memory.allow(
        BOOT_ADDRESS..BOOT_ADDRESS + size_of::<BootBlock>() as u64,
        false,
    );
    map(memory, image, layout, config_end)
}

/// Puts bytes into memory before the guest runs.
pub(crate) fn put(
    memory: &mut GuestMemory,
    address: u64,
    data: &[u8],
) -> std::result::Result<(), ImageError> {
    memory
        .raw_mut(address, data.len() as u64)
        .ok_or_else(|| {
            ImageError::new(
                "memory",
                format!("nothing can be put at {address:#x}: too small"),
            )
        })?
        .copy_from_slice(data);
    Ok(())
}

fn boot_block(layout: &Layout, config_text: &[u8]) -> std::result::Result<BootBlock, ImageError> {
    let mut seed = [0; 64];
    entropy::fill(&mut seed)
        .map_err(|error| ImageError::new("seed", format!("random bytes of the host: {error}")))?;
    let rofs = layout.rofs.clone().unwrap_or(0..0);
    Ok(BootBlock {
        magic: BOOT_MAGIC,
        abi_version: GUEST_ABI_VERSION,
        flags: 0,
        memory_bytes: layout.memory_bytes,
        heap_address: layout.heap.start,
        heap_bytes: layout.heap.end - layout.heap.start,
        stack_address: layout.stack.start,
        stack_bytes: layout.stack.end - layout.stack.start,
        config_address: CONFIG_TEXT.start,
        config_bytes: config_text.len() as u64,
        rofs_address: rofs.start,
        rofs_bytes: rofs.end - rofs.start,
        clock_address: CLOCK_ADDRESS,
        seed,
    })
}

fn map(
    memory: &mut GuestMemory,
    image: &Image,
    layout: &Layout,
    config_end: u64,
) -> std::result::Result<(), ImageError> {
    let too_small = || ImageError::new("memory", "it does not even hold the page tables");
    let room = memory
        .raw_mut(PAGE_TABLES.start, PAGE_TABLES.end - PAGE_TABLES.start)
        .ok_or_else(too_small)?;
    let mut tables = PageTables::new(room, PAGE_TABLES.start);
    let stub = Rights {
        user: false,
        write: false,
        execute: true,
    };
    let (private, stack0) = (
        Rights {
            execute: false,
            ..stub
        },
        Rights {
            execute: false,
            write: true,
            ..stub
        },
    );
    let page = |address| address..address + PAGE_BYTES;
    let own = [
        (page(DESCRIPTORS_ADDRESS), private),
        (page(STUB_ADDRESS), stub),
        (page(RING0_STACK_ADDRESS), stack0),
        (page(BOOT_ADDRESS), Rights::USER_READ),
        (page(CLOCK_ADDRESS), Rights::USER_READ),
        (CONFIG_TEXT.start..config_end, Rights::USER_READ),
        (layout.stack.start..layout.heap.end, Rights::USER_WRITE),
        (layout.rofs.clone().unwrap_or(0..0), Rights::USER_READ),
    ];
    let segments = image.elf.segments.iter().map(|segment| {
        let rights = Rights {
            user: true,
            write: segment.is_writable,
            execute: segment.is_executable,
        };
        (segment.memory.clone(), rights)
    });
    for (range, rights) in own.into_iter().chain(segments) {
        tables.map(range, rights).map_err(|_| {
            ImageError::new(
                "memory",
                "image, stack and memory need more page tables than there is room for; \
                 give it less memory",
            )
        })?;
    }
    Ok(())
}

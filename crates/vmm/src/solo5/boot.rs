//! Putting a Solo5 image into a guest's memory, with its boot information.

use std::ops::Range;

use gamut_abi::guest::solo5::{DEFAULT_MEMORY_BYTES, Manifest};

use crate::error::{Error, ImageError, Result};
use crate::layout::{
    DESCRIPTORS_ADDRESS, LARGE_PAGE_BYTES, Layout, PAGE_BYTES, RING0_STACK_ADDRESS, STUB_ADDRESS,
    check_segments,
};
use crate::memory::GuestMemory;
use crate::paging::{PageTables, Rights};
use crate::prepare::{Prepared, put};
use crate::tables;
use gamut_abi::guest::elf::Elf;

use super::{BOOT_INFO_ADDRESS, PAGE_TABLES, PORTS};

/// Size of `struct hvt_boot_info`.
const BOOT_INFO_BYTES: u64 = 56;
/// Room for the command line, its terminating zero included.
const COMMAND_LINE_BYTES: u64 = 8192;
/// A request names an address of 32 bits.
const MAX_MEMORY_BYTES: u64 = 4 << 30;

/// Fills memory for a start. The frequency of the time stamp counter is still missing.
///
/// # Errors
/// If image or command line do not fit, or the system has no memory for it.
pub fn prepare(
    path: &str,
    file: &[u8],
    manifest: &Manifest,
    command_line: &str,
    memory_bytes: Option<u64>,
) -> Result<Prepared> {
    let refused = |problem| Error::Image {
        path: path.to_owned(),
        problem,
    };
    if command_line.len() as u64 >= COMMAND_LINE_BYTES || command_line.contains('\0') {
        return Err(Error::Config {
            path: path.to_owned(),
            problem: format!(
                "Guest command line too long (max={} characters)",
                COMMAND_LINE_BYTES - 1
            ),
        });
    }
    let elf = Elf::parse_solo5(file).map_err(refused)?;
    let memory_bytes = memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES);
    let memory_bytes = memory_bytes / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
    if !(LARGE_PAGE_BYTES..=MAX_MEMORY_BYTES).contains(&memory_bytes) {
        return Err(refused(ImageError::new(
            "memory",
            format!(
                "{memory_bytes} bytes; a guest of Solo5 has at least {LARGE_PAGE_BYTES} and at \
                 most {MAX_MEMORY_BYTES}"
            ),
        )));
    }
    check_segments(&elf, memory_bytes).map_err(refused)?;
    let image_end = elf.segments.last().map_or(0, |last| last.memory.end);
    let image_end = image_end.next_multiple_of(PAGE_BYTES).min(memory_bytes);
    let layout = Layout {
        memory_bytes,
        stack: image_end..memory_bytes,
        heap: image_end..memory_bytes,
        rofs: None,
    };
    let mut memory = GuestMemory::new(memory_bytes)?;
    let filled = Filling {
        memory: &mut memory,
        layout: &layout,
    };
    filled
        .fill(file, &elf, manifest, command_line)
        .map_err(refused)?;
    Ok(Prepared {
        memory,
        layout,
        entry: elf.entry,
    })
}

struct Filling<'guest> {
    memory: &'guest mut GuestMemory,
    layout: &'guest Layout,
}

impl Filling<'_> {
    fn fill(
        self,
        file: &[u8],
        elf: &Elf,
        manifest: &Manifest,
        command_line: &str,
    ) -> std::result::Result<(), ImageError> {
        let memory = self.memory;
        for segment in &elf.segments {
            let data = file.get(segment.file.clone()).unwrap_or_default();
            put(memory, segment.memory.start, data)?;
            memory.allow(segment.memory.clone(), segment.is_writable);
        }
        memory.allow(self.layout.heap.clone(), true);
        let descriptors = tables::descriptors(DESCRIPTORS_ADDRESS, &PORTS);
        put(memory, DESCRIPTORS_ADDRESS, &descriptors)?;
        put(memory, STUB_ADDRESS, &tables::stub())?;
        let manifest_at = BOOT_INFO_ADDRESS + BOOT_INFO_BYTES;
        let command_line_at = manifest_at + manifest.bytes().len() as u64;
        // mem_size, kernel_end, cpu_cycle_freq (set later), cmdline, mft; no further features.
        let info = [
            self.layout.memory_bytes,
            self.layout.heap.start,
            0,
            command_line_at,
            manifest_at,
            0,
            0,
        ];
        let info: Vec<u8> = info.iter().flat_map(|word| word.to_le_bytes()).collect();
        put(memory, BOOT_INFO_ADDRESS, &info)?;
        put(memory, manifest_at, manifest.bytes())?;
        put(memory, command_line_at, command_line.as_bytes())?;
        let told = BOOT_INFO_ADDRESS..command_line_at + COMMAND_LINE_BYTES;
        memory.allow(told.clone(), false);
        map(memory, elf, told, self.layout.heap.clone())
    }
}

fn map(
    memory: &mut GuestMemory,
    elf: &Elf,
    told: Range<u64>,
    heap: Range<u64>,
) -> std::result::Result<(), ImageError> {
    let full = || {
        ImageError::new(
            "memory",
            "the image needs more page tables than there is room for; give it fewer segments",
        )
    };
    let room = memory
        .raw_mut(PAGE_TABLES.start, PAGE_TABLES.end - PAGE_TABLES.start)
        .ok_or_else(full)?;
    let mut tables = PageTables::new(room, PAGE_TABLES.start);
    let supervisor = |write, execute| Rights {
        user: false,
        write,
        execute,
    };
    let page = |address| address..address + PAGE_BYTES;
    let own = [
        (page(DESCRIPTORS_ADDRESS), supervisor(false, false)),
        (page(STUB_ADDRESS), supervisor(false, true)),
        (page(RING0_STACK_ADDRESS), supervisor(true, false)),
        (told, Rights::USER_READ),
        (heap, Rights::USER_WRITE),
    ];
    let segments = elf.segments.iter().map(|segment| {
        let rights = Rights {
            user: true,
            write: segment.is_writable,
            execute: segment.is_executable,
        };
        (segment.memory.clone(), rights)
    });
    for (range, rights) in own.into_iter().chain(segments) {
        tables.map(range, rights).map_err(|_| full())?;
    }
    Ok(())
}

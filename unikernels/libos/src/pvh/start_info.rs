//! What a PVH monitor tells (Xen's `xen/include/public/arch-x86/hvm/start_info.h`).

use core::ffi::CStr;
use core::ptr;

use crate::to_usize;

/// `magic` of [`StartInfo`].
const MAGIC: u32 = 0x336e_c578;
/// Type of usable memory in the map.
const MEMORY_USABLE: u32 = 1;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules_address: u64,
    command_line_address: u64,
    rsdp_address: u64,
    memory_map_address: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct ModuleEntry {
    address: u64,
    bytes: u64,
    command_line_address: u64,
    reserved: u64,
}

#[repr(C)]
struct MemoryEntry {
    address: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// A module (initrd).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Module {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// What of it is used here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// The first two modules: configuration text, image of the read-only file system.
    pub(super) modules: [Module; 2],
    /// Address of the command line, 0 if there is none.
    pub(super) command_line_address: u64,
    /// End of the usable memory that begins at or below the image and holds it.
    pub(super) memory_end: u64,
}

/// Memory is assumed to reach so far if there is no map (version 0 of the structure).
const MEMORY_WITHOUT_MAP: u64 = 16 << 20;
/// Above lie devices; the page tables map no more.
const HIGHEST_MEMORY: u64 = 3 << 30;

fn at<T>(address: u64) -> *const T {
    ptr::with_exposed_provenance(to_usize(address))
}

/// Reads the structure at an address, for an image that ends at `image_end`.
///
/// Memory is used up to whatever the monitor has put above the image.
///
/// # Safety
/// `address` is what the monitor left in `ebx`.
pub(super) unsafe fn read(address: u64, image_end: u64) -> Option<Found> {
    // SAFETY: the caller answers for the address; the monitor for what the structure names.
    unsafe {
        let info = at::<StartInfo>(address).read_unaligned();
        if info.magic != MAGIC {
            return None;
        }
        let mut found = Found {
            command_line_address: info.command_line_address,
            ..Found::default()
        };
        let modules = at::<ModuleEntry>(info.modules_address);
        for (index, place) in found.modules.iter_mut().enumerate() {
            if index < to_usize(info.module_count.into()) {
                let module = modules.add(index).read_unaligned();
                *place = Module {
                    address: module.address,
                    bytes: module.bytes,
                };
            }
        }
        found.memory_end = MEMORY_WITHOUT_MAP;
        if info.version >= 1 && info.memory_map_entries > 0 {
            let map = at::<MemoryEntry>(info.memory_map_address);
            for index in 0..to_usize(info.memory_map_entries.into()) {
                let entry = map.add(index).read_unaligned();
                let end = entry.address.saturating_add(entry.bytes);
                if entry.kind == MEMORY_USABLE && (entry.address..end).contains(&(image_end - 1)) {
                    found.memory_end = end.min(HIGHEST_MEMORY);
                }
            }
        }
        let above = [
            address,
            info.modules_address,
            info.memory_map_address,
            info.command_line_address,
            found.modules[0].address,
            found.modules[1].address,
        ];
        for taken in above {
            if taken >= image_end {
                found.memory_end = found.memory_end.min(taken & !0xfff);
            }
        }
        Some(found)
    }
}

/// The command line.
///
/// # Safety
/// `found` is what [`read`] found.
pub(super) unsafe fn command_line(found: &Found) -> &'static [u8] {
    if found.command_line_address == 0 {
        return &[];
    }
    // SAFETY: a text with a zero at its end, which nobody writes (start_info.h).
    unsafe { CStr::from_ptr(at(found.command_line_address)).to_bytes() }
}

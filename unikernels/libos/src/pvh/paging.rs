//! Rights of memory under the PVH entry: code cannot be written, data cannot be executed, and
//! there is nothing at address 0 and below the stack.

use core::arch::asm;

use super::entry::PAGE_TABLES;

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const NO_EXECUTE: u64 = 1 << 63;
/// Large pages that are divided: the first 8 MiB hold the image.
const DIVIDED: u64 = 4;

/// Where the image's parts end (linker script).
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    pub(super) start: u64,
    pub(super) text_end: u64,
    pub(super) rodata_end: u64,
    pub(super) end: u64,
}

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
}

/// Where the image lies.
pub(super) fn image() -> Image {
    Image {
        start: (&raw const __image_start).expose_provenance() as u64,
        text_end: (&raw const __text_end).expose_provenance() as u64,
        rodata_end: (&raw const __rodata_end).expose_provenance() as u64,
        end: (&raw const __image_end).expose_provenance() as u64,
    }
}

/// The page table entry of a page below [`DIVIDED`] large ones.
fn entry(address: u64, image: &Image, hole: u64) -> u64 {
    if address == hole {
        return 0;
    }
    let rights = if (image.start..image.text_end).contains(&address) {
        PRESENT
    } else if (image.text_end..image.rodata_end).contains(&address) {
        PRESENT | NO_EXECUTE
    } else {
        PRESENT | WRITABLE | NO_EXECUTE
    };
    address | rights
}

/// Takes away the rights that nobody needs. The page at `hole` is not there afterwards.
pub(super) fn protect(image: &Image, hole: u64) {
    // SAFETY: called once, while nothing else runs; the entries that are changed map the running
    // code and stack as before, apart from rights they do not use.
    unsafe {
        let tables = &raw mut PAGE_TABLES.0;
        for number in 0..DIVIDED {
            let table = crate::to_usize(6 + number);
            for index in 0..512 {
                let address = number * LARGE_PAGE + index * PAGE;
                (*tables)[table][crate::to_usize(index)] = entry(address, image, hole);
            }
            let place = (&raw const (*tables)[table]).expose_provenance() as u64;
            (*tables)[2][crate::to_usize(number)] = place | PRESENT | WRITABLE;
        }
        for table in 2..6 {
            for index in 0..512 {
                if table > 2 || index >= crate::to_usize(DIVIDED) {
                    (*tables)[table][index] |= NO_EXECUTE;
                }
            }
        }
        asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags));
    }
}

/// Takes the page at address 0 away, once what the monitor put there has been read.
pub(super) fn remove_first_page() {
    // SAFETY: nothing of Rust lies at address 0.
    unsafe {
        let tables = &raw mut PAGE_TABLES.0;
        (*tables)[6][0] = 0;
        asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags));
    }
}

//! What the guest was started with.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use gamut_abi::guest::boot::{BootBlock, ClockPage};

use crate::to_usize;

/// Written once, before anything reads it.
static BOOT_BLOCK: AtomicPtr<BootBlock> = AtomicPtr::new(ptr::null_mut());

/// Remembers the boot block.
///
/// # Safety
/// It, and what it names, stays valid and is not written by the guest.
pub(crate) unsafe fn set(boot: *const BootBlock) {
    BOOT_BLOCK.store(boot.cast_mut(), Ordering::Relaxed);
}

/// The boot block. Only after [`set`].
pub(crate) fn block() -> &'static BootBlock {
    let boot = BOOT_BLOCK.load(Ordering::Relaxed);
    // SAFETY: the entry points call `set`, whose caller answers for it, before anything else.
    unsafe { &*boot }
}

/// The configuration text.
pub(crate) fn config() -> &'static [u8] {
    let boot = block();
    slice(boot.config_address, boot.config_bytes)
}

/// The image of the read-only file system; empty if there is none.
#[cfg(feature = "rofs")]
pub(crate) fn rofs() -> &'static [u8] {
    let boot = block();
    slice(boot.rofs_address, boot.rofs_bytes)
}

fn slice(address: u64, bytes: u64) -> &'static [u8] {
    if address == 0 || bytes == 0 {
        return &[];
    }
    let start = ptr::with_exposed_provenance::<u8>(to_usize(address));
    // SAFETY: the monitor put that many bytes there and nobody writes them afterwards.
    unsafe { core::slice::from_raw_parts(start, to_usize(bytes)) }
}

/// The page in which the monitor tells the time.
pub(crate) fn clock_page() -> *const ClockPage {
    ptr::with_exposed_provenance(to_usize(block().clock_address))
}

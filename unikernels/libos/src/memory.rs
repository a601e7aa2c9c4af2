//! The heap: all memory that the monitor left free.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use gamut_abi::guest::boot::BootBlock;
use talc::TalcCell;
use talc::source::Manual;

use crate::{platform, to_usize};

/// The allocator, which ends the guest with a clear word when memory is exhausted.
struct Allocator {
    heap: TalcCell<Manual>,
}

// SAFETY: a guest has one vCPU and no threads, and interrupt handlers do not allocate.
unsafe impl Sync for Allocator {}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator {
    heap: TalcCell::new(Manual),
};

/// Bytes that are allocated, for [`in_use_bytes`].
static IN_USE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Gives the heap its memory.
pub(crate) fn initialize(boot: &BootBlock) {
    let start = ptr::with_exposed_provenance_mut::<u8>(to_usize(boot.heap_address));
    // SAFETY: the monitor says that this memory is free, and this is called once, at the start.
    let claimed = unsafe { ALLOCATOR.heap.claim(start, to_usize(boot.heap_bytes)) };
    if claimed.is_none() {
        platform::out_of_memory(boot.heap_bytes);
    }
}

/// Bytes that the application and the library OS have allocated.
#[must_use]
pub fn in_use_bytes() -> usize {
    IN_USE_BYTES.load(Ordering::Relaxed)
}

/// Bytes of the heap that are not allocated.
#[must_use]
pub fn available_bytes() -> usize {
    to_usize(crate::boot::block().heap_bytes).saturating_sub(in_use_bytes())
}

fn count(added: usize, removed: usize) {
    let now = IN_USE_BYTES.load(Ordering::Relaxed);
    IN_USE_BYTES.store(
        now.wrapping_add(added).wrapping_sub(removed),
        Ordering::Relaxed,
    );
}

// SAFETY: hands everything to talc, or does not come back.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this trait, which is talc's.
        let memory = unsafe { self.heap.alloc(layout) };
        if memory.is_null() {
            platform::out_of_memory(layout.size() as u64);
        }
        count(layout.size(), 0);
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { self.heap.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe { self.heap.realloc(memory, layout, new_size) };
        if memory.is_null() {
            platform::out_of_memory(new_size as u64);
        }
        count(new_size, layout.size());
        memory
    }
}

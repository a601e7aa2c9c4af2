//! Monotonic time and wall clock, without an exit to the monitor.

use core::arch::x86_64::_rdtsc;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};
use core::time::Duration;

use gamut_abi::guest::boot::ClockPage;

use crate::boot;

/// Nanoseconds of monotonic time since the start of the guest. Never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let page = read();
    page.monotonic_base_ns.saturating_add(elapsed_ns(&page))
}

/// Nanoseconds since 1970 UTC. Goes back if the host's clock is set back.
#[must_use]
pub fn wall_ns() -> u64 {
    let page = read();
    page.wall_base_ns.saturating_add(elapsed_ns(&page))
}

/// Monotonic time since the start of the guest.
#[must_use]
pub fn uptime() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

/// Raised each time the guest goes on in another place or time (restored, cloned, migrated).
#[must_use]
pub fn generation() -> u32 {
    read().generation
}

/// Whether the guest has been asked to shut down in order.
pub(crate) fn is_stop_requested() -> bool {
    let page = boot::clock_page();
    // SAFETY: the monitor keeps the page mapped; it may change at any time, thus volatile.
    unsafe { ptr::read_volatile(&raw const (*page).stop_requested) != 0 }
}

fn elapsed_ns(page: &ClockPage) -> u64 {
    // SAFETY: every x86-64 processor has the counter, and it is not forbidden at our level.
    page.elapsed_ns(unsafe { _rdtsc() })
}

/// A consistent copy of the page (the sequence is even and the same before and after).
fn read() -> ClockPage {
    const { assert!(offset_of!(ClockPage, sequence) == 0) };
    let page = boot::clock_page();
    loop {
        // SAFETY: as above. The host's stores are ordered as written (x86), so fences of the
        // compiler are enough here.
        unsafe {
            let before = ptr::read_volatile(&raw const (*page).sequence);
            compiler_fence(Ordering::Acquire);
            let copy = ptr::read_volatile(page);
            compiler_fence(Ordering::Acquire);
            let after = ptr::read_volatile(&raw const (*page).sequence);
            if before == after && before.is_multiple_of(2) {
                return copy;
            }
        }
        core::hint::spin_loop();
    }
}

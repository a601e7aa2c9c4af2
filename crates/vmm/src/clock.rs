//! The guest's clock: a page that it reads without an exit, and the same time for the monitor.

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use gamut_abi::guest::boot::ClockPage;
use serde::{Deserialize, Serialize};

use crate::layout::CLOCK_ADDRESS;
use crate::memory::GuestMemory;

/// How long a base is used. A base that is anew follows what the host does to its clocks.
const BASE_NS: u64 = 1_000_000_000;

/// Monotonic time as the guest sees it.
pub trait TimeSource {
    /// Nanoseconds since the guest's start.
    fn now_ns(&self) -> u64;

    /// Lets the guest's clock follow the host's, if that was not done for a while.
    fn follow(&mut self);

    /// Where it stands, to go on from there in another machine.
    fn save(&self) -> SavedClock;
}

/// The clock page and what is needed to keep it.
#[derive(Debug)]
pub struct Clock {
    /// In the guest's memory, which lives as long as the machine that owns both.
    page: NonNull<u8>,
    /// What the guest's counter is ahead of the host's.
    tsc_offset: u64,
    /// Host's monotonic time at the guest's start; behind its zero for a restored guest.
    origin_ns: i128,
    current: ClockPage,
}

// SAFETY: the page is written by whoever holds the clock, through atomics only.
unsafe impl Send for Clock {}

/// Where a stopped clock stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedClock {
    /// Monotonic nanoseconds of the guest.
    pub monotonic_ns: u64,
    /// Generation of the guest.
    pub generation: u32,
}

impl Clock {
    /// A clock that starts now, at `saved` if the guest was stopped before.
    ///
    /// `tsc_khz` is the frequency of the guest's counter, `tsc_offset` what it is ahead of the
    /// host's. `None` if the memory is too small to hold the page.
    #[must_use]
    pub fn start(
        memory: &GuestMemory,
        tsc_khz: u32,
        tsc_offset: u64,
        saved: Option<SavedClock>,
    ) -> Option<Self> {
        let page = memory.atomic_u32(CLOCK_ADDRESS)?.cast();
        let ns_per_tick_q32 = (1_000_000_u64 << 32) / u64::from(tsc_khz.max(1));
        let elapsed_ns = saved.map_or(0, |saved| saved.monotonic_ns);
        let mut clock = Self {
            page,
            tsc_offset,
            origin_ns: i128::from(host_ns(libc::CLOCK_MONOTONIC)) - i128::from(elapsed_ns),
            current: ClockPage {
                sequence: 0,
                generation: saved.map_or(0, |saved| saved.generation.wrapping_add(1)),
                tsc_base: 0,
                monotonic_base_ns: elapsed_ns,
                wall_base_ns: 0,
                ns_per_tick_q32,
                stop_requested: 0,
                reserved: 0,
            },
        };
        clock.current.tsc_base = clock.counter();
        clock.rebase();
        Some(clock)
    }

    /// The guest's time stamp counter.
    fn counter(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and Linux does not forbid it.
        let host = unsafe { core::arch::x86_64::_rdtsc() };
        host.wrapping_add(self.tsc_offset)
    }

    fn rebase(&mut self) {
        let counter = self.counter();
        let host_monotonic = i128::from(host_ns(libc::CLOCK_MONOTONIC)) - self.origin_ns;
        let shown = self.at(counter);
        // The host's clock may be a little behind what the guest computed: it never goes back.
        let monotonic = u64::try_from(host_monotonic).unwrap_or(0).max(shown);
        self.current.tsc_base = counter;
        self.current.monotonic_base_ns = monotonic;
        self.current.wall_base_ns = host_ns(libc::CLOCK_REALTIME);
        self.publish();
    }

    fn at(&self, counter: u64) -> u64 {
        let elapsed_ns = self.current.elapsed_ns(counter);
        self.current.monotonic_base_ns.saturating_add(elapsed_ns)
    }

    fn publish(&mut self) {
        let odd = self.current.sequence | 1;
        self.word(offset_of!(ClockPage, sequence))
            .store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        let words = [
            (offset_of!(ClockPage, tsc_base), self.current.tsc_base),
            (
                offset_of!(ClockPage, monotonic_base_ns),
                self.current.monotonic_base_ns,
            ),
            (
                offset_of!(ClockPage, wall_base_ns),
                self.current.wall_base_ns,
            ),
            (
                offset_of!(ClockPage, ns_per_tick_q32),
                self.current.ns_per_tick_q32,
            ),
        ];
        for (offset, value) in words {
            self.double(offset).store(value, Ordering::Relaxed);
        }
        self.word(offset_of!(ClockPage, generation))
            .store(self.current.generation, Ordering::Relaxed);
        self.current.sequence = odd.wrapping_add(1);
        self.word(offset_of!(ClockPage, sequence))
            .store(self.current.sequence, Ordering::Release);
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: a field of the page, aligned as the structure is; the page is of 4096 bytes and
        // lives as long as the machine that owns this clock and the memory.
        unsafe { self.page.add(offset).cast().as_ref() }
    }

    fn double(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `word`.
        unsafe { self.page.add(offset).cast().as_ref() }
    }
}

impl TimeSource for Clock {
    fn now_ns(&self) -> u64 {
        self.at(self.counter())
    }

    fn follow(&mut self) {
        if self.current.elapsed_ns(self.counter()) >= BASE_NS {
            self.rebase();
        }
    }

    fn save(&self) -> SavedClock {
        SavedClock {
            monotonic_ns: self.now_ns(),
            generation: self.current.generation,
        }
    }
}

/// A clock of the host in nanoseconds.
#[must_use]
pub fn host_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_across_bases_and_stops() {
        let memory = GuestMemory::new(1 << 20).expect("memory");
        // A counter that is said to be too fast: the computed time runs ahead of the host's.
        let mut clock = Clock::start(&memory, 1_000_000, 77, None).expect("a page");
        let mut last = 0;
        for _ in 0..100 {
            clock.rebase();
            let now = clock.now_ns();
            assert!(now >= last, "{now} {last}");
            last = now;
        }
        let saved = clock.save();
        let later = Clock::start(&memory, 2_000_000, 0, Some(saved)).expect("a page");
        assert!(later.now_ns() >= saved.monotonic_ns);
        assert_eq!(later.save().generation, saved.generation + 1);
        let page = memory.raw(CLOCK_ADDRESS, 8).expect("a page");
        assert_eq!(
            page.get(..4)
                .map(|sequence| sequence.first().map(|low| low % 2)),
            Some(Some(0))
        );
    }
}

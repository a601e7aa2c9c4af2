//! Time under the PVH entry: the time stamp counter, whose rate is found at the start.

use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};

use gamut_abi::guest::boot::ClockPage;

use super::interrupts;
use super::ports::{read_byte, write_byte};

/// Rate of the old timer (8254), per second.
const PIT_HZ: u64 = 1_193_182;
/// Ticks of it for which the other clocks are counted: 10 ms.
const PIT_TICKS: u64 = 11_932;
/// How long a missing 8254 is waited for, in reads.
const MAX_POLLS: u32 = 200_000;
/// Assumed where nothing tells.
const FALLBACK_HZ: u64 = 1_000_000_000;

/// Rates of the clocks, in ticks per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    tsc_hz: u64,
    /// Of the local APIC's timer.
    pub(super) timer_hz: u64,
}

/// What the processor says of its counter's rate: leaf 0x15, or the hypervisors' leaf 0x40000010.
fn told_tsc_hz() -> Option<u64> {
    if __cpuid(0).eax >= 0x15 {
        let leaf = __cpuid(0x15);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            return Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax));
        }
    }
    let is_guest = __cpuid_count(1, 0).ecx >> 31 == 1;
    if is_guest && __cpuid(0x4000_0000).eax >= 0x4000_0010 {
        let khz = __cpuid(0x4000_0010).eax;
        if khz != 0 {
            return Some(u64::from(khz) * 1000);
        }
    }
    None
}

/// The count of the 8254's channel 0, latched.
fn pit_count() -> u64 {
    write_byte(0x43, 0);
    let low = read_byte(0x40);
    u64::from(low) | u64::from(read_byte(0x40)) << 8
}

/// Finds the rates.
pub(super) fn calibrate() -> Rates {
    // Channel 0, once, down from the highest count. Not every machine lets the others be read.
    write_byte(0x43, 0x30);
    write_byte(0x40, 0xff);
    write_byte(0x40, 0xff);
    // SAFETY: every x86-64 processor has the counter.
    let tsc_begin = unsafe { _rdtsc() };
    interrupts::begin_count();
    let pit_begin = pit_count();
    let mut pit_ticks = 0;
    let mut polls = 0;
    while pit_ticks < PIT_TICKS && polls < MAX_POLLS {
        pit_ticks = pit_begin.saturating_sub(pit_count());
        polls += 1;
    }
    // SAFETY: as above.
    let tsc_ticks = unsafe { _rdtsc() } - tsc_begin;
    let timer_ticks = u64::from(interrupts::counted());
    let told = told_tsc_hz();
    if polls == MAX_POLLS {
        let tsc_hz = told.unwrap_or(FALLBACK_HZ);
        let timer_hz = u128::from(timer_ticks) * u128::from(tsc_hz) / u128::from(tsc_ticks.max(1));
        return Rates {
            tsc_hz,
            timer_hz: u64::try_from(timer_hz).unwrap_or(FALLBACK_HZ).max(1),
        };
    }
    Rates {
        tsc_hz: told.unwrap_or(tsc_ticks * PIT_HZ / pit_ticks).max(1),
        timer_hz: (timer_ticks * PIT_HZ / pit_ticks).max(1),
    }
}

/// A clock page that begins now.
pub(super) fn page(rates: &Rates) -> ClockPage {
    let ns_per_tick_q32 = (1_000_000_000_u128 << 32) / u128::from(rates.tsc_hz);
    ClockPage {
        sequence: 0,
        generation: 0,
        // SAFETY: as above.
        tsc_base: unsafe { _rdtsc() },
        monotonic_base_ns: 0,
        wall_base_ns: real_time_clock_seconds().saturating_mul(1_000_000_000),
        ns_per_tick_q32: u64::try_from(ns_per_tick_q32).unwrap_or(u64::MAX),
        stop_requested: 0,
        reserved: 0,
    }
}

/// A register of the real-time clock.
fn register(index: u8) -> u8 {
    write_byte(0x70, index);
    read_byte(0x71)
}

/// Seconds since 1970 by the real-time clock; 0 if there is none.
fn real_time_clock_seconds() -> u64 {
    /// Second, minute, hour, day, month, year.
    const REGISTERS: [u8; 6] = [0, 2, 4, 7, 8, 9];
    const STATUS: u8 = 0x0b;
    let take = || REGISTERS.map(register);
    let mut values = take();
    for _ in 0..1000 {
        let again = take();
        if again == values {
            break;
        }
        values = again;
    }
    if values[0] == 0xff || values[4] == 0 {
        return 0;
    }
    if register(STATUS) & 4 == 0 {
        values = values.map(|value| (value >> 4) * 10 + (value & 0xf));
    }
    let [second, minute, hour, day, month, year] = values.map(i64::from);
    let days = days_from_civil(2000 + year, month, day);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    u64::try_from(seconds).unwrap_or(0)
}

/// Days since 1970-01-01 in the Gregorian calendar. Months are counted from March, so that a leap
/// day ends a year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

//! Fuzz targets: whatever a guest may ask for, on memory and devices that are made up.

use std::time::Duration;

use gamut_abi::guest::hypercall::{
    PORT_CONSOLE, PORT_ENTROPY, PORT_EXIT, PORT_IO, PORT_OUT_OF_MEMORY, PORT_PANIC,
};

use crate::clock::{SavedClock, TimeSource};
use crate::device::{Devices, Disk, Errno, Lost, Nic, Waiter, Woken};
use crate::memory::GuestMemory;
use crate::{prepare, request, symbols};
use gamut_abi::guest::bytes::{u16_at, u32_at, u64_at};

const MEMORY_BYTES: u64 = 0x3_0000;
/// Where the guest's writable memory begins.
const WRITABLE: u64 = 0x2_0000;
const WRITABLE_END: u64 = 0x2_8000;
/// What lies around it, a page at a time.
static UNTOUCHED: [u8; 4096] = [0xa5; 4096];

/// An ELF file: any bytes are refused or read.
pub fn fuzz_elf(data: &[u8]) {
    if let Ok(image) = prepare::Image::parse(data) {
        let _ = crate::layout::Layout::plan(&image.elf, &image.note, Some(4 << 20), Some(1));
    }
    let _ = symbols::find(data, 0x10_1234);
}

/// A device that echoes, drops and counts.
#[derive(Default)]
struct Cable {
    waiting: Vec<Vec<u8>>,
}

impl Nic for Cable {
    fn transmit(&mut self, frame: &[u8]) -> Result<bool, Lost> {
        if self.waiting.len() >= 4 {
            return Ok(false);
        }
        self.waiting.push(frame.to_vec());
        Ok(true)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Lost> {
        Ok(self.waiting.pop().map(|frame| {
            let bytes = frame.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..bytes), frame.get(..bytes)) {
                to.copy_from_slice(from);
            }
            bytes
        }))
    }
}

/// A disk in memory that checks what it is promised.
struct Blocks(Vec<u8>);

impl Blocks {
    fn range(&mut self, offset_bytes: u64, bytes: usize) -> &mut [u8] {
        assert!(offset_bytes.is_multiple_of(512) && bytes.is_multiple_of(512));
        let start = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes);
        assert!(end <= self.0.len(), "a request beyond the disk");
        self.0.get_mut(start..end).unwrap_or_default()
    }
}

impl Disk for Blocks {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, offset_bytes: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let bytes = buffer.len();
        buffer.copy_from_slice(self.range(offset_bytes, bytes));
        Ok(())
    }

    fn write(&mut self, offset_bytes: u64, data: &[u8]) -> Result<(), Errno> {
        self.range(offset_bytes, data.len()).copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn discard(&mut self, offset_bytes: u64, bytes: u64) -> Result<(), Errno> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.range(offset_bytes, bytes).fill(0);
        Ok(())
    }
}

/// Time that passes with each look, and waits that end at once.
struct Time(std::cell::Cell<u64>);

impl TimeSource for Time {
    fn now_ns(&self) -> u64 {
        self.0.set(self.0.get().saturating_add(1 << 60));
        self.0.get()
    }

    fn follow(&mut self) {}

    fn save(&self) -> SavedClock {
        SavedClock {
            monotonic_ns: self.0.get(),
            generation: 0,
        }
    }
}

struct Impatient(bool);

impl Waiter for Impatient {
    fn wait(&mut self, _: Option<Duration>) -> Result<Woken, Lost> {
        self.0 = !self.0;
        Ok(if self.0 { Woken::Timeout } else { Woken::Call })
    }

    fn is_stopping(&self) -> bool {
        self.0
    }
}

fn devices() -> Devices {
    Devices {
        nics: vec![Box::<Cable>::default(), Box::<Cable>::default()],
        disks: vec![Box::new(Blocks(vec![0; 64 << 10]))],
        console: Box::new(std::io::sink()),
        waiter: Box::new(Impatient(false)),
        clock: Box::new(Time(std::cell::Cell::new(0))),
        next_nic: 0,
    }
}

/// Bytes that no guest may name, around those that it may.
fn memory() -> Option<GuestMemory> {
    let mut memory = GuestMemory::new(MEMORY_BYTES).ok()?;
    memory.raw_mut(0, MEMORY_BYTES)?.fill(0xa5);
    memory.allow(0x1_8000..WRITABLE, false);
    memory.allow(WRITABLE..WRITABLE_END, true);
    memory.raw_mut(WRITABLE, WRITABLE_END - WRITABLE)?.fill(0);
    Some(memory)
}

/// Requests of a guest. The input is a list of steps: a byte for the port, a byte for the place of
/// the request, the request's 64 bytes as they are.
pub fn fuzz_requests(data: &[u8]) {
    let Some(mut memory) = memory() else { return };
    let mut devices = devices();
    for step in data.chunks(66) {
        let (Some([port, place]), Some(body)) = (step.first_chunk(), step.get(2..)) else {
            break;
        };
        let at = WRITABLE + u64::from(*place) * 8;
        let size = body.len() as u64;
        if let Some(room) = memory.raw_mut(at, size) {
            room.copy_from_slice(body);
        }
        let port = match port % 8 {
            0 => PORT_CONSOLE,
            1 => PORT_ENTROPY,
            2 => PORT_EXIT,
            3 => PORT_PANIC,
            4 => PORT_OUT_OF_MEMORY,
            _ => PORT_IO,
        };
        let value = if *place == u8::MAX {
            u32_at(body, 0).unwrap_or(0)
        } else {
            u32::try_from(at).unwrap_or(0)
        };
        let _ = request::carry_out(port, value, &mut memory, &mut devices);
    }
    check_untouched(&memory);
}

/// Nothing but the guest's writable memory was written.
fn check_untouched(memory: &GuestMemory) {
    for (start, end) in [(0, WRITABLE), (WRITABLE_END, MEMORY_BYTES)] {
        let bytes = memory.raw(start, end - start).unwrap_or_default();
        assert!(
            bytes.chunks(UNTOUCHED.len()).all(|page| page == UNTOUCHED),
            "memory that is not the guest's was written"
        );
    }
}

/// Makes a mutated list of requests more likely to get past the first checks: addresses and counts
/// that are wild are folded into the guest's memory.
pub fn repair_requests(data: &mut [u8]) {
    for step in data.chunks_mut(66) {
        for word in (2..step.len()).step_by(8) {
            let Some(value) = u64_at(step, word) else {
                break;
            };
            // A quarter stays as it is.
            if value & 3 == 3 || value < MEMORY_BYTES {
                continue;
            }
            let folded = WRITABLE + value % (WRITABLE_END - WRITABLE);
            if let Some(room) = step.get_mut(word..word + 8) {
                room.copy_from_slice(&(folded & !7).to_le_bytes());
            }
        }
        // Counts of an input and output request.
        for count in [34, 38, 42] {
            if let Some(value) = u16_at(step, count)
                && let Some(room) = step.get_mut(count..count + 4)
            {
                room.copy_from_slice(&u32::from(value % 8).to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Instant;

    proptest! {
        #[test]
        fn any_requests_are_answered_or_refused(mut data: Vec<u8>, is_repaired: bool) {
            if is_repaired {
                repair_requests(&mut data);
            }
            fuzz_requests(&data);
        }

        #[test]
        fn any_file_is_read_or_refused(data: Vec<u8>) {
            fuzz_elf(&data);
        }
    }

    /// Structures that are nearly right, for as long as the tests give.
    #[test]
    fn hostile_guests_reach_nothing_but_their_own() {
        let long = std::env::var_os("GAMUT_TEST_LONG").is_some();
        let time = Duration::from_secs(if long { 120 } else { 2 });
        let start = Instant::now();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let edges = [
            0,
            1,
            7,
            8,
            511,
            512,
            WRITABLE - 1,
            WRITABLE,
            WRITABLE + 64,
            WRITABLE_END - 8,
            WRITABLE_END - 1,
            WRITABLE_END,
            MEMORY_BYTES - 1,
            MEMORY_BYTES,
            1 << 32,
            1 << 63,
            u64::MAX - 7,
            u64::MAX,
        ];
        let mut rounds = 0_u64;
        while start.elapsed() < time {
            let mut data = Vec::new();
            for _ in 0..32 {
                data.push(next().to_le_bytes()[0] % 8);
                data.push(next().to_le_bytes()[0]);
                for _ in 0..8 {
                    let word = match next() % 4 {
                        0 => edges[usize::try_from(next()).unwrap() % edges.len()],
                        1 => WRITABLE + next() % 4096 / 8 * 8,
                        2 => (next() % 4) | ((next() % 4) << 32),
                        _ => next(),
                    };
                    data.extend_from_slice(&word.to_le_bytes());
                }
            }
            fuzz_requests(&data);
            rounds += 1;
        }
        assert!(rounds > 10, "{rounds} rounds");
    }
}

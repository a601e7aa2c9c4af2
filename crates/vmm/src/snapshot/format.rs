//! A saved machine as a stream: head, then the pages of its memory that are not all zeros.
//!
//! ```text
//! magic (8 bytes) version (u32) size of the head (u32) head (postcard)
//! runs of pages: address (u64) size (u64) bytes
//! the end: two zeros (u64)
//! ```
//! All numbers are little-endian.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::SavedClock;
use crate::error::{Error, Result};
use crate::layout::{Layout, MAX_MEMORY_BYTES, PAGE_BYTES};
use crate::memory::{GuestMemory, Region};

const MAGIC: [u8; 8] = *b"GAMUTMAC";
const VERSION: u32 = 1;
const MAX_HEAD_BYTES: u32 = 1 << 20;
const MAX_REGIONS: usize = 1024;
/// Most bytes of a run: what is read or written at once.
const MAX_RUN_BYTES: u64 = 1 << 20;

/// The head: all but the memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MachineState<P> {
    /// Where things lie in the memory.
    pub layout: Layout,
    /// Ranges that the guest may name.
    pub regions: Vec<Region>,
    /// Its clock.
    pub clock: SavedClock,
    /// Its processor.
    pub processor: P,
}

fn failed(error: io::Error) -> Error {
    Error::system("write or read a saved machine", error)
}

/// Writes the head.
///
/// # Errors
/// If the stream does not take it.
pub fn write_state<P: Serialize>(state: &MachineState<P>, to: &mut dyn Write) -> Result<()> {
    let head = postcard::to_allocvec(state).map_err(|error| Error::Snapshot(error.to_string()))?;
    let size = u32::try_from(head.len())
        .map_err(|_| Error::Snapshot("its head is too large".to_owned()))?;
    let parts: [&[u8]; 4] = [&MAGIC, &VERSION.to_le_bytes(), &size.to_le_bytes(), &head];
    parts
        .into_iter()
        .try_for_each(|part| to.write_all(part))
        .map_err(failed)
}

/// Reads the head.
///
/// # Errors
/// If it is none, or of another version.
pub fn read_state<P: DeserializeOwned>(from: &mut dyn Read) -> Result<MachineState<P>> {
    let mut magic = [0; 8];
    from.read_exact(&mut magic).map_err(failed)?;
    if magic != MAGIC {
        return Err(Error::Snapshot("this is none".to_owned()));
    }
    let version = read_u32(from)?;
    if version != VERSION {
        return Err(Error::Snapshot(format!(
            "version {version}, this monitor knows {VERSION}; use the release that saved it"
        )));
    }
    let size = read_u32(from)?;
    if size > MAX_HEAD_BYTES {
        return Err(Error::Snapshot(format!("a head of {size} bytes")));
    }
    let mut head = vec![0; usize::try_from(size).unwrap_or(0)];
    from.read_exact(&mut head).map_err(failed)?;
    let state: MachineState<P> = postcard::from_bytes(&head)
        .map_err(|error| Error::Snapshot(format!("its head cannot be read: {error}")))?;
    check(&state)?;
    Ok(state)
}

fn check<P>(state: &MachineState<P>) -> Result<()> {
    let bytes = state.layout.memory_bytes;
    let rofs_end = state.layout.rofs.as_ref().map_or(0, |rofs| rofs.end);
    let is_size = bytes.is_multiple_of(PAGE_BYTES) && (1..=MAX_MEMORY_BYTES).contains(&bytes);
    let is_inside = state.regions.len() <= MAX_REGIONS
        && state
            .regions
            .iter()
            .all(|region| region.range.end <= bytes.max(rofs_end));
    if is_size && is_inside {
        return Ok(());
    }
    Err(Error::Snapshot(
        "its sizes contradict each other: the file is damaged".to_owned(),
    ))
}

/// Writes the pages that are not all zeros.
///
/// # Errors
/// If the stream does not take them.
pub fn write_memory(memory: &GuestMemory, to: &mut dyn Write) -> Result<()> {
    let mut run = 0..0_u64;
    let mut address = 0;
    while address < memory.bytes() {
        let page = memory.raw(address, PAGE_BYTES).unwrap_or_default();
        let is_zero = page.iter().all(|byte| *byte == 0);
        let is_full = run.end - run.start >= MAX_RUN_BYTES;
        if is_zero || is_full {
            write_run(memory, &run, to)?;
            run = address..address;
        }
        if is_zero {
            run = address + PAGE_BYTES..address + PAGE_BYTES;
        } else {
            run.end = address + PAGE_BYTES;
        }
        address += PAGE_BYTES;
    }
    write_run(memory, &run, to)?;
    to.write_all(&[0; 16]).map_err(failed)
}

fn write_run(memory: &GuestMemory, run: &std::ops::Range<u64>, to: &mut dyn Write) -> Result<()> {
    let bytes = run.end - run.start;
    let Some(data) = memory.raw(run.start, bytes).filter(|data| !data.is_empty()) else {
        return Ok(());
    };
    to.write_all(&run.start.to_le_bytes())
        .and_then(|()| to.write_all(&bytes.to_le_bytes()))
        .and_then(|()| to.write_all(data))
        .map_err(failed)
}

/// Reads pages into fresh memory.
///
/// # Errors
/// If they do not fit.
pub fn read_memory(memory: &mut GuestMemory, from: &mut dyn Read) -> Result<()> {
    loop {
        let (address, bytes) = (read_u64(from)?, read_u64(from)?);
        if bytes == 0 {
            return Ok(());
        }
        let room = memory.raw_mut(address, bytes).ok_or_else(|| {
            Error::Snapshot(format!(
                "{bytes} bytes at {address:#x} lie outside its memory: the file is damaged"
            ))
        })?;
        from.read_exact(room).map_err(failed)?;
    }
}

fn read_u32(from: &mut dyn Read) -> Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).map_err(failed)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_u64(from: &mut dyn Read) -> Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).map_err(failed)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state() -> MachineState<u32> {
        MachineState {
            layout: Layout {
                memory_bytes: 64 * PAGE_BYTES,
                stack: 1..2,
                heap: 2..3,
                rofs: None,
            },
            regions: vec![Region {
                range: 0..PAGE_BYTES,
                is_writable: true,
            }],
            clock: SavedClock {
                monotonic_ns: 5,
                generation: 6,
            },
            processor: 7,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut memory = GuestMemory::new(64 * PAGE_BYTES).expect("memory");
        for page in [0, 1, 5, 63] {
            let room = memory
                .raw_mut(page * PAGE_BYTES, PAGE_BYTES)
                .expect("a page");
            room.fill(u8::try_from(page + 1).expect("small"));
        }
        let mut stream = Vec::new();
        write_state(&state(), &mut stream).expect("written");
        write_memory(&memory, &mut stream).expect("written");
        assert!(stream.len() < 5 * 4096, "zeros are left out");
        let mut from = stream.as_slice();
        let read: MachineState<u32> = read_state(&mut from).expect("read");
        assert_eq!(
            (read.layout, read.regions),
            (state().layout, state().regions)
        );
        assert_eq!((read.clock, read.processor), (state().clock, 7));
        let mut copy = GuestMemory::new(64 * PAGE_BYTES).expect("memory");
        read_memory(&mut copy, &mut from).expect("read");
        assert!(from.is_empty());
        let all = 64 * PAGE_BYTES;
        assert_eq!(memory.raw(0, all), copy.raw(0, all));
    }

    proptest! {
        #[test]
        fn any_stream_is_safe(data: Vec<u8>, keep in 0_usize..200) {
            let mut stream = Vec::new();
            write_state(&state(), &mut stream).expect("written");
            stream.truncate(keep);
            stream.extend_from_slice(&data);
            let mut memory = GuestMemory::new(64 * PAGE_BYTES).expect("memory");
            let mut from = stream.as_slice();
            if read_state::<u32>(&mut from).is_ok() {
                let _ = read_memory(&mut memory, &mut from);
            }
        }
    }
}

//! Requests of a Solo5 guest (`include/hvt_abi.h`, "Hypercall definitions"), carried out over its
//! memory and devices. Everything in them is hostile.

use std::io::Write as _;
use std::time::Duration;

use crate::clock::host_ns;
use crate::device::{Devices, Disk, Lost, Nic, Woken};
use crate::ending::Ending;
use crate::memory::{BadAddress, GuestMemory};
use crate::request::Trouble;

use super::{FIRST_PORT, Slot};

const WALLTIME: u16 = 1;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const BLOCK_WRITE: u16 = 4;
const BLOCK_READ: u16 = 5;
const NET_WRITE: u16 = 6;
const NET_READ: u16 = 7;
const HALT: u16 = 8;

/// `solo5_result_t`.
const OK: u32 = 0;
const AGAIN: u32 = 1;
const INVALID: u32 = 2;

/// The structure of a request: its words as they were, and where answers go.
struct Request<const WORDS: usize> {
    what: &'static str,
    address: u64,
    words: [u64; WORDS],
}

impl<const WORDS: usize> Request<WORDS> {
    fn read(what: &'static str, address: u32, memory: &GuestMemory) -> Result<Self, Trouble> {
        let address = u64::from(address);
        let bytes = memory
            .read(address, 8 * WORDS as u64)
            .map_err(|bad| named(what, bad))?;
        let word = |index: usize| gamut_abi::guest::bytes::u64_at(bytes, index * 8).unwrap_or(0);
        Ok(Self {
            what,
            address,
            words: std::array::from_fn(word),
        })
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Writes an answer to where a word was.
    fn answer(&self, index: u64, bytes: &[u8], memory: &mut GuestMemory) -> Result<(), Trouble> {
        memory
            .write(self.address + 8 * index, bytes.len() as u64)
            .map_err(|bad| named(self.what, bad))?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn answer_word(&self, index: u64, value: u64, memory: &mut GuestMemory) -> Result<(), Trouble> {
        self.answer(index, &value.to_le_bytes(), memory)
    }

    fn answer_code(&self, index: u64, code: u32, memory: &mut GuestMemory) -> Result<(), Trouble> {
        self.answer(index, &code.to_le_bytes(), memory)
    }
}

fn named(what: &str, bad: BadAddress) -> Trouble {
    crate::request::named(what, bad)
}

pub(super) fn carry_out(
    slots: &[Slot],
    port: u16,
    address: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<Option<Ending>, Trouble> {
    match port.wrapping_sub(FIRST_PORT) {
        WALLTIME => {
            let request = Request::<1>::read("request for the time", address, memory)?;
            request.answer_word(0, host_ns(libc::CLOCK_REALTIME), memory)?;
        }
        PUTS => puts(address, memory, devices)?,
        POLL => poll(slots, address, memory, devices)?,
        BLOCK_WRITE => block("block write", true, slots, address, memory, devices)?,
        BLOCK_READ => block("block read", false, slots, address, memory, devices)?,
        NET_WRITE => net_write(slots, address, memory, devices)?,
        NET_READ => net_read(slots, address, memory, devices)?,
        HALT => {
            let request = Request::<2>::read("halt", address, memory)?;
            // As exit(2): the low eight bits.
            let [code, ..] = request.word(1).to_le_bytes();
            return Ok(Some(Ending::Exited(code)));
        }
        _ => {
            return Err(Trouble::Bad(format!(
                "port {port:#x} is no request of Solo5's ABI version 2"
            )));
        }
    }
    Ok(None)
}

fn puts(address: u32, memory: &GuestMemory, devices: &mut Devices) -> Result<(), Trouble> {
    let request = Request::<2>::read("console write", address, memory)?;
    let text = memory
        .read(request.word(0), request.word(1))
        .map_err(|bad| named(request.what, bad))?;
    // Nobody listens any more: as for a process, that is no reason to end.
    let _ = devices.console.write_all(text);
    let _ = devices.console.flush();
    Ok(())
}

/// Waits until a network device has a frame, or for some time.
fn poll(
    slots: &[Slot],
    address: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    let request = Request::<3>::read("poll", address, memory)?;
    let woken = devices
        .waiter
        .wait(Some(Duration::from_nanos(request.word(0))))?;
    let mut ready = 0_u64;
    if woken == Woken::Frame {
        let frames = devices.waiter.frames();
        for (index, slot) in slots.iter().enumerate() {
            if let Slot::Nic(nic) = slot
                && frames >> nic & 1 == 1
            {
                ready |= 1 << index;
            }
        }
    }
    request.answer_word(1, ready, memory)?;
    request.answer_code(2, ready.count_ones(), memory)
}

fn slot(slots: &[Slot], handle: u64) -> Slot {
    usize::try_from(handle)
        .ok()
        .and_then(|handle| slots.get(handle).copied())
        .unwrap_or(Slot::Nothing)
}

fn block(
    what: &'static str,
    is_write: bool,
    slots: &[Slot],
    address: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    // handle, offset, data, length; then the answer.
    let request = Request::<4>::read(what, address, memory)?;
    let (offset, data, bytes) = (request.word(1), request.word(2), request.word(3));
    let disk = match slot(slots, request.word(0)) {
        Slot::Disk(disk) => devices.disks.get_mut(disk),
        _ => None,
    };
    let code = match disk {
        Some(disk) if is_inside(disk.as_ref(), offset, bytes) => {
            let done = if is_write {
                let data = memory.read(data, bytes).map_err(|bad| named(what, bad))?;
                disk.write(offset, data)
            } else {
                let room = memory.write(data, bytes).map_err(|bad| named(what, bad))?;
                disk.read(offset, room)
            };
            done.map_err(|errno| {
                let error = std::io::Error::from_raw_os_error(errno.0.cast_signed());
                Lost(format!(
                    "{what} at {offset:#x} of the device's file: {error}"
                ))
            })?;
            OK
        }
        _ => INVALID,
    };
    request.answer_code(4, code, memory)
}

fn is_inside(disk: &dyn Disk, offset: u64, bytes: u64) -> bool {
    let end = offset.checked_add(bytes);
    offset < disk.bytes() && end.is_some_and(|end| end <= disk.bytes())
}

fn nic<'devices>(
    slots: &[Slot],
    handle: u64,
    devices: &'devices mut Devices,
) -> Option<&'devices mut Box<dyn Nic>> {
    match slot(slots, handle) {
        Slot::Nic(nic) => devices.nics.get_mut(nic),
        _ => None,
    }
}

fn net_write(
    slots: &[Slot],
    address: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    let request = Request::<3>::read("network write", address, memory)?;
    let code = match nic(slots, request.word(0), devices) {
        Some(nic) => {
            let frame = memory
                .read(request.word(1), request.word(2))
                .map_err(|bad| named(request.what, bad))?;
            // A frame that the network does not take is lost, as on every network.
            nic.transmit(frame)?;
            OK
        }
        None => INVALID,
    };
    request.answer_code(3, code, memory)
}

fn net_read(
    slots: &[Slot],
    address: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    let request = Request::<3>::read("network read", address, memory)?;
    let code = match nic(slots, request.word(0), devices) {
        Some(nic) => {
            let room = memory
                .write(request.word(1), request.word(2))
                .map_err(|bad| named(request.what, bad))?;
            match nic.receive(room)? {
                Some(bytes) => {
                    request.answer_word(2, bytes as u64, memory)?;
                    OK
                }
                None => AGAIN,
            }
        }
        None => INVALID,
    };
    request.answer_code(3, code, memory)
}

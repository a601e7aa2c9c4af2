//! The request for all input and output of a turn.

use std::time::Duration;

use gamut_abi::guest::hypercall::{
    EVENT_MORE, EVENT_STOP, Frame, IoRequest, MAX_BATCH, MAX_FRAME_BYTES, WAIT_ALWAYS,
};

use super::{Trouble, block, named, structure};
use crate::device::{Devices, Woken};
use crate::memory::{GuestMemory, Plain};

const WHAT: &str = "request for input and output";
/// Answer for a frame that the device did not take.
const DROPPED: u16 = 1;

/// Carries one out: transmit, block requests, receive, wait.
pub(super) fn carry_out(
    address: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    let mut request: IoRequest = structure(WHAT, address, memory)?;
    let counts = [
        ("frames to transmit", request.transmit_count),
        ("frames to receive", request.receive_count),
        ("block requests", request.block_count),
    ];
    for (what, count) in counts {
        if count > MAX_BATCH {
            return Err(Trouble::Bad(format!(
                "{WHAT}: {count} {what}; at most {MAX_BATCH} at once"
            )));
        }
    }
    transmit(&request, memory, devices)?;
    for index in 0..request.block_count {
        block::carry_out(request.block_address, index, memory, devices)?;
    }
    let mut received = receive(&request, memory, devices)?;
    let mut events = 0;
    let may_wait = request.block_count == 0 || request.flags & WAIT_ALWAYS != 0;
    if received == 0 && may_wait {
        let is_ready = wait_and_receive(&request, memory, devices, &mut received)?;
        if is_ready && request.receive_count == 0 {
            events |= EVENT_MORE;
        }
    }
    // All buffers are full: there may be more.
    if received > 0
        && received == request.receive_count
        && devices.waiter.wait(Some(Duration::ZERO))? == Woken::Frame
    {
        events |= EVENT_MORE;
    }
    if devices.waiter.is_stopping() {
        events |= EVENT_STOP;
    }
    devices.clock.follow();
    request.received_count = received;
    request.events = events;
    memory
        .write_plain(u64::from(address), &request)
        .map_err(|bad| named(WHAT, bad))
}

/// Waits until there is something to tell. Whether a frame is ready.
fn wait_and_receive(
    request: &IoRequest,
    memory: &mut GuestMemory,
    devices: &mut Devices,
    received: &mut u32,
) -> Result<bool, Trouble> {
    loop {
        let now_ns = devices.clock.now_ns();
        if request.wait_until_ns <= now_ns {
            return Ok(false);
        }
        let timeout = (request.wait_until_ns != u64::MAX)
            .then(|| Duration::from_nanos(request.wait_until_ns - now_ns));
        let woken = devices.waiter.wait(timeout)?;
        if woken == Woken::Timeout {
            continue;
        }
        *received = receive(request, memory, devices)?;
        let is_ready = woken == Woken::Frame;
        if *received > 0 || woken == Woken::Call || request.receive_count == 0 {
            return Ok(is_ready);
        }
    }
}

fn transmit(
    request: &IoRequest,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<(), Trouble> {
    for index in 0..request.transmit_count {
        let what = format_args!("frame {index} to transmit");
        let (at, mut frame): (u64, Frame) =
            element(request.transmit_address, index, memory).map_err(|bad| bad.of(what))?;
        if frame.bytes > MAX_FRAME_BYTES {
            return Err(Trouble::Bad(format!(
                "{what}: {} bytes; at most {MAX_FRAME_BYTES}",
                frame.bytes
            )));
        }
        let Some(nic) = devices.nics.get_mut(usize::from(frame.device)) else {
            return Err(Trouble::Bad(format!(
                "{what}: there is no network device {}",
                frame.device
            )));
        };
        let bytes = memory
            .read(frame.address, u64::from(frame.bytes))
            .map_err(|bad| named(&what.to_string(), bad))?;
        frame.status = if nic.transmit(bytes)? { 0 } else { DROPPED };
        memory
            .write_plain(at, &frame)
            .map_err(|bad| named(&what.to_string(), bad))?;
    }
    Ok(())
}

/// Fills buffers, from every device in turn: how many.
fn receive(
    request: &IoRequest,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<u32, Trouble> {
    let mut received = 0;
    let count = devices.nics.len();
    let mut empty = 0;
    while received < request.receive_count && empty < count {
        let device = devices.next_nic % count;
        if receive_one(request, received, device, memory, devices)? {
            received += 1;
            empty = 0;
        } else {
            empty += 1;
        }
        devices.next_nic = device + 1;
    }
    Ok(received)
}

fn receive_one(
    request: &IoRequest,
    index: u32,
    device: usize,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<bool, Trouble> {
    let what = format_args!("frame {index} to receive");
    let (at, mut frame): (u64, Frame) =
        element(request.receive_address, index, memory).map_err(|bad| bad.of(what))?;
    let room = memory
        .write(frame.address, u64::from(frame.bytes.min(MAX_FRAME_BYTES)))
        .map_err(|bad| named(&what.to_string(), bad))?;
    let Some(nic) = devices.nics.get_mut(device) else {
        return Ok(false);
    };
    let Some(bytes) = nic.receive(room)? else {
        return Ok(false);
    };
    frame.bytes = u32::try_from(bytes).unwrap_or(MAX_FRAME_BYTES);
    frame.device = u16::try_from(device).unwrap_or(u16::MAX);
    frame.status = 0;
    memory
        .write_plain(at, &frame)
        .map_err(|bad| named(&what.to_string(), bad))?;
    Ok(true)
}

/// Why an element of an array cannot be read.
pub(super) enum BadElement {
    /// Its address cannot be.
    Address(u64),
    /// It is not the guest's memory.
    Memory(crate::memory::BadAddress),
}

impl BadElement {
    /// Says of what.
    pub(super) fn of(self, what: std::fmt::Arguments<'_>) -> Trouble {
        match self {
            Self::Address(address) => Trouble::Bad(format!(
                "{what}: the array at {address:#x} is not aligned to 8 bytes or too long"
            )),
            Self::Memory(bad) => named(&what.to_string(), bad),
        }
    }
}

/// An element of an array, and its address.
pub(super) fn element<T: Plain>(
    array: u64,
    index: u32,
    memory: &GuestMemory,
) -> Result<(u64, T), BadElement> {
    let offset = u64::from(index).saturating_mul(size_of::<T>() as u64);
    let address = array
        .checked_add(offset)
        .filter(|address| address.is_multiple_of(8))
        .ok_or(BadElement::Address(array))?;
    let element = memory.read_plain(address).map_err(BadElement::Memory)?;
    Ok((address, element))
}

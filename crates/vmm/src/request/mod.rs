//! Requests of a guest ([`gamut_abi::guest::hypercall`]), carried out over its memory and devices.
//!
//! Everything in them is hostile. They are carried out while the guest's only processor stands
//! still, so nothing changes between check and use.

mod block;
mod io;

use std::io::Write as _;

use gamut_abi::guest::hypercall::{
    MAX_TRANSFER_BYTES, PORT_CONSOLE, PORT_ENTROPY, PORT_EXIT, PORT_IO, PORT_OUT_OF_MEMORY,
    PORT_PANIC, Slice,
};

use crate::device::{Devices, Lost};
use crate::ending::{Ending, Fault};
use crate::memory::{BadAddress, GuestMemory, Plain};

/// Bytes of a panic's message that are told.
const MAX_MESSAGE_BYTES: u64 = 16 << 10;

/// Why a request was not carried out: the guest ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It must not be made; the text says what is wrong with it.
    Bad(String),
    /// A device is gone.
    Lost(Lost),
}

impl From<Lost> for Trouble {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Trouble> for Ending {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Bad(text) => Self::Fault(Fault::Request(text)),
            Trouble::Lost(lost) => Self::Machine(lost.0),
        }
    }
}

/// Adds to an address what it was for.
pub(crate) fn named(what: &str, bad: BadAddress) -> Trouble {
    Trouble::Bad(format!(
        "{what}: {} bytes at {:#x} are not the guest's to {}",
        bad.bytes,
        bad.address,
        if bad.is_write { "write" } else { "read" }
    ))
}

/// Carries out a 32-bit write to a port. `Some`: the guest has ended.
///
/// # Errors
/// If the request must not be made, or a device is gone.
pub fn carry_out(
    port: u16,
    value: u32,
    memory: &mut GuestMemory,
    devices: &mut Devices,
) -> Result<Option<Ending>, Trouble> {
    match port {
        PORT_IO => io::carry_out(value, memory, devices)?,
        PORT_CONSOLE => console(value, memory, devices)?,
        PORT_ENTROPY => entropy(value, memory)?,
        PORT_EXIT => {
            // As exit(2): the low eight bits.
            let [code, ..] = value.to_le_bytes();
            return Ok(Some(Ending::Exited(code)));
        }
        PORT_PANIC => return Ok(Some(Ending::Panicked(panic_message(value, memory)))),
        PORT_OUT_OF_MEMORY => return Ok(Some(Ending::OutOfMemory(value))),
        _ => return Err(Trouble::Bad(format!("port {port:#x} has no meaning"))),
    }
    Ok(None)
}

/// The structure of a request.
fn structure<T: Plain>(what: &str, address: u32, memory: &GuestMemory) -> Result<T, Trouble> {
    if !address.is_multiple_of(8) {
        return Err(Trouble::Bad(format!(
            "{what}: address {address:#x} is not a multiple of 8"
        )));
    }
    memory
        .read_plain(u64::from(address))
        .map_err(|bad| named(what, bad))
}

fn checked_size(what: &str, bytes: u64) -> Result<(), Trouble> {
    if bytes > u64::from(MAX_TRANSFER_BYTES) {
        return Err(Trouble::Bad(format!(
            "{what}: {bytes} bytes; at most {MAX_TRANSFER_BYTES} at once"
        )));
    }
    Ok(())
}

fn console(address: u32, memory: &GuestMemory, devices: &mut Devices) -> Result<(), Trouble> {
    let what = "console write";
    let slice: Slice = structure(what, address, memory)?;
    checked_size(what, slice.bytes)?;
    let text = memory
        .read(slice.address, slice.bytes)
        .map_err(|bad| named(what, bad))?;
    // Nobody listens any more: as for a process, that is no reason to end.
    let _ = devices.console.write_all(text);
    let _ = devices.console.flush();
    Ok(())
}

fn entropy(address: u32, memory: &mut GuestMemory) -> Result<(), Trouble> {
    let what = "request for random bytes";
    let slice: Slice = structure(what, address, memory)?;
    checked_size(what, slice.bytes)?;
    let room = memory
        .write(slice.address, slice.bytes)
        .map_err(|bad| named(what, bad))?;
    crate::entropy::fill(room)
        .map_err(|error| Trouble::Lost(Lost(format!("random bytes of the host: {error}"))))
}

/// The message of a panic, as far as it can be read: it is told in any case.
fn panic_message(address: u32, memory: &GuestMemory) -> String {
    let Ok(slice) = structure::<Slice>("panic", address, memory) else {
        return "(its message cannot be read)".to_owned();
    };
    memory
        .read(slice.address, slice.bytes.min(MAX_MESSAGE_BYTES))
        .map_or_else(
            |_| "(its message cannot be read)".to_owned(),
            |text| String::from_utf8_lossy(text).into_owned(),
        )
}

#[cfg(test)]
mod tests {
    use gamut_abi::guest::hypercall::{BlockRequest, Frame, IoRequest};

    #[test]
    fn structures_have_no_padding() {
        assert_eq!(size_of::<super::Slice>(), 16);
        assert_eq!(size_of::<IoRequest>(), 4 * 8 + 6 * 4);
        assert_eq!(size_of::<Frame>(), 16);
        assert_eq!(size_of::<BlockRequest>(), 32);
        assert_eq!(size_of::<gamut_abi::guest::boot::BootBlock>(), 160);
    }
}

//! The control line ([`gamut_abi::guest::control_line`]): Gamut's monitor beside a foreign machine.

use core::sync::atomic::{AtomicBool, Ordering};

use gamut_abi::guest::config::values;
use gamut_abi::guest::control_line::{
    BACKTRACE, EXCEPTION, EXIT, INTERRUPT_LINE, KEY, MAX_CONTENT_BYTES, MAX_FRAMES, OUT_OF_MEMORY,
    PANIC, PORT, READY, STOP, VALUE,
};

use super::interrupts;
use super::serial::{self, Line};

const LINE: Line = Line::at(PORT);

static IS_THERE: AtomicBool = AtomicBool::new(false);

/// Opens it, if the configuration text says that it is there.
pub(super) fn initialize(text: &[u8]) {
    let is_told = values(text, KEY).next() == Some(VALUE);
    if is_told && LINE.initialize_with_interrupt() {
        interrupts::enable_line(INTERRUPT_LINE);
        IS_THERE.store(true, Ordering::Relaxed);
        send(READY, core::iter::empty());
    }
}

fn is_there() -> bool {
    IS_THERE.load(Ordering::Relaxed)
}

/// Whether the monitor has just asked the guest to stop.
pub(super) fn takes_stop() -> bool {
    let mut is_asked = false;
    while is_there()
        && let Some(byte) = LINE.read()
    {
        is_asked |= byte == STOP;
    }
    is_asked
}

/// Sends a record. False: there is no line.
fn send<'content>(kind: u8, pieces: impl Iterator<Item = &'content [u8]> + Clone) -> bool {
    if !is_there() {
        return false;
    }
    let bytes = pieces
        .clone()
        .map(<[u8]>::len)
        .sum::<usize>()
        .min(MAX_CONTENT_BYTES);
    let [low, high] = u16::try_from(bytes).unwrap_or_default().to_le_bytes();
    // What was printed before is to be read before.
    serial::drain();
    LINE.write(&[kind, low, high]);
    let mut left = bytes;
    for piece in pieces {
        let piece = piece.get(..piece.len().min(left)).unwrap_or_default();
        LINE.write(piece);
        left -= piece.len();
    }
    LINE.drain();
    true
}

/// Tells of the end by an exit code. False: there is no line.
pub(super) fn exit(code: u8) -> bool {
    send(EXIT, [[code].as_slice()].into_iter())
}

/// Tells of a panic, with the way by which the guest came to it. False: there is no line.
pub(super) fn panic(message: &[u8], rip: u64, frame: u64) -> bool {
    backtrace(rip, frame);
    send(PANIC, [message].into_iter())
}

/// Tells that memory is exhausted, and on which way. False: there is no line.
pub(super) fn out_of_memory(wanted_kib: u32, rip: u64, frame: u64) -> bool {
    backtrace(rip, frame);
    send(
        OUT_OF_MEMORY,
        [wanted_kib.to_le_bytes().as_slice()].into_iter(),
    )
}

/// Tells of an exception: its three numbers, and the registers. False: there is no line.
pub(super) fn exception(numbers: [u64; 3], registers: [u64; 18], rip: u64, frame: u64) -> bool {
    backtrace(rip, frame);
    let (numbers, registers) = (
        numbers.map(u64::to_le_bytes),
        registers.map(u64::to_le_bytes),
    );
    send(
        EXCEPTION,
        numbers.iter().chain(&registers).map(<[u8; 8]>::as_slice),
    )
}

fn backtrace(rip: u64, frame: u64) {
    let mut addresses = [[0; 8]; MAX_FRAMES];
    let mut places = addresses.iter_mut();
    let mut used = 0;
    let mut add = |address: u64| {
        if let Some(place) = places.next() {
            *place = address.to_le_bytes();
            used += 1;
        }
    };
    add(rip);
    interrupts::backtrace(frame, add);
    let used = addresses.get(..used).unwrap_or_default();
    send(BACKTRACE, used.iter().map(<[u8; 8]>::as_slice));
}

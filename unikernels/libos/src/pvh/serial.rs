//! The serial console at 0x3f8 (16550).

use super::ports::{read_byte, write_byte};

const DATA: u16 = 0x3f8;
const INTERRUPTS: u16 = DATA + 1;
const FIFO: u16 = DATA + 2;
const LINE_STATUS: u16 = DATA + 5;
/// The transmitter takes a byte.
const IS_EMPTY: u8 = 1 << 5;
/// A device that is not there is not waited for.
const MAX_POLLS: u32 = 100_000;

/// No interrupts, with buffers.
pub(super) fn initialize() {
    write_byte(INTERRUPTS, 0);
    write_byte(FIFO, 0x07);
}

/// Writes bytes.
pub(super) fn write(bytes: &[u8]) {
    for &byte in bytes {
        let mut polls = 0;
        while read_byte(LINE_STATUS) & IS_EMPTY == 0 && polls < MAX_POLLS {
            polls += 1;
        }
        write_byte(DATA, byte);
    }
}

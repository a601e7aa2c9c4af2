//! Serial lines (16550): the console at 0x3f8, and the control line.

use super::ports::{read_byte, write_byte};

/// Offsets of registers from the first port.
const INTERRUPTS: u16 = 1;
const FIFO: u16 = 2;
const MODEM: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

/// A byte can be read.
const HAS_BYTE: u8 = 1;
/// The transmitter takes a byte.
const IS_EMPTY: u8 = 1 << 5;
/// The last byte has left.
const IS_IDLE: u8 = 1 << 6;
/// Ready to talk, and the interrupt reaches the machine.
const MODEM_READY: u8 = 0x0b;

/// A serial line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line(u16);

/// The console.
const CONSOLE: Line = Line(0x3f8);

impl Line {
    /// By its first port.
    pub(super) const fn at(port: u16) -> Self {
        Self(port)
    }

    /// No interrupts, with buffers.
    fn initialize(self) {
        write_byte(self.0 + INTERRUPTS, 0);
        write_byte(self.0 + FIFO, 0x07);
    }

    /// Whether there is one: its scratch register keeps what is written to it.
    fn is_present(self) -> bool {
        [0x5a, 0xa5].into_iter().all(|value| {
            write_byte(self.0 + SCRATCH, value);
            read_byte(self.0 + SCRATCH) == value
        })
    }

    /// Prepares a line whose bytes that come in interrupt. False: there is none.
    pub(super) fn initialize_with_interrupt(self) -> bool {
        if !self.is_present() {
            return false;
        }
        self.initialize();
        write_byte(self.0 + MODEM, MODEM_READY);
        write_byte(self.0 + INTERRUPTS, 1);
        true
    }

    /// Writes bytes. Whoever does not take them holds the guest up, as a full pipe does.
    pub(super) fn write(self, bytes: &[u8]) {
        for &byte in bytes {
            self.wait(IS_EMPTY);
            write_byte(self.0, byte);
        }
    }

    /// Waits until everything has left.
    pub(super) fn drain(self) {
        self.wait(IS_IDLE);
    }

    fn wait(self, state: u8) {
        while read_byte(self.0 + LINE_STATUS) & state == 0 {
            core::hint::spin_loop();
        }
    }

    /// A byte that has come in.
    pub(super) fn read(self) -> Option<u8> {
        let has_byte = read_byte(self.0 + LINE_STATUS) & HAS_BYTE != 0;
        has_byte.then(|| read_byte(self.0))
    }
}

/// No interrupts, with buffers.
pub(super) fn initialize() {
    CONSOLE.initialize();
}

/// Writes bytes to the console. Without one they are lost, and nobody waits for it.
pub(super) fn write(bytes: &[u8]) {
    if CONSOLE.is_present() {
        CONSOLE.write(bytes);
    }
}

/// Waits until everything has left the console.
pub(super) fn drain() {
    if CONSOLE.is_present() {
        CONSOLE.drain();
    }
}

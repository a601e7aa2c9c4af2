//! The control line: how a guest on a foreign machine (the PVH entry, in QEMU) speaks with Gamut's
//! monitor, which stands beside that machine. What hypercalls and the clock page are elsewhere.
//!
//! A second serial port (16550 at [`PORT`]) that is there if the configuration text says
//! `control=com2`. The monitor sends single bytes ([`STOP`]); the guest sends records:
//!
//! ```text
//! kind: 1 byte    size of the content: 2 bytes    content
//! ```
//!
//! All numbers are little-endian. The first record is [`READY`]: what the monitor sends before is
//! lost. A [`BACKTRACE`] comes before the record that it belongs to; the others end the guest.

/// Key of the configuration text's entry.
pub const KEY: &str = "control";

/// Its value.
pub const VALUE: &str = "com2";

/// First port of the serial line (COM2).
pub const PORT: u16 = 0x2f8;

/// Its interrupt line.
pub const INTERRUPT_LINE: u32 = 3;

/// From the monitor: shut down in order.
pub const STOP: u8 = 1;

/// The guest has ended: its exit code, 1 byte.
pub const EXIT: u8 = 1;

/// It panicked: the message.
pub const PANIC: u8 = 2;

/// Memory is exhausted: the size that could not be had, in KiB, 4 bytes.
pub const OUT_OF_MEMORY: u8 = 3;

/// An exception of the processor: vector, error code and CR2, then rax, rbx, rcx, rdx, rsi, rdi,
/// rbp, rsp, r8 to r15, rip and rflags, 8 bytes each.
pub const EXCEPTION: u8 = 4;

/// Size of the content of [`EXCEPTION`], in bytes.
pub const EXCEPTION_BYTES: usize = 8 * 21;

/// Return addresses, the innermost first, 8 bytes each.
pub const BACKTRACE: u8 = 5;

/// Most addresses of a backtrace.
pub const MAX_FRAMES: usize = 64;

/// Longest content, in bytes. A line that claims more is broken.
pub const MAX_CONTENT_BYTES: usize = 4096;

/// The guest listens: no content.
pub const READY: u8 = 6;

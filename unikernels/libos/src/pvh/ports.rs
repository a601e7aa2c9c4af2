//! Input and output ports.

use core::arch::asm;

/// Writes a byte.
pub(super) fn write_byte(port: u16, value: u8) {
    // SAFETY: ports of devices that this module's users know; none of them writes memory.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nostack, nomem, preserves_flags));
    }
}

/// Writes 32 bits.
pub(super) fn write_long(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, nomem, preserves_flags));
    }
}

/// Reads a byte.
pub(super) fn read_byte(port: u16) -> u8 {
    let value: u8;
    // SAFETY: as above.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nostack, nomem, preserves_flags));
    }
    value
}

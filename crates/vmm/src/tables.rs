//! Descriptor tables of a guest, and the stub by which its exceptions reach the monitor.
//!
//! The stub is one instruction per vector: a port write that only ring 0 may do, so that every
//! register is still what it was, and the processor's frame lies on the ring-0 stack (Intel SDM
//! volume 3, 6.14).

use gamut_abi::guest::hypercall::PORTS;

use crate::layout::{RING0_STACK_TOP, STUB_ADDRESS};

/// Selector of the code that the guest runs, with its privilege level.
pub const USER_CODE: u16 = 0x20 | 3;
/// Selector of its data and stack.
pub const USER_DATA: u16 = 0x18 | 3;
/// Selector of the task state segment.
pub const TASK: u16 = 0x28;
const KERNEL_CODE: u16 = 0x08;

/// Where the tables lie in their page.
pub const GDT_OFFSET: u64 = 0;
/// Size of the global descriptor table, in bytes.
pub const GDT_BYTES: u16 = 56;
/// Where the task state segment lies.
pub const TASK_OFFSET: u64 = 0x100;
const TASK_BYTES: usize = 104;
/// Where the interrupt descriptor table lies.
pub const IDT_OFFSET: u64 = 0x800;
/// Exceptions that have a gate. Every other interrupt is a general protection fault.
pub const VECTORS: u8 = 32;
const GATE_BYTES: usize = 16;
/// Size of the interrupt descriptor table, in bytes.
pub const IDT_BYTES: u16 = 512;

/// Port by which the stub reports vector 0; the others follow. The guest itself may not use it.
pub const EXCEPTION_PORT: u8 = 0x80;
const STUB_ENTRY_BYTES: u64 = 8;

const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;

/// The page of descriptor tables, to be put at `address`.
#[must_use]
pub fn descriptors(address: u64) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let task_limit = TASK_BYTES + bitmap().len() - 1;
    let task = address + TASK_OFFSET;
    let gdt = [
        0,
        0x00af_9b00_0000_ffff, // ring 0 code, 64-bit
        0x00cf_9300_0000_ffff, // ring 0 data
        0x00cf_f300_0000_ffff, // ring 3 data
        0x00af_fb00_0000_ffff, // ring 3 code, 64-bit
        task_descriptor_low(task, task_limit),
        task >> 32,
    ];
    for (index, entry) in gdt.iter().enumerate() {
        put(&mut page, index * 8, &entry.to_le_bytes());
    }
    let task_at = usize::from(u16::try_from(TASK_OFFSET).unwrap_or(0));
    put(&mut page, task_at + 4, &RING0_STACK_TOP.to_le_bytes());
    put(&mut page, task_at + 102, &104_u16.to_le_bytes());
    put(&mut page, task_at + TASK_BYTES, &bitmap());
    let idt_at = usize::from(u16::try_from(IDT_OFFSET).unwrap_or(0));
    for vector in 0..VECTORS {
        put(
            &mut page,
            idt_at + usize::from(vector) * GATE_BYTES,
            &gate(vector),
        );
    }
    page
}

/// The code of the stub, to be put at [`STUB_ADDRESS`].
#[must_use]
pub fn stub() -> Vec<u8> {
    // out VECTOR, al; hlt; jmp back to the hlt
    (0..VECTORS)
        .flat_map(|vector| {
            [
                0xe6,
                EXCEPTION_PORT + vector,
                0xf4,
                0xeb,
                0xfd,
                0x90,
                0x90,
                0x90,
            ]
        })
        .collect()
}

/// The vector that a port of the stub stands for.
#[must_use]
pub fn vector_of(port: u16) -> Option<u8> {
    let vector = port.checked_sub(u16::from(EXCEPTION_PORT))?;
    u8::try_from(vector).ok().filter(|vector| *vector < VECTORS)
}

/// Whether the processor pushes an error code for a vector.
#[must_use]
pub fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

/// A descriptor of a busy 64-bit task state segment, lower half.
fn task_descriptor_low(base: u64, limit: usize) -> u64 {
    let limit = u64::try_from(limit).unwrap_or(0) & 0xffff;
    limit | ((base & 0x00ff_ffff) << 16) | (0x8b << 40) | (((base >> 24) & 0xff) << 56)
}

fn gate(vector: u8) -> [u8; GATE_BYTES] {
    let handler = STUB_ADDRESS + u64::from(vector) * STUB_ENTRY_BYTES;
    // These two are the instructions int3 and into of the guest itself.
    let privilege = if matches!(vector, BREAKPOINT | OVERFLOW) {
        3
    } else {
        0
    };
    let low = (handler & 0xffff)
        | u64::from(KERNEL_CODE) << 16
        | (0x8e | privilege << 5) << 40
        | (handler >> 16 & 0xffff) << 48;
    let mut bytes = [0; GATE_BYTES];
    put(&mut bytes, 0, &low.to_le_bytes());
    put(&mut bytes, 8, &(handler >> 32).to_le_bytes());
    bytes
}

/// Permission bits of the ports from 0, with the byte of ones that must follow: a port may be used
/// if its bit is 0. An access of 32 bits wants the bits of four ports.
fn bitmap() -> Vec<u8> {
    let last = usize::from(*PORTS.end()) + 3;
    let mut bits = vec![0xff; last / 8 + 2];
    for port in usize::from(*PORTS.start())..=last {
        if let Some(byte) = bits.get_mut(port / 8) {
            *byte &= !(1 << (port % 8));
        }
    }
    bits
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = page.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_do_not_overlap_and_fit_their_page() {
        assert!(u64::from(GDT_BYTES) <= TASK_OFFSET);
        let task_end = TASK_OFFSET + u64::try_from(TASK_BYTES + bitmap().len()).unwrap();
        assert!(task_end <= IDT_OFFSET);
        assert!(IDT_OFFSET + u64::from(IDT_BYTES) <= 4096);
        assert_eq!(stub().len(), usize::from(VECTORS) * 8);
    }

    #[test]
    fn only_the_ports_of_the_guest_abi_are_open() {
        let bits = bitmap();
        for port in 0..bits.len() * 8 {
            let is_open = bits[port / 8] & (1 << (port % 8)) == 0;
            assert_eq!(is_open, (0x6a0..=0x6a8).contains(&port), "{port:#x}");
        }
    }

    #[test]
    fn ports_of_the_stub_are_vectors() {
        assert_eq!(vector_of(0x80), Some(0));
        assert_eq!(vector_of(0x9f), Some(31));
        assert_eq!(vector_of(0xa0), None);
        assert_eq!(vector_of(0x7f), None);
    }
}

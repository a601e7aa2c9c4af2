//! Exceptions, which end the guest with a report, and interrupts, which only end a halt.

use core::arch::{asm, global_asm};
use core::fmt::Write as _;
use core::ptr;

use super::entry::{BOOT_STACK, BOOT_STACK_BYTES};
use super::{control_line, end, ports, serial};
use crate::to_usize;

const LOCAL_APIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = 0xf0;
const TIMER_VECTOR: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_NOW: u64 = 0x390;
const TIMER_DIVIDER: u64 = 0x3e0;
const TIMER_MASKED: u32 = 1 << 16;

const IO_APIC_LINES: u32 = 24;
/// The I/O APICs of PC machines; the second one is that of QEMU's microvm, from line 24 on.
const IO_APIC: u64 = 0xfec0_0000;
const IO_APIC_SECOND: u64 = 0xfec1_0000;

/// Vector of timer and devices: the same, since it only ends a halt.
const VECTOR_WAKE: u8 = 0x40;
const VECTOR_SPURIOUS: u8 = 0xff;
const EXCEPTIONS: usize = 32;

/// What an exception leaves on the stack.
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    flags: u64,
    rsp: u64,
    ss: u64,
}

/// Index of `rbp` in [`Frame::registers`], which are pushed from rax to r15 and so lie reversed.
const RBP: usize = 8;

const NAMES: [&str; 15] = [
    "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx",
    "rax",
];

global_asm!(
    ".section .text.interrupts, \"ax\"",
    // 16 bytes each: an error code where the processor gives none, the vector.
    ".balign 16",
    "gamut_exceptions:",
    ".set vector, 0",
    ".rept 32",
    ".balign 16",
    // Of vectors 8, 10 to 14, 17, 21, 29 and 30 the processor pushes an error code.
    ".if ((0x60227d00 >> vector) & 1) == 0",
    "push 0",
    ".endif",
    "push vector",
    "jmp 2f",
    ".set vector, vector + 1",
    ".endr",
    "2:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {exception}",
    "ud2",
    // Timer and devices: the interrupted halt goes on.
    ".balign 16",
    "gamut_wake:",
    "push rax",
    "mov eax, 0xfee000b0",
    "mov dword ptr [rax], 0",
    "pop rax",
    "iretq",
    ".balign 16",
    "gamut_spurious:",
    "iretq",
    exception = sym exception,
);

unsafe extern "C" {
    static gamut_exceptions: u8;
    static gamut_wake: u8;
    static gamut_spurious: u8;
}

/// Within one cache line's bounds, as the processor's tables like to be.
#[repr(C, align(16))]
struct Aligned16<T>(T);

/// Descriptors: null, 64-bit code, task state (16 bytes).
static mut DESCRIPTORS: Aligned16<[u64; 4]> = Aligned16([0, 0x00af_9b00_0000_ffff, 0, 0]);
static mut TASK_STATE: Aligned16<[u32; 26]> = Aligned16([0; 26]);
static mut GATES: Aligned16<[u64; 512]> = Aligned16([0; 512]);

/// Operand of `lgdt` and `lidt`.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    address: u64,
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}

/// The two halves of an interrupt gate with the exception stack.
fn gate(handler: u64) -> [u64; 2] {
    let present_interrupt_gate = 0x8e00_u64;
    let stack = 1_u64;
    [
        (handler & 0xffff)
            | 8 << 16
            | stack << 32
            | present_interrupt_gate << 32
            | (handler >> 16 & 0xffff) << 48,
        handler >> 32,
    ]
}

/// Sets up descriptors and the local APIC.
pub(super) fn initialize() {
    // SAFETY: called once, while nothing else runs; the structures live as long as the guest.
    unsafe {
        let stack_top = (&raw const BOOT_STACK).expose_provenance() + BOOT_STACK_BYTES;
        let task_state = &raw mut TASK_STATE.0;
        // The first interrupt stack lies at byte 36; byte 102 names the end of the port bitmap.
        (*task_state)[9] = low(stack_top as u64);
        (*task_state)[10] = low(stack_top as u64 >> 32);
        (*task_state)[25] = 104 << 16;
        let base = task_state.expose_provenance() as u64;
        let descriptors = &raw mut DESCRIPTORS.0;
        (*descriptors)[2] = 103 | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
        (*descriptors)[3] = base >> 32;

        let gates = &raw mut GATES.0;
        let exceptions = (&raw const gamut_exceptions).expose_provenance() as u64;
        let set = |vector: usize, handler: u64| {
            let [first, second] = gate(handler);
            (*gates)[2 * vector] = first;
            (*gates)[2 * vector + 1] = second;
        };
        for vector in 0..EXCEPTIONS {
            set(vector, exceptions + 16 * vector as u64);
        }
        set(
            VECTOR_WAKE.into(),
            (&raw const gamut_wake).expose_provenance() as u64,
        );
        set(
            VECTOR_SPURIOUS.into(),
            (&raw const gamut_spurious).expose_provenance() as u64,
        );

        let gdt = Pointer {
            limit: 31,
            address: descriptors.expose_provenance() as u64,
        };
        let idt = Pointer {
            limit: 4095,
            address: gates.expose_provenance() as u64,
        };
        asm!(
            "lgdt [{gdt}]",
            "lidt [{idt}]",
            "ltr {task:x}",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            task = in(reg) 16_u32,
            options(nostack, preserves_flags),
        );
    }
    // The old interrupt controllers stay silent.
    ports::write_byte(0x21, 0xff);
    ports::write_byte(0xa1, 0xff);
    write_apic(SPURIOUS, 0x100 | u32::from(VECTOR_SPURIOUS));
    write_apic(TIMER_DIVIDER, 0b1011);
    write_apic(TIMER_VECTOR, TIMER_MASKED);
}

fn write_apic(register: u64, value: u32) {
    // SAFETY: the local APIC's page, mapped one to one.
    unsafe { device_register(LOCAL_APIC + register).write_volatile(value) }
}

fn device_register(address: u64) -> *mut u32 {
    ptr::with_exposed_provenance_mut(to_usize(address))
}

/// Lets the timer count down from its highest value, for calibration.
pub(super) fn begin_count() {
    write_apic(TIMER_COUNT, u32::MAX);
}

/// Ticks of the timer since [`begin_count`].
pub(super) fn counted() -> u32 {
    // SAFETY: as above.
    let now = unsafe { device_register(LOCAL_APIC + TIMER_NOW).read_volatile() };
    u32::MAX - now
}

/// Lets a device's interrupt line end a halt.
pub(super) fn enable_line(line: u32) {
    let (base, line) = match line.checked_sub(IO_APIC_LINES) {
        Some(line) => (IO_APIC_SECOND, line),
        None => (IO_APIC, line),
    };
    let write = |register: u32, value: u32| {
        // SAFETY: the I/O APIC's page, mapped one to one.
        unsafe {
            device_register(base).write_volatile(register);
            device_register(base + 0x10).write_volatile(value);
        }
    };
    // Edge, high, fixed, to the processor with id 0.
    write(0x10 + 2 * line + 1, 0);
    write(0x10 + 2 * line, VECTOR_WAKE.into());
}

/// Halts until an interrupt: a device's, or the timer's after so many ticks (0: no timer).
///
/// `is_done` is asked with interrupts off, so that none is missed.
pub(super) fn halt_unless(timer_ticks: u32, is_done: impl FnOnce() -> bool) {
    if timer_ticks > 0 {
        write_apic(TIMER_VECTOR, VECTOR_WAKE.into());
        write_apic(TIMER_COUNT, timer_ticks);
    }
    if !is_done() {
        // SAFETY: interrupts are off outside of this. Their handlers change nothing; the stack is
        // their own.
        unsafe { asm!("sti", "hlt", "cli") }
    }
    write_apic(TIMER_VECTOR, TIMER_MASKED);
}

/// Writes to the serial line without an allocator.
pub(super) struct Serial;

impl core::fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        serial::write(text.as_bytes());
        Ok(())
    }
}

/// Reports an exception and ends the guest, as Gamut's monitor does.
extern "C" fn exception(frame: &Frame) -> ! {
    let fault_address: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) fault_address, options(nomem, nostack)) }
    let numbers = [frame.vector, frame.error_code, fault_address];
    let is_told =
        control_line::exception(numbers, registers(frame), frame.rip, frame.registers[RBP]);
    if !is_told {
        print(frame, fault_address);
    }
    end(gamut_abi::guest::EXIT_FAULT, is_told)
}

/// In the order of the control line: rax to rbp, rsp, r8 to r15, rip, rflags.
fn registers(frame: &Frame) -> [u64; 18] {
    let mut values = [0; 18];
    let (first, last) = frame.registers.split_at(RBP);
    let in_order = last
        .iter()
        .rev()
        .chain([&frame.rsp])
        .chain(first.iter().rev());
    let in_order = in_order.chain([&frame.rip, &frame.flags]);
    for (place, value) in values.iter_mut().zip(in_order) {
        *place = *value;
    }
    values
}

fn print(frame: &Frame, fault_address: u64) {
    // The serial line never fails.
    let _ = writeln!(
        Serial,
        "\nguest crashed: exception {} (error code {:#x}) at {:#x}, address {fault_address:#x}",
        frame.vector, frame.error_code, frame.rip
    );
    for (name, value) in NAMES.iter().zip(&frame.registers).rev() {
        let _ = write!(Serial, " {name}={value:#x}");
    }
    let _ = writeln!(Serial, " rsp={:#x} rflags={:#x}", frame.rsp, frame.flags);
    let _ = writeln!(Serial, "  at {:#x}", frame.rip);
    print_backtrace(frame.registers[RBP]);
}

/// Prints return addresses; `addr2line -e FILE` names them.
pub(super) fn print_backtrace(frame: u64) {
    backtrace(frame, |address| {
        let _ = writeln!(Serial, "  at {address:#x}");
    });
}

/// Visits the return addresses along the frame pointers.
pub(super) fn backtrace(mut frame: u64, mut visit: impl FnMut(u64)) {
    for _ in 0..32 {
        // Frames lie above the image's start, ascending and aligned.
        let is_memory = (gamut_abi::guest::LOWEST_ADDRESS..0xc000_0000).contains(&frame);
        if !is_memory || !frame.is_multiple_of(8) {
            return;
        }
        let words = ptr::with_exposed_provenance::<u64>(to_usize(frame));
        // SAFETY: memory below 3 GiB is mapped, apart from guard pages, in which no frame lies.
        let [next, address] = unsafe { [words.read(), words.add(1).read()] };
        if address == 0 {
            return;
        }
        visit(address);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

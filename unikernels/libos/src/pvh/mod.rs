//! The other way in: the PVH entry, by which QEMU, Firecracker and Cloud Hypervisor boot the same
//! file. The guest runs at privilege level 0 there, brings page tables, interrupts and drivers
//! (serial line, virtio over memory-mapped registers) of its own, and turns them into what
//! Gamut's monitor would have given: boot block, configuration text and [`IoRequest`]s.
//!
//! Configuration: the first boot module (initrd) holds the text of [`gamut_abi::guest::config`],
//! a second one the image of the read-only file system, where the monitor has no second one the
//! first holds both. Without a module the command line tells ([`command_line`]).

mod clock;
pub mod command_line;
mod control_line;
mod devices;
mod entry;
mod interrupts;
mod paging;
mod ports;
mod serial;
mod start_info;

pub use entry::{EntryNote, gamut_pvh_start};

use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};
use core::fmt::Write as _;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use gamut_abi::guest::boot::{BOOT_MAGIC, BootBlock, ClockPage};
use gamut_abi::guest::config;
use gamut_abi::guest::hypercall::{EVENT_STOP, IoRequest, WAIT_ALWAYS};
use gamut_abi::guest::{EXIT_OUT_OF_MEMORY, EXIT_PANIC, GUEST_ABI_VERSION};

use crate::cell::Global;
use interrupts::Serial;

const PAGE: u64 = 4096;
/// QEMU's `isa-debug-exit`: ends it with `2 * value + 1`.
const PORT_DEBUG_EXIT: u16 = 0xf4;
/// Resets the machine, which ends Firecracker, and QEMU with `-no-reboot`.
const PORT_KEYBOARD: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;
/// Cloud Hypervisor's and ACPI's reset control.
const PORT_RESET: u16 = 0xcf9;

static IS_ACTIVE: AtomicBool = AtomicBool::new(false);
/// Ticks of the local APIC's timer per second.
static TIMER_HZ: AtomicU64 = AtomicU64::new(1);
static FOUND: Global<start_info::Found> = Global::new(start_info::Found {
    modules: [start_info::Module {
        address: 0,
        bytes: 0,
    }; 2],
    command_line_address: 0,
    memory_end: 0,
});

static mut BOOT_BLOCK: BootBlock = BootBlock {
    magic: BOOT_MAGIC,
    abi_version: GUEST_ABI_VERSION,
    flags: 0,
    memory_bytes: 0,
    heap_address: 0,
    heap_bytes: 0,
    stack_address: 0,
    stack_bytes: 0,
    config_address: 0,
    config_bytes: 0,
    rofs_address: 0,
    rofs_bytes: 0,
    clock_address: 0,
    seed: [0; 64],
};

static mut CLOCK_PAGE: ClockPage = ClockPage {
    sequence: 0,
    generation: 0,
    tsc_base: 0,
    monotonic_base_ns: 0,
    wall_base_ns: 0,
    ns_per_tick_q32: 0,
    stop_requested: 0,
    reserved: 0,
};

/// Whether the guest was started through the PVH entry.
#[must_use]
pub fn is_active() -> bool {
    IS_ACTIVE.load(Ordering::Relaxed)
}

/// Makes what Gamut's monitor would have made. Called by the entry, once.
extern "C" fn prepare(start_info: u64, stack_bytes: u64) -> *const BootBlock {
    IS_ACTIVE.store(true, Ordering::Relaxed);
    serial::initialize();
    let image = paging::image();
    // The guard page of the stack is the first one behind the image.
    paging::protect(&image, image.end);
    interrupts::initialize();
    // SAFETY: the entry passes what the monitor left in ebx.
    let Some(found) = (unsafe { start_info::read(start_info, image.end) }) else {
        panic(b"started through the PVH entry, but without its start_info structure");
    };
    FOUND.with(|place| *place = found);
    let (text, rofs) = contents(&found);
    control_line::initialize(text);
    let stack_address = image.end + PAGE;
    let stack_bytes = stack_bytes.next_multiple_of(PAGE);
    let heap_address = stack_address + stack_bytes;
    if found.memory_end < heap_address + 16 * PAGE {
        panic(b"the machine has too little memory for this image");
    }
    let rates = clock::calibrate();
    TIMER_HZ.store(rates.timer_hz, Ordering::Relaxed);
    // SAFETY: called once, while nothing else runs.
    unsafe {
        let clock_page = &raw mut CLOCK_PAGE;
        *clock_page = clock::page(&rates);
        let boot = &raw mut BOOT_BLOCK;
        (*boot).memory_bytes = found.memory_end;
        (*boot).stack_address = stack_address;
        (*boot).stack_bytes = stack_bytes;
        (*boot).heap_address = heap_address;
        (*boot).heap_bytes = found.memory_end - heap_address;
        (*boot).rofs_address = rofs.address;
        (*boot).rofs_bytes = rofs.bytes;
        (*boot).clock_address = clock_page.expose_provenance() as u64;
        fill_random(&mut (*boot).seed);
        boot
    }
}

/// Configuration text and image of the read-only file system.
fn contents(found: &start_info::Found) -> (&'static [u8], start_info::Module) {
    let [first, second] = found.modules;
    if first.bytes == 0 {
        return (&[], second);
    }
    let start = ptr::with_exposed_provenance::<u8>(crate::to_usize(first.address));
    // SAFETY: the monitor says so, and the heap ends below.
    let bytes = unsafe { core::slice::from_raw_parts(start, crate::to_usize(first.bytes)) };
    let both = config::values(bytes, "rofs").next().and_then(|value| {
        let (offset, size) = value.split_once(' ')?;
        let (offset, size) = (offset.parse().ok()?, size.parse().ok()?);
        let end: u64 = u64::checked_add(offset, size)?;
        let text = bytes
            .get(..crate::to_usize(offset))
            .filter(|_| end <= first.bytes)?;
        let rofs = start_info::Module {
            address: first.address + offset,
            bytes: size,
        };
        Some((text, rofs))
    });
    both.unwrap_or((bytes, second))
}

/// Finds devices and completes the configuration. After the heap is there.
pub(crate) fn initialize_devices() {
    if !is_active() {
        return;
    }
    let found = FOUND.with(|found| *found);
    // SAFETY: read from the monitor's structure.
    let line = unsafe { start_info::command_line(&found) };
    let mut text = Vec::new();
    if found.modules[0].bytes > 0 {
        text.extend_from_slice(contents(&found).0);
        if text.last() != Some(&0) {
            text.push(0);
        }
    } else {
        command_line::translate(line, &mut text);
    }
    devices::find(line, &mut text);
    paging::remove_first_page();
    let text = text.leak();
    // SAFETY: nothing has read the configuration before; afterwards it is not written.
    unsafe {
        let boot = &raw mut BOOT_BLOCK;
        (*boot).config_address = text.as_ptr().expose_provenance() as u64;
        (*boot).config_bytes = text.len() as u64;
    }
}

/// Writes to the serial line.
pub(crate) fn console(bytes: &[u8]) {
    serial::write(bytes);
}

/// Ends the guest with an exit code.
pub(crate) fn exit(code: u8) -> ! {
    let is_told = control_line::exit(code);
    end(code.into(), is_told)
}

/// Ends the machine. Codes above 127 do not fit into QEMU's exit status, so they are also said.
fn end(code: u32, is_told: bool) -> ! {
    if code > 127 && !is_told {
        let _ = writeln!(Serial, "guest ended with exit code {code}");
    }
    serial::drain();
    ports::write_long(PORT_DEBUG_EXIT, code);
    ports::write_byte(PORT_RESET, 0x0e);
    ports::write_byte(PORT_KEYBOARD, KEYBOARD_RESET);
    loop {
        // Nothing ends this machine: at least it does not burn a processor.
        // SAFETY: halts with interrupts off.
        unsafe { core::arch::asm!("cli", "hlt") }
    }
}

/// The frame pointer of whoever calls.
#[inline(always)]
fn frame_pointer() -> u64 {
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) }
    frame
}

/// An address in whatever function calls.
#[inline(always)]
fn here() -> u64 {
    let address: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("lea {}, [rip]", out(reg) address, options(nomem, nostack)) }
    address
}

/// Ends the machine with a message and the way by which it came to it.
pub(crate) fn panic(message: &[u8]) -> ! {
    let frame = frame_pointer();
    let is_told = control_line::panic(message, here(), frame);
    if !is_told {
        serial::write(b"guest ");
        serial::write(message);
        serial::write(b"\n");
        interrupts::print_backtrace(frame);
    }
    end(EXIT_PANIC, is_told)
}

/// Ends the machine because memory is exhausted.
pub(crate) fn out_of_memory(wanted_kib: u32) -> ! {
    let is_told = control_line::out_of_memory(wanted_kib, here(), frame_pointer());
    if !is_told {
        let _ = writeln!(
            Serial,
            "guest out of memory: {wanted_kib} KiB more were wanted"
        );
    }
    end(EXIT_OUT_OF_MEMORY, is_told)
}

/// Random bytes: of the processor where it has them, else of the counter's jitter.
#[cfg(feature = "entropy")]
pub(crate) fn entropy(bytes: &mut [u8]) {
    fill_random(bytes);
}

fn fill_random(bytes: &mut [u8]) {
    let has_rdseed = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx >> 18 & 1 == 1;
    let has_rdrand = __cpuid(1).ecx >> 30 & 1 == 1;
    for piece in bytes.chunks_mut(8) {
        let mut value: u64 = 0;
        let mut is_good: u8 = 0;
        for _ in 0..100 {
            // SAFETY: only where the processor has the instruction.
            unsafe {
                if has_rdseed {
                    core::arch::asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) is_good);
                } else if has_rdrand {
                    core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) is_good);
                }
            }
            if is_good == 1 {
                break;
            }
        }
        if is_good == 0 {
            value = jitter();
        }
        for (place, byte) in piece.iter_mut().zip(value.to_le_bytes()) {
            *place = byte;
        }
    }
}

/// What is left without an instruction for it: how long port reads take, bit by bit.
fn jitter() -> u64 {
    let mut value = 0_u64;
    for _ in 0..64 {
        let _ = ports::read_byte(0x61);
        // SAFETY: every x86-64 processor has the counter.
        let now = unsafe { _rdtsc() };
        value = value.rotate_left(7) ^ now.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    value
}

/// Carries out input and output by the drivers, and waits.
pub(crate) fn input_output(request: &mut IoRequest) {
    devices::transmit(request);
    devices::block(request);
    devices::receive(request);
    let is_asked = takes_stop(request);
    let has_worked = is_asked
        || request.received_count > 0
        || (request.block_count > 0 && request.flags & WAIT_ALWAYS == 0);
    if has_worked {
        return;
    }
    loop {
        let now_ns = crate::clock::monotonic_ns();
        if now_ns >= request.wait_until_ns {
            return;
        }
        // No longer than a second at once, for the timer has 32 bits.
        let wait_ns = (request.wait_until_ns - now_ns).min(1_000_000_000);
        let ticks = u128::from(wait_ns) * u128::from(TIMER_HZ.load(Ordering::Relaxed));
        let ticks = u32::try_from(ticks / 1_000_000_000).unwrap_or(u32::MAX);
        let mut is_asked = false;
        interrupts::halt_unless(ticks.max(1), || {
            is_asked = takes_stop(request);
            is_asked || devices::has_received()
        });
        devices::receive(request);
        if is_asked || takes_stop(request) || request.received_count > 0 {
            return;
        }
    }
}

/// Takes a wish of the monitor that the guest stop, if there is one, and shows it where Gamut's own
/// machine would.
fn takes_stop(request: &mut IoRequest) -> bool {
    if !control_line::takes_stop() {
        return false;
    }
    request.events |= EVENT_STOP;
    // SAFETY: nothing else runs, and readers read the word volatile.
    unsafe {
        let word = &raw mut CLOCK_PAGE.stop_requested;
        word.write_volatile(1);
    }
    true
}

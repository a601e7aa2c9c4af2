//! What is told of a guest that was ended: cause, registers, backtrace.

use std::fmt::Write as _;

use crate::ending::{Ending, Fault};
use crate::layout::Layout;
use crate::memory::GuestMemory;
use crate::symbols;

/// Most frames of a backtrace.
const MAX_FRAMES: usize = 64;

/// General registers of the guest where it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15, rip, rflags.
    pub general: [u64; 18],
}

/// Index of rbp in [`Registers::general`].
pub const RBP: usize = 6;
/// Index of rsp.
pub const RSP: usize = 7;
/// Index of rip.
pub const RIP: usize = 16;
/// Index of rflags.
pub const RFLAGS: usize = 17;

const NAMES: [&str; 18] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip", "flags",
];

impl Registers {
    /// One of them, by its index.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.general.get(index).copied().unwrap_or(0)
    }

    /// Sets one of them.
    pub fn set(&mut self, index: usize, value: u64) {
        if let Some(register) = self.general.get_mut(index) {
            *register = value;
        }
    }
}

/// What a report is made of.
#[derive(Debug)]
pub struct Scene<'machine> {
    /// Where the guest was.
    pub registers: Registers,
    /// The way that led there ([`frames`]).
    pub frames: Vec<u64>,
    /// Where things lie in it.
    pub layout: &'machine Layout,
    /// Its ELF file, for names; may be empty.
    pub image: &'machine [u8],
}

/// The report of an ending. `None` if there is nothing to tell: the guest exited by itself.
#[must_use]
pub fn report(ending: &Ending, scene: &Scene<'_>) -> Option<String> {
    let mut text = String::from("gamut-monitor: ");
    let cause = match ending {
        Ending::Exited(_) | Ending::Paused => return None,
        Ending::Machine(problem) => return Some(format!("{text}{problem}\n")),
        Ending::Panicked(message) => format!("the guest panicked: {}", message.trim_end()),
        Ending::OutOfMemory(kib) => format!(
            "the guest is out of memory: it has {} KiB and could not have {kib} KiB more; \
             give it more (--memory)",
            scene.layout.memory_bytes / 1024
        ),
        Ending::Fault(fault) => format!("the guest was ended: {}", cause(fault, scene)),
    };
    text.push_str(&cause);
    text.push('\n');
    if matches!(ending, Ending::Fault(_)) {
        append_registers(&mut text, &scene.registers);
    }
    append_backtrace(&mut text, scene);
    Some(text)
}

fn cause(fault: &Fault, scene: &Scene<'_>) -> String {
    match fault {
        Fault::Exception {
            vector: 14,
            error_code,
            address,
        } => page_fault(*error_code, *address, scene.layout),
        Fault::Exception {
            vector, error_code, ..
        } => format!(
            "{} (vector {vector}, error code {error_code:#x})",
            exception_name(*vector)
        ),
        Fault::Request(problem) => format!("{problem} (a bug of the guest)"),
        Fault::NoMemory { address, is_write } => format!(
            "{} {address:#x}, where there is no memory",
            if *is_write { "write to" } else { "read of" }
        ),
        Fault::Unsupported(problem) => problem.clone(),
    }
}

fn exception_name(vector: u8) -> &'static str {
    match vector {
        0 => "division by zero or overflow of a division",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint instruction",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid instruction",
        7 => "floating-point unit not available",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack segment fault",
        13 => "general protection fault (a privileged instruction, or an address that is none)",
        16 => "floating-point error",
        17 => "access that is not aligned",
        18 => "machine check",
        19 => "error of a vector instruction",
        _ => "processor exception",
    }
}

/// Says what a page fault means (error code: Intel SDM volume 3, 4.7).
fn page_fault(error_code: u64, address: u64, layout: &Layout) -> String {
    let access = if error_code & 0x10 != 0 {
        "execution of"
    } else if error_code & 0x2 != 0 {
        "write to"
    } else {
        "read of"
    };
    let is_guard = address < layout.stack.start && layout.stack.start - address <= 4096;
    let meaning = if is_guard {
        "the guard page below the stack: the stack has overflowed"
    } else if address < 4096 {
        "a null pointer"
    } else if error_code & 0x1 == 0 {
        "nothing is mapped there"
    } else if error_code & 0x10 != 0 {
        "this memory holds no code"
    } else if error_code & 0x2 != 0 {
        "this memory cannot be written"
    } else {
        "this memory is the monitor's"
    };
    format!("page fault, {access} {address:#x}: {meaning} (vector 14, error code {error_code:#x})")
}

fn append_registers(text: &mut String, registers: &Registers) {
    text.push_str("registers:\n");
    for (index, (name, value)) in NAMES.iter().zip(registers.general).enumerate() {
        let end = if index % 3 == 2 { '\n' } else { ' ' };
        let _ = write!(text, "  {name:>5} {value:016x}{end}");
    }
}

fn append_backtrace(text: &mut String, scene: &Scene<'_>) {
    text.push_str("backtrace:\n");
    for (number, address) in scene.frames.iter().copied().enumerate() {
        // A return address is behind its call, maybe in the next function already.
        let looked_up = address.saturating_sub(u64::from(number > 0));
        let _ = match symbols::find(scene.image, looked_up) {
            Some(place) => writeln!(
                text,
                "  {number:>2}: {address:#010x} {}+{:#x}",
                place.function,
                place.offset_bytes + u64::from(number > 0)
            ),
            None => writeln!(text, "  {number:>2}: {address:#010x}"),
        };
    }
}

/// The addresses of the calls that led here, by the chain of frame pointers. It may be cut short
/// anywhere: it is the guest's memory.
#[must_use]
pub fn frames(registers: &Registers, memory: &GuestMemory) -> Vec<u64> {
    let mut found = vec![registers.get(RIP)];
    let mut frame = registers.get(RBP);
    while found.len() < MAX_FRAMES && frame != 0 && frame.is_multiple_of(8) {
        let Ok(bytes) = memory.read(frame, 16) else {
            break;
        };
        let (Some(next), Some(address)) = (
            gamut_abi::guest::bytes::u64_at(bytes, 0),
            gamut_abi::guest::bytes::u64_at(bytes, 8),
        ) else {
            break;
        };
        if address == 0 {
            break;
        }
        found.push(address);
        // The stack grows downward: callers lie above.
        if next <= frame {
            break;
        }
        frame = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            memory_bytes: 4 << 20,
            stack: 0x20_1000..0x21_1000,
            heap: 0x21_1000..0x40_0000,
            rofs: None,
        }
    }

    #[test]
    fn page_faults_say_what_they_mean() {
        let layout = layout();
        assert!(page_fault(0x6, 0x10, &layout).contains("write to 0x10: a null pointer"));
        assert!(page_fault(0x6, 0x20_0ff8, &layout).contains("the stack has overflowed"));
        assert!(page_fault(0x7, 0x10_0000, &layout).contains("cannot be written"));
        assert!(page_fault(0x15, 0x30_0000, &layout).contains("holds no code"));
        assert!(page_fault(0x5, 0x1000, &layout).contains("the monitor's"));
        assert!(page_fault(0x4, 0x8000_0000, &layout).contains("nothing is mapped"));
    }

    #[test]
    fn a_chain_of_frames_ends_where_it_leads_nowhere() {
        let mut memory = GuestMemory::new(4 << 20).expect("memory");
        memory.allow(0x20_1000..0x21_1000, true);
        let mut put = |at: u64, words: [u64; 2]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            memory
                .raw_mut(at, 16)
                .expect("memory")
                .copy_from_slice(&bytes);
        };
        put(0x20_2000, [0x20_3000, 0x11_1111]);
        put(0x20_3000, [0x20_2000, 0x22_2222]);
        let mut registers = Registers::default();
        registers.set(RIP, 0x10_0000);
        registers.set(RBP, 0x20_2000);
        let frames = frames(&registers, &memory);
        assert_eq!(frames, [0x10_0000, 0x11_1111, 0x22_2222]);
        let layout = layout();
        let scene = Scene {
            registers,
            frames,
            layout: &layout,
            image: &[],
        };
        let text = report(&Ending::OutOfMemory(77), &scene).expect("a report");
        assert!(
            text.contains("it has 4096 KiB and could not have 77 KiB more"),
            "{text}"
        );
        assert_eq!(report(&Ending::Exited(3), &scene), None);
    }
}

//! What a unikernel and its monitor say to each other: **guest ABI version 1**, x86-64.
//!
//! ```text
//! ELF file ──note──► monitor: which ABI, how much memory and stack        [`note`]
//! monitor ──boot block, configuration text, clock page──► guest            [`boot`], [`config`]
//! guest ──port writes with the address of a request──► monitor             [`hypercall`]
//! ```
//!
//! The guest runs at privilege level 3 in 64-bit mode, with virtual addresses equal to physical
//! ones. Everything privileged (page tables, descriptor tables, the stub that reports crashes)
//! is made by the monitor in pages that the guest can neither read nor write. There are no
//! interrupts: a guest that has nothing to do says so in a request and is woken by its answer.
//!
//! All structures are little-endian `repr(C)`, without implicit padding. Whatever one side reads
//! from memory that the other can write is hostile: it is copied once, then checked.

pub mod boot;
pub mod bytes;
pub mod config;
pub mod control_line;
pub mod elf;
pub mod hypercall;
pub mod note;
pub mod rofs;
pub mod solo5;

/// Version of everything in this module. Raised when something changes meaning; a monitor refuses
/// an image of a later version by name, and runs those of earlier ones.
pub const GUEST_ABI_VERSION: u32 = 1;

/// Lowest address a segment of a unikernel's ELF file may have: below lies the monitor's area.
pub const LOWEST_ADDRESS: u64 = 0x10_0000;

/// Exit code of a guest that panicked (Rust's own for a panicking process).
pub const EXIT_PANIC: u32 = 101;

/// Exit code that the monitor gives a guest whose machine failed it: broken ELF, wrong ABI
/// version, a lost device (as a container's "cannot be executed").
pub const EXIT_MACHINE: u32 = 126;

/// Exit code of a guest that asked for more memory than it has.
pub const EXIT_OUT_OF_MEMORY: u32 = 137;

/// Exit code of a guest that was ended by a processor exception (128 + SIGSEGV).
pub const EXIT_FAULT: u32 = 139;

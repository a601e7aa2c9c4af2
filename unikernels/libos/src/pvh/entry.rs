//! The PVH entry: from 32-bit protected mode without paging to 64-bit mode (Xen's
//! `docs/misc/pvh.pandoc`, "start of day").
//!
//! `ebx` holds the address of `hvm_start_info`. Tables that map the first 4 GiB one to one are
//! made here; [`super::paging`] then takes away rights.

use core::arch::global_asm;

use super::prepare;

/// Page tables: level 4, level 3, four of level 2, four of level 1 for the first 8 MiB.
pub(super) const TABLES: usize = 10;

/// Makes tables and descriptors page-aligned.
#[repr(C, align(4096))]
pub(super) struct Aligned<T>(pub(super) T);

/// Written by the entry and by [`super::paging`] alone.
pub(super) static mut PAGE_TABLES: Aligned<[[u64; 512]; TABLES]> = Aligned([[0; 512]; TABLES]);

/// Stack until the memory map is known; afterwards that of exceptions and interrupts.
pub(super) static mut BOOT_STACK: Aligned<[u8; BOOT_STACK_BYTES]> = Aligned([0; BOOT_STACK_BYTES]);
/// Size of it.
pub(super) const BOOT_STACK_BYTES: usize = 16 * 1024;

unsafe extern "C" {
    /// The 32-bit entry point, for the note in the file.
    pub fn gamut_pvh_start();
}

global_asm!(
    ".section .text.pvh, \"ax\"",
    ".code32",
    ".globl gamut_pvh_start",
    "gamut_pvh_start:",
    "cld",
    "mov esp, offset {stack} + {stack_bytes}",
    // Level 4 and level 3: present, writable.
    "mov eax, offset {tables} + 0x1003",
    "mov dword ptr [{tables}], eax",
    "mov eax, offset {tables} + 0x2003",
    "mov edi, offset {tables} + 0x1000",
    "mov ecx, 4",
    "2:",
    "mov dword ptr [edi], eax",
    "add eax, 0x1000",
    "add edi, 8",
    "dec ecx",
    "jnz 2b",
    // Level 2: pages of 2 MiB, present, writable.
    "mov eax, 0x83",
    "mov edi, offset {tables} + 0x2000",
    "mov ecx, 2048",
    "3:",
    "mov dword ptr [edi], eax",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 3b",
    // PAE, SSE and its exceptions.
    "mov eax, 0x620",
    "mov cr4, eax",
    "mov eax, offset {tables}",
    "mov cr3, eax",
    // Long mode, no-execute.
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900",
    "wrmsr",
    // Protected mode, coprocessor, write protection, paging.
    "mov eax, 0x80010033",
    "mov cr0, eax",
    "lgdt [.Lgamut_pvh_table]",
    "push 8",
    "mov eax, offset .Lgamut_pvh_long",
    "push eax",
    "retf",
    ".code64",
    ".Lgamut_pvh_long:",
    "xor eax, eax",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov esp, offset {stack} + {stack_bytes}",
    "mov edi, ebx",
    "xor ebp, ebp",
    "mov rsi, qword ptr [rip + GAMUT_STACK_BYTES]",
    "call {prepare}",
    // From here on as after Gamut's own monitor.
    "mov rdi, rax",
    "mov rsp, qword ptr [rdi + {stack_address}]",
    "add rsp, qword ptr [rdi + {stack_size}]",
    "xor ebp, ebp",
    "push rbp",
    "jmp gamut_start",
    ".balign 8",
    ".Lgamut_pvh_descriptors:",
    ".quad 0",
    ".quad 0x00af9b000000ffff",
    ".Lgamut_pvh_table:",
    ".word 15",
    ".long .Lgamut_pvh_descriptors",
    ".long 0",
    tables = sym PAGE_TABLES,
    stack = sym BOOT_STACK,
    stack_bytes = const BOOT_STACK_BYTES,
    prepare = sym prepare,
    stack_address = const core::mem::offset_of!(gamut_abi::guest::boot::BootBlock, stack_address),
    stack_size = const core::mem::offset_of!(gamut_abi::guest::boot::BootBlock, stack_bytes),
);

/// Xen's note with the 32-bit entry point, as it lies in the file.
#[repr(C, packed(4))]
pub struct EntryNote {
    name_bytes: u32,
    description_bytes: u32,
    kind: u32,
    name: [u8; 4],
    entry: unsafe extern "C" fn(),
}

impl EntryNote {
    /// The note of this file.
    pub const HERE: Self = Self {
        name_bytes: 4,
        description_bytes: 8,
        kind: gamut_abi::guest::note::NOTE_TYPE_PVH_ENTRY,
        name: *b"Xen\0",
        entry: gamut_pvh_start,
    };
}

/// The PVH entry of an application.
#[doc(hidden)]
#[macro_export]
macro_rules! pvh_entry {
    ($stack_bytes:expr) => {
        #[used]
        #[unsafe(link_section = ".note.Xen")]
        static GAMUT_PVH_NOTE: $crate::pvh::EntryNote = $crate::pvh::EntryNote::HERE;

        /// Read by the PVH entry.
        #[used]
        #[unsafe(no_mangle)]
        static GAMUT_STACK_BYTES: u64 = $stack_bytes;
    };
}

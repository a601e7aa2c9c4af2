//! Making a machine and putting its processor into 64-bit mode at privilege level 3.

use kvm_bindings::{
    CpuId, KVM_MEM_READONLY, Msrs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_userspace_memory_region, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use super::features;
use crate::error::{Error, Result};
use crate::layout::{BOOT_ADDRESS, DESCRIPTORS_ADDRESS, PAGE_TABLES};
use crate::memory::GuestMemory;
use crate::report::Registers;
use crate::solo5::State;
use crate::tables;

/// Protected mode, paging, write protection, native floating-point errors.
const CR0: u64 = 0x8005_0033;
/// Physical address extension, SSE with its exceptions.
const CR4: u64 = 0x620;
const CR4_OSXSAVE: u64 = 1 << 18;
/// Long mode, enabled and active, and pages that are not executable.
const EFER: u64 = 0xd00;
const MSR_TSC: u32 = 0x10;
/// Three pages that KVM wants on older Intel processors.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A machine with this memory and one processor.
pub(super) fn create(memory: &GuestMemory) -> Result<(VmFd, VcpuFd)> {
    let kvm = Kvm::new().map_err(|error| {
        Error::system("open /dev/kvm", error).with_advice(
            "enable virtualization in the firmware, load kvm_intel or kvm_amd, and let the user \
             open it",
        )
    })?;
    let vm = kvm
        .create_vm()
        .map_err(|error| Error::system("make a virtual machine", error))?;
    if memory.bytes() < TSS_ADDRESS as u64 {
        // Only older processors want it, and only they refuse without.
        let _ = vm.set_tss_address(TSS_ADDRESS);
    }
    set_memory(&vm, memory, 0)?;
    let processor = vm
        .create_vcpu(0)
        .map_err(|error| Error::system("make a virtual processor", error))?;
    let features = features::of_host();
    CpuId::from_entries(&features.entries)
        .map_err(|_| std::io::Error::other("too many of them"))
        .and_then(|table| processor.set_cpuid2(&table).map_err(std::io::Error::from))
        .map_err(|error| Error::system("set the processor's features", error))?;
    set_special(&processor, features.states)?;
    Ok((vm, processor))
}

/// Hands the memory to KVM, or changes the flags of what it has.
pub(super) fn set_memory(vm: &VmFd, memory: &GuestMemory, flags: u32) -> Result<()> {
    for (slot, (guest, host, bytes, is_read_only)) in memory.slots().enumerate() {
        let region = kvm_userspace_memory_region {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            flags: if is_read_only {
                KVM_MEM_READONLY
            } else {
                flags
            },
            guest_phys_addr: guest,
            memory_size: bytes,
            userspace_addr: host,
        };
        // SAFETY: the mapping is private to the guest and lives longer than the machine.
        unsafe { vm.set_user_memory_region(region) }.map_err(|error| {
            Error::system(format!("give the guest memory at {guest:#x}"), error)
        })?;
    }
    Ok(())
}

fn set_special(processor: &VcpuFd, states: u64) -> Result<()> {
    let failed = |what: &str, error: kvm_ioctls::Error| {
        Error::system(format!("set the processor's {what}"), error)
    };
    let mut special = processor
        .get_sregs()
        .map_err(|error| failed("control registers (reading them)", error))?;
    special.cr0 = CR0;
    special.cr3 = PAGE_TABLES.start;
    special.cr4 = CR4;
    special.efer = EFER;
    if states != 0 {
        special.cr4 |= CR4_OSXSAVE;
        let mut registers = kvm_xcrs {
            nr_xcrs: 1,
            ..kvm_xcrs::default()
        };
        if let Some(first) = registers.xcrs.first_mut() {
            first.value = states;
        }
        processor
            .set_xcrs(&registers)
            .map_err(|error| failed("extended states", error))?;
    }
    special.cs = segment(tables::USER_CODE, 0xb, true);
    let data = segment(tables::USER_DATA, 3, false);
    (special.ss, special.ds, special.es) = (data, data, data);
    (special.fs, special.gs) = (data, data);
    special.tr = kvm_segment {
        base: DESCRIPTORS_ADDRESS + tables::TASK_OFFSET,
        limit: u32::try_from(tables::IDT_OFFSET - tables::TASK_OFFSET - 1).unwrap_or(0),
        selector: tables::TASK,
        type_: 0xb,
        present: 1,
        ..kvm_segment::default()
    };
    special.gdt = kvm_dtable {
        base: DESCRIPTORS_ADDRESS + tables::GDT_OFFSET,
        limit: tables::GDT_BYTES - 1,
        ..kvm_dtable::default()
    };
    special.idt = kvm_dtable {
        base: DESCRIPTORS_ADDRESS + tables::IDT_OFFSET,
        limit: tables::IDT_BYTES - 1,
        ..kvm_dtable::default()
    };
    processor
        .set_sregs(&special)
        .map_err(|error| failed("control registers", error))
}

/// A flat segment of privilege level 3.
fn segment(selector: u16, kind: u8, is_code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 3,
        db: u8::from(!is_code),
        s: 1,
        l: u8::from(is_code),
        g: 1,
        ..kvm_segment::default()
    }
}

/// The state of the registers at the entry point ([`gamut_abi::guest::boot`]).
pub(super) fn set_registers(processor: &VcpuFd, entry: u64, stack_end: u64) -> Result<()> {
    let registers = kvm_regs {
        rip: entry,
        rdi: BOOT_ADDRESS,
        // As after a call, whose return address is 0: the end of every backtrace.
        rsp: stack_end - 8,
        rflags: 2,
        ..kvm_regs::default()
    };
    processor
        .set_regs(&registers)
        .map_err(|error| Error::system("set the processor's registers", error))
}

/// Points the processor at other page tables.
pub(super) fn set_page_tables(processor: &VcpuFd, address: u64) -> Result<()> {
    let failed = |error: kvm_ioctls::Error| Error::system("set the processor's page tables", error);
    let mut special = processor.get_sregs().map_err(failed)?;
    special.cr3 = address;
    processor.set_sregs(&special).map_err(failed)
}

/// Sets the address that the guest is handed over when it starts.
pub(super) fn set_boot_address(processor: &VcpuFd, address: u64) -> Result<()> {
    let failed = |error: kvm_ioctls::Error| Error::system("set the processor's registers", error);
    let mut registers = processor.get_regs().map_err(failed)?;
    registers.rdi = address;
    processor.set_regs(&registers).map_err(failed)
}

/// Puts a processor that is in the stub back into the guest, in this state.
pub(super) fn resume(processor: &VcpuFd, state: &State) -> Result<()> {
    let failed = |error: kvm_ioctls::Error| Error::system("set the processor's registers", error);
    let mut special = processor.get_sregs().map_err(failed)?;
    special.cs = segment(tables::USER_CODE, 0xb, true);
    special.ss = segment(tables::USER_DATA, 3, false);
    special.fs.base = state.fs_base;
    special.gs.base = state.gs_base;
    processor.set_sregs(&special).map_err(failed)?;
    set_general(processor, &state.registers)
}

/// Sets the general registers.
pub(super) fn set_general(processor: &VcpuFd, registers: &Registers) -> Result<()> {
    processor
        .set_regs(&specific(registers))
        .map_err(|error| Error::system("set the processor's registers", error))
}

/// The inverse of [`general`].
fn specific(from: &Registers) -> kvm_regs {
    let [
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rbp,
        rsp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    ] = from.general;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

/// Registers as reports show them.
pub(super) fn general(from: &kvm_regs) -> Registers {
    Registers {
        general: [
            from.rax,
            from.rbx,
            from.rcx,
            from.rdx,
            from.rsi,
            from.rdi,
            from.rbp,
            from.rsp,
            from.r8,
            from.r9,
            from.r10,
            from.r11,
            from.r12,
            from.r13,
            from.r14,
            from.r15,
            from.rip,
            from.rflags,
        ],
    }
}

/// Frequency of the guest's counter in kHz, and what it is ahead of the host's.
pub(super) fn counter(processor: &VcpuFd) -> Result<(u32, u64)> {
    let failed = |error: kvm_ioctls::Error| {
        Error::system("ask for the frequency of the time stamp counter", error)
    };
    let tsc_khz = processor.get_tsc_khz().map_err(failed)?;
    let entry = kvm_msr_entry {
        index: MSR_TSC,
        ..kvm_msr_entry::default()
    };
    let mut values = Msrs::from_entries(&[entry]).map_err(|_| {
        Error::system(
            "read the guest's counter",
            std::io::Error::other("no memory"),
        )
    })?;
    // SAFETY: every x86-64 processor has the instruction.
    let before = unsafe { core::arch::x86_64::_rdtsc() };
    processor.get_msrs(&mut values).map_err(failed)?;
    // SAFETY: as above.
    let after = unsafe { core::arch::x86_64::_rdtsc() };
    let guest = values.as_slice().first().map_or(before, |entry| entry.data);
    let offset = guest.wrapping_sub(before);
    // Read in between: the counters are the same, but for the time that reading took.
    let is_same = offset <= after.wrapping_sub(before);
    Ok((tsc_khz, if is_same { 0 } else { offset }))
}

//! The processor that a guest sees: the host's instructions, without what a guest at privilege level
//! 3 has no use for.
//!
//! KVM's own list (`KVM_GET_SUPPORTED_CPUID`) has some eighty entries and takes longer to get than
//! everything else in a start; of it a unikernel reads these few. What is let through are
//! instructions that need nothing of KVM beyond the extended states in XCR0.

use std::arch::x86_64::{__cpuid_count, CpuidResult};

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// States of XCR0 that are useful in a guest: x87, SSE, AVX, AVX-512.
const STATES_WANTED: u64 = 0b1110_0111;
const STATES_X87: u64 = 1;
const STATES_AVX: u64 = 0b110;
const STATES_AVX512: u64 = 0b1110_0000;

/// Leaf 1 (Intel SDM volume 2, CPUID): SSE3, PCLMULQDQ, SSSE3, FMA, CX16, SSE4.1, SSE4.2, MOVBE,
/// POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const LEAF_1_ECX: u32 = 0x76d8_3203;
const LEAF_1_ECX_AVX: u32 = 0x3000_1000;
const LEAF_1_ECX_XSAVE: u32 = 1 << 26;
/// "A hypervisor is present".
const LEAF_1_ECX_HYPERVISOR: u32 = 1 << 31;
/// FPU, TSC, MSR, PAE, CX8, PGE, CMOV, PAT, CLFSH, MMX, FXSR, SSE, SSE2.
const LEAF_1_EDX: u32 = 0x0789_a171;
/// BMI1, AVX2, BMI2, ERMS, RDSEED, ADX, CLFLUSHOPT, CLWB, SHA; AVX-512 with DQ, IFMA, CD, BW, VL.
const LEAF_7_EBX: u32 = 0x218c_0328 | LEAF_7_EBX_AVX512;
const LEAF_7_EBX_AVX2: u32 = 1 << 5;
const LEAF_7_EBX_AVX512: u32 = 0xd023_0000;
/// GFNI, VAES, VPCLMULQDQ; AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ.
const LEAF_7_ECX: u32 = 0x0000_0700 | LEAF_7_ECX_AVX512;
const LEAF_7_ECX_AVX512: u32 = 0x0000_5842;
/// Fast short REP MOV.
const LEAF_7_EDX: u32 = 1 << 4;
/// XSAVEOPT, XSAVEC, XGETBV with ECX = 1.
const LEAF_D_1_EAX: u32 = 0b111;
/// LAHF in 64-bit mode, LZCNT, PREFETCHW.
const EXTENDED_1_ECX: u32 = 0x0000_0121;
/// NX, long mode.
const EXTENDED_1_EDX: u32 = 1 << 20 | 1 << 29;

/// What a guest's processor can do.
#[derive(Debug, Clone)]
pub(super) struct Features {
    /// For `KVM_SET_CPUID2`.
    pub entries: Vec<kvm_cpuid_entry2>,
    /// XCR0; 0 without extended states.
    pub states: u64,
}

/// Those of this machine.
pub(super) fn of_host() -> Features {
    // SAFETY: every x86-64 processor has the instruction.
    #[allow(unused_unsafe, reason = "safe from Rust 1.94 on")]
    let read = |leaf, index| unsafe { __cpuid_count(leaf, index) };
    select(read, enabled_states)
}

/// XCR0 of the host. Only to be called where the system has enabled XSAVE.
fn enabled_states() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller has looked that the instruction is there and enabled.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(low) | u64::from(high) << 32
}

/// Selects from what `cpuid` says. `states` reads XCR0 of the host.
fn select(cpuid: impl Fn(u32, u32) -> CpuidResult, states: impl Fn() -> u64) -> Features {
    let first = cpuid(0, 0);
    let one = cpuid(1, 0);
    // OSXSAVE: the system has enabled it.
    let has_states = one.ecx & (1 << 27) != 0 && first.eax >= 0xd;
    let states = if has_states {
        usable_states(u64::from(cpuid(0xd, 0).eax) & states())
    } else {
        0
    };
    let mut entries = vec![entry(
        0,
        None,
        CpuidResult {
            eax: first.eax.min(0xd),
            ..first
        },
    )];
    entries.push(entry(1, None, leaf_1(one, states)));
    if first.eax >= 7 {
        entries.push(entry(7, Some(0), leaf_7(cpuid(7, 0), states)));
    }
    if states != 0 {
        let whole = cpuid(0xd, 0);
        let low = u32::try_from(states).unwrap_or(0);
        entries.push(entry(
            0xd,
            Some(0),
            CpuidResult {
                eax: low,
                edx: 0,
                ..whole
            },
        ));
        let eax = cpuid(0xd, 1).eax & LEAF_D_1_EAX;
        entries.push(entry(
            0xd,
            Some(1),
            CpuidResult {
                eax,
                ebx: 0,
                ecx: 0,
                edx: 0,
            },
        ));
        for state in (2..8).filter(|state| states & (1 << state) != 0) {
            entries.push(entry(0xd, Some(state), cpuid(0xd, state)));
        }
    }
    extended(&cpuid, &mut entries);
    Features { entries, states }
}

/// Groups of states that the processor has as a whole.
fn usable_states(supported: u64) -> u64 {
    let mut states = (supported & STATES_WANTED) | STATES_X87;
    if states & STATES_AVX != STATES_AVX {
        states = STATES_X87 | (supported & 0b10);
    }
    if states & STATES_AVX512 != STATES_AVX512 {
        states &= !STATES_AVX512;
    }
    states
}

fn leaf_1(host: CpuidResult, states: u64) -> CpuidResult {
    let mut ecx = host.ecx & LEAF_1_ECX;
    if states == 0 {
        ecx &= !LEAF_1_ECX_XSAVE;
    }
    if states & STATES_AVX != STATES_AVX {
        ecx &= !LEAF_1_ECX_AVX;
    }
    CpuidResult {
        eax: host.eax,
        // Size of a cache line for CLFLUSH; one processor, number 0.
        ebx: host.ebx & 0xff00,
        ecx: ecx | LEAF_1_ECX_HYPERVISOR,
        edx: host.edx & LEAF_1_EDX,
    }
}

fn leaf_7(host: CpuidResult, states: u64) -> CpuidResult {
    let (mut ebx, mut ecx) = (host.ebx & LEAF_7_EBX, host.ecx & LEAF_7_ECX);
    if states & STATES_AVX512 != STATES_AVX512 {
        ebx &= !LEAF_7_EBX_AVX512;
        ecx &= !LEAF_7_ECX_AVX512;
    }
    if states & STATES_AVX != STATES_AVX {
        ebx &= !LEAF_7_EBX_AVX2;
        // The others of this register come in vector forms.
        ecx = 0;
    }
    CpuidResult {
        eax: 0,
        ebx,
        ecx,
        edx: host.edx & LEAF_7_EDX,
    }
}

fn extended(cpuid: &impl Fn(u32, u32) -> CpuidResult, entries: &mut Vec<kvm_cpuid_entry2>) {
    const FIRST: u32 = 0x8000_0000;
    const LAST: u32 = 0x8000_0008;
    let most = cpuid(FIRST, 0).eax.min(LAST);
    let none = CpuidResult {
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: 0,
    };
    entries.push(entry(FIRST, None, CpuidResult { eax: most, ..none }));
    let one = cpuid(FIRST + 1, 0);
    let one = CpuidResult {
        ecx: one.ecx & EXTENDED_1_ECX,
        edx: one.edx & EXTENDED_1_EDX,
        ..none
    };
    entries.push(entry(FIRST + 1, None, one));
    if most >= LAST {
        // How many bits addresses have.
        let eax = cpuid(LAST, 0).eax & 0xffff;
        entries.push(entry(LAST, None, CpuidResult { eax, ..none }));
    }
}

fn entry(function: u32, index: Option<u32>, values: CpuidResult) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index: index.unwrap_or(0),
        flags: index.map_or(0, |_| KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
        eax: values.eax,
        ebx: values.ebx,
        ecx: values.ecx,
        edx: values.edx,
        ..kvm_cpuid_entry2::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ones(leaf: u32, _: u32) -> CpuidResult {
        let eax = match leaf {
            0 => 0x20,
            0x8000_0000 => 0x8000_001f,
            _ => u32::MAX,
        };
        CpuidResult {
            eax,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
        }
    }

    fn find(features: &Features, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        let mut entries = features.entries.iter();
        entries.find(|entry| (entry.function, entry.index) == (function, index))
    }

    #[test]
    fn what_the_system_has_not_enabled_is_not_shown() {
        for (enabled, avx, avx512) in [
            (0b11, false, false),
            (0b111, true, false),
            (0xe7, true, true),
        ] {
            let features = select(all_ones, || enabled);
            assert_eq!(features.states, enabled);
            let one = find(&features, 1, 0).expect("leaf 1");
            assert_eq!(one.ecx & (1 << 28) != 0, avx);
            let seven = find(&features, 7, 0).expect("leaf 7");
            assert_eq!(
                (seven.ebx & (1 << 5) != 0, seven.ebx & (1 << 16) != 0),
                (avx, avx512)
            );
            assert_eq!(find(&features, 0xd, 5).is_some(), avx512);
        }
        // AVX-512 only in part.
        assert_eq!(select(all_ones, || 0x67).states, 0b111);
    }

    #[test]
    fn nothing_that_needs_a_system_is_shown() {
        let features = select(all_ones, || 0xe7);
        let one = find(&features, 1, 0).expect("leaf 1");
        // VMX, MONITOR, x2APIC, TSC deadline; APIC, SEP, MCE.
        assert_eq!(one.ecx & (1 << 5 | 1 << 3 | 1 << 21 | 1 << 24), 0);
        assert_eq!(one.edx & (1 << 9 | 1 << 11 | 1 << 7), 0);
        // FSGSBASE, SMEP, INVPCID, SMAP.
        let seven = find(&features, 7, 0).expect("leaf 7");
        assert_eq!(seven.ebx & (1 | 1 << 7 | 1 << 10 | 1 << 20), 0);
        let extended = find(&features, 0x8000_0001, 0).expect("extended leaf 1");
        assert_eq!(extended.edx, 1 << 20 | 1 << 29);
        assert!(features.entries.len() < 16);
    }

    #[test]
    fn this_machine_has_what_every_guest_needs() {
        let features = of_host();
        let one = find(&features, 1, 0).expect("leaf 1");
        // FXSR, SSE, SSE2.
        assert_eq!(one.edx >> 24 & 0b111, 0b111);
        let extended = find(&features, 0x8000_0001, 0).expect("extended leaf 1");
        assert_eq!(extended.edx, 1 << 20 | 1 << 29);
    }
}

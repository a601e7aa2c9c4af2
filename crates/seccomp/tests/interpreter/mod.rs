//! Runs a classic BPF program as the kernel would, and evaluates a profile the naive way.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "test helper"
)]

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

pub const X86_64: u32 = 0xc000_003e;
pub const I386: u32 = 0x4000_0003;
pub const X32_BIT: u32 = 0x4000_0000;

pub const ALLOW: u32 = 0x7fff_0000;
pub const KILL_PROCESS: u32 = 0x8000_0000;
pub const ERRNO: u32 = 0x0005_0000;
pub const EPERM: u32 = ERRNO | 1;
pub const ENOSYS: u32 = ERRNO | 38;

/// Result of the program, with the checks that the kernel makes when it loads one.
pub fn run(program: &[u64], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    assert!(!program.is_empty() && program.len() <= 4096);
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (index, arg) in args.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
    }
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let [c0, c1, jt, jf, v0, v1, v2, v3] = program[at].to_ne_bytes();
        let value = u32::from_ne_bytes([v0, v1, v2, v3]);
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match u16::from_ne_bytes([c0, c1]) {
            0x20 => {
                let offset = usize::try_from(value).unwrap();
                assert!(offset.is_multiple_of(4) && offset < 64);
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x54 => accumulator &= value,
            0x05 => at += usize::try_from(value).unwrap(),
            0x15 => jump(accumulator == value),
            0x25 => jump(accumulator > value),
            0x35 => jump(accumulator >= value),
            0x06 => return value,
            other => panic!("opcode {other:#x}"),
        }
    }
}

pub fn returned(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno)
}

fn matches(argument: &LinuxSeccompArg, args: [u64; 6], mask: u64) -> bool {
    let actual = args[argument.index()] & mask;
    let value = argument.value() & mask;
    let second = argument.value_two().unwrap_or(0) & mask;
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => actual == value,
        LinuxSeccompOperator::ScmpCmpNe => actual != value,
        LinuxSeccompOperator::ScmpCmpLt => actual < value,
        LinuxSeccompOperator::ScmpCmpLe => actual <= value,
        LinuxSeccompOperator::ScmpCmpGt => actual > value,
        LinuxSeccompOperator::ScmpCmpGe => actual >= value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => actual & value == second & value,
    }
}

/// What a profile says of a call by name, without the rule about newer calls.
pub fn evaluate(profile: &LinuxSeccomp, name: &str, args: [u64; 6], is_64_bit: bool) -> u32 {
    let mask = if is_64_bit { u64::MAX } else { 0xffff_ffff };
    let default = returned(profile.default_action(), profile.default_errno_ret());
    let rules: Vec<&LinuxSyscall> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.names().iter().any(|known| known == name))
        .filter(|rule| returned(rule.action(), rule.errno_ret()) != default)
        .collect();
    let arguments = |rule: &&LinuxSyscall| rule.args().clone().unwrap_or_default();
    let always = rules.iter().find(|rule| arguments(rule).is_empty());
    let sometimes = || {
        rules.iter().find(|rule| {
            let arguments = arguments(rule);
            let mut indices: Vec<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
            indices.sort_unstable();
            indices.dedup();
            if indices.len() < arguments.len() {
                arguments
                    .iter()
                    .any(|argument| matches(argument, args, mask))
            } else {
                arguments
                    .iter()
                    .all(|argument| matches(argument, args, mask))
            }
        })
    };
    always
        .or_else(sometimes)
        .map_or(default, |rule| returned(rule.action(), rule.errno_ret()))
}

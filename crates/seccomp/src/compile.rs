//! From rules to a program: architecture first, then a binary search tree over the numbers.

use crate::architecture::{AUDIT_I386, AUDIT_X86_64, Architecture, NEWEST, X32_BIT, X32_OLD_BLOCK};
use crate::assembler::{Assembler, Label, Test};
use crate::conditions;
use crate::error::Error;
use crate::rules::{self, CallRules, Conditional, RETURN_ENOSYS, RETURN_KILL_PROCESS};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

/// `BPF_MAXINSNS` of linux/bpf_common.h.
const MAXIMUM_INSTRUCTIONS: usize = 4096;

// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Classic BPF: the eight bytes of each `struct sock_filter` in memory order, as a
    /// native-endian integer.
    pub instructions: Vec<u64>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2). With NEW_LISTENER it returns a descriptor.
    pub flags: u32,
    /// Names in the profile that no architecture of Linux has, as far as we know: newer than
    /// this library, or mistyped. Sorted, each once.
    pub unknown_names: Vec<String>,
}

/// Compiles a profile for the machine's architecture; how it is read is said in the crate's
/// documentation.
///
/// # Errors
/// If the profile is invalid, or too long for the kernel's 4096 instructions.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    let native = Architecture::native()?;
    let (default, rules) = rules::read(profile)?;
    let (unknown_names, unknown_forbidden) = rules::unknown_names(&rules);
    let mut listed: Vec<Architecture> = profile
        .architectures()
        .iter()
        .flatten()
        .filter_map(|arch| Architecture::from_oci(*arch))
        .collect();
    listed.push(native);

    let mut out = Assembler::default();
    let write_one = |out: &mut Assembler, architecture: Architecture| {
        if !listed.contains(&architecture) {
            return out.ret(RETURN_KILL_PROCESS);
        }
        let (calls, largest) = rules::for_architecture(&rules, architecture);
        let newer = if !rules::permits(profile.default_action()) {
            largest
        } else if unknown_forbidden {
            Some(NEWEST)
        } else {
            None
        };
        let background = background(architecture, newer, default);
        let ranges = ranges(calls.into_iter().collect(), &background);
        write_ranges(out, architecture, &ranges, default)
    };

    // Backwards: the last section first.
    let x86 = write_one(&mut out, Architecture::X86);
    let x86 = if listed.contains(&Architecture::X86) {
        out.load(OFFSET_NUMBER, x86)
    } else {
        x86
    };
    let x32 = write_one(&mut out, Architecture::X32);
    let x86_64 = write_one(&mut out, Architecture::X86_64);
    // A tracer cancels a call by the number -1, which has the x32 bit but is none of its calls.
    let with_bit = out.branch(Test::Equal, u32::MAX, x86_64, x32);
    let number = out.branch(Test::GreaterOrEqual, X32_BIT, with_bit, x86_64);
    let number = out.load(OFFSET_NUMBER, number);
    let other = out.ret(RETURN_KILL_PROCESS);
    let not_x86_64 = out.branch(Test::Equal, AUDIT_I386, x86, other);
    let entry = out.branch(Test::Equal, AUDIT_X86_64, number, not_x86_64);
    let entry = out.load(OFFSET_ARCHITECTURE, entry);
    let instructions = out.finish(entry);
    if instructions.len() > MAXIMUM_INSTRUCTIONS {
        return Err(Error::TooLong {
            instructions: instructions.len(),
            maximum: MAXIMUM_INSTRUCTIONS,
        });
    }
    Ok(Program {
        instructions,
        flags: flags(profile),
        unknown_names,
    })
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    let mut flags = match profile.flags() {
        None => FLAG_SPEC_ALLOW,
        Some(list) => list.iter().fold(0, |flags, flag| {
            flags
                | match flag {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                        FLAG_WAIT_KILLABLE_RECV
                    }
                }
        }),
    };
    let notifies = profile
        .syscalls()
        .iter()
        .flatten()
        .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if notifies {
        flags |= FLAG_NEW_LISTENER;
    } else {
        // The kernel takes this flag only together with a listener.
        flags &= !FLAG_WAIT_KILLABLE_RECV;
    }
    flags
}

/// What happens to the numbers from `first` up to the next range.
struct Range {
    first: u32,
    outcome: Outcome,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Return(u32),
    Check(Vec<Conditional>),
}

/// The whole space of numbers, in order: the calls with rules, and in between what `background`
/// says. Neighbours with the same outcome are one range.
fn ranges(calls: Vec<(u32, CallRules)>, background: &[(u32, u32)]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(calls.len() + background.len());
    let mut put = |first: u32, outcome: Outcome| {
        if ranges.last().is_none_or(|last| last.outcome != outcome) {
            ranges.push(Range { first, outcome });
        }
    };
    let fill = |put: &mut dyn FnMut(u32, Outcome), from: u32, to: u32| {
        for (at, (first, returned)) in background.iter().enumerate() {
            let end = background.get(at + 1).map_or(u32::MAX, |(next, _)| *next);
            let start = from.max(*first);
            if start < to.min(end) {
                put(start, Outcome::Return(*returned));
            }
        }
    };
    let mut next = 0;
    for (number, call) in calls {
        fill(&mut put, next, number);
        let outcome = match call.always {
            Some(returned) => Outcome::Return(returned),
            None => Outcome::Check(call.sometimes),
        };
        put(number, outcome);
        // Numbers are far below 2^30.
        next = number + 1;
    }
    fill(&mut put, next, u32::MAX);
    ranges
}

/// What happens to calls without rules: from each number on, up to the next. After `newer`, the
/// newest call that counts as known, comes ENOSYS. x32 has a block of old calls further up.
fn background(architecture: Architecture, newer: Option<u32>, default: u32) -> Vec<(u32, u32)> {
    let mut background = vec![(0, default)];
    if let Some(newer) = newer {
        background.push((newer + 1, RETURN_ENOSYS));
        if architecture == Architecture::X32 {
            background.push((X32_OLD_BLOCK.start, default));
            background.push((X32_OLD_BLOCK.end, RETURN_ENOSYS));
        }
    }
    background
}

/// Writes a balanced search for the number in the accumulator.
fn write_ranges(
    out: &mut Assembler,
    architecture: Architecture,
    ranges: &[Range],
    default: u32,
) -> Label {
    match ranges {
        [] => out.ret(default),
        [one] => match &one.outcome {
            Outcome::Return(value) => out.ret(*value),
            Outcome::Check(rules) => write_rules(out, architecture, rules, default),
        },
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high[0].first + architecture.base();
            let above = write_ranges(out, architecture, high, default);
            let below = write_ranges(out, architecture, low, default);
            out.branch(Test::GreaterOrEqual, middle, above, below)
        }
    }
}

/// Writes the conditional rules of one call: the first that matches decides.
fn write_rules(
    out: &mut Assembler,
    architecture: Architecture,
    rules: &[Conditional],
    default: u32,
) -> Label {
    let is_64_bit = architecture.is_64_bit();
    let mut next = out.ret(default);
    let mut rest = rules;
    while let Some((last, before)) = rest.split_last() {
        let alike = equals_at_end(rest);
        if alike.len() > 1 {
            let index = alike[0].conditions[0].index;
            let values: Vec<u64> = alike.iter().map(|rule| rule.conditions[0].value).collect();
            let holds = out.ret(last.returned);
            next = conditions::write_any_of(out, index, &values, is_64_bit, holds, next);
            rest = &rest[..rest.len() - alike.len()];
            continue;
        }
        let mut holds = out.ret(last.returned);
        for condition in last.conditions.iter().rev() {
            holds = conditions::write(out, condition, is_64_bit, holds, next);
        }
        next = holds;
        rest = before;
    }
    next
}

/// The rules at the end of the list that test one argument for equality and have the same
/// outcome, so that the argument need be loaded once.
fn equals_at_end(rules: &[Conditional]) -> &[Conditional] {
    let key = |rule: &Conditional| match rule.conditions.as_slice() {
        [only] => only.plain_equal().map(|plain| (plain, rule.returned)),
        _ => None,
    };
    let Some(wanted) = rules.last().and_then(key) else {
        return &[];
    };
    let count = rules
        .iter()
        .rev()
        .take_while(|rule| key(rule) == Some(wanted))
        .count();
    &rules[rules.len() - count..]
}

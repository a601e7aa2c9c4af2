//! A profile's rules, sorted by the numbers of one architecture.

use crate::architecture::{self, Architecture, X32_OLD_BLOCK};
use crate::assembler::Test;
use crate::conditions::Condition;
use crate::error::Error;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use std::collections::BTreeMap;

/// What a filter returns (`SECCOMP_RET_*` with its data).
pub(crate) const RETURN_KILL_PROCESS: u32 = 0x8000_0000;
const RETURN_KILL_THREAD: u32 = 0;
const RETURN_TRAP: u32 = 0x0003_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_NOTIFY: u32 = 0x7fc0_0000;
const RETURN_TRACE: u32 = 0x7ff0_0000;
const RETURN_LOG: u32 = 0x7ffc_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
/// "No such system call".
pub(crate) const RETURN_ENOSYS: u32 = RETURN_ERRNO | 38;

/// `MAX_ERRNO` of the kernel.
const MAXIMUM_ERRNO: u32 = 4095;
const MAXIMUM_TRACE: u32 = 0xffff;

/// The filter's return value for an action.
pub(crate) fn return_value(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Error> {
    let data = |maximum: u32| {
        let value = errno.unwrap_or(EPERM);
        if value > maximum {
            return Err(Error::ErrnoRange { value, maximum });
        }
        Ok(value)
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            RETURN_KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => RETURN_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RETURN_TRAP,
        LinuxSeccompAction::ScmpActErrno => RETURN_ERRNO | data(MAXIMUM_ERRNO)?,
        LinuxSeccompAction::ScmpActTrace => RETURN_TRACE | data(MAXIMUM_TRACE)?,
        LinuxSeccompAction::ScmpActNotify => RETURN_NOTIFY,
        LinuxSeccompAction::ScmpActLog => RETURN_LOG,
        LinuxSeccompAction::ScmpActAllow => RETURN_ALLOW,
    })
}

/// Whether a call may go on; a tracer is expected to deal with new calls itself.
pub(crate) fn permits(action: LinuxSeccompAction) -> bool {
    matches!(
        action,
        LinuxSeccompAction::ScmpActAllow
            | LinuxSeccompAction::ScmpActLog
            | LinuxSeccompAction::ScmpActTrace
    )
}

/// A rule whose conditions must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conditional {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) returned: u32,
}

/// The rules for one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallRules {
    pub(crate) always: Option<u32>,
    pub(crate) sometimes: Vec<Conditional>,
}

/// One rule of the profile, checked, for all architectures.
pub(crate) struct Rule<'a> {
    pub(crate) names: &'a [String],
    /// Alternatives, each a list of conditions that must all hold; empty for "always".
    alternatives: Vec<Vec<Condition>>,
    returned: u32,
    is_default: bool,
    forbids: bool,
}

/// Checks the rules of a profile.
pub(crate) fn read(profile: &LinuxSeccomp) -> Result<(u32, Vec<Rule<'_>>), Error> {
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::Notify("as default action"));
    }
    let default = return_value(profile.default_action(), profile.default_errno_ret())?;
    let entries = profile.syscalls().as_deref().unwrap_or_default();
    let rules = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| read_rule(index, entry, default))
        .collect::<Result<_, _>>()?;
    Ok((default, rules))
}

fn read_rule(index: usize, entry: &LinuxSyscall, default: u32) -> Result<Rule<'_>, Error> {
    let names = entry.names();
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(Error::NoName { index });
    }
    let notifies = entry.action() == LinuxSeccompAction::ScmpActNotify;
    if notifies && names.iter().any(|name| name == "write") {
        return Err(Error::Notify("for the write syscall"));
    }
    let returned = return_value(entry.action(), entry.errno_ret())?;
    Ok(Rule {
        names,
        alternatives: read_arguments(names, entry.args().as_deref().unwrap_or_default())?,
        returned,
        is_default: returned == default,
        forbids: !permits(entry.action()),
    })
}

fn read_arguments(
    names: &[String],
    arguments: &[LinuxSeccompArg],
) -> Result<Vec<Vec<Condition>>, Error> {
    let conditions = arguments
        .iter()
        .map(|argument| read_argument(names, argument))
        .collect::<Result<Vec<_>, _>>()?;
    let repeated = conditions.iter().enumerate().any(|(at, condition)| {
        conditions[..at]
            .iter()
            .any(|before| before.index == condition.index)
    });
    if repeated {
        return Ok(conditions.into_iter().map(|one| vec![one]).collect());
    }
    Ok(vec![conditions])
}

fn read_argument(names: &[String], argument: &LinuxSeccompArg) -> Result<Condition, Error> {
    let index = match u32::try_from(argument.index()) {
        Ok(index) if index <= 5 => index,
        _ => {
            return Err(Error::ArgumentIndex {
                syscall: names.join(", "),
                index: argument.index(),
            });
        }
    };
    let (test, negated) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq | LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Test::Equal, false)
        }
        LinuxSeccompOperator::ScmpCmpNe => (Test::Equal, true),
        LinuxSeccompOperator::ScmpCmpGe => (Test::GreaterOrEqual, false),
        LinuxSeccompOperator::ScmpCmpLt => (Test::GreaterOrEqual, true),
        LinuxSeccompOperator::ScmpCmpGt => (Test::Greater, false),
        LinuxSeccompOperator::ScmpCmpLe => (Test::Greater, true),
    };
    let (mask, value) = if argument.op() == LinuxSeccompOperator::ScmpCmpMaskedEq {
        let mask = argument.value();
        (mask, argument.value_two().unwrap_or(0) & mask)
    } else {
        (u64::MAX, argument.value())
    };
    Ok(Condition {
        index,
        test,
        value,
        mask,
        negated,
    })
}

/// Names that no architecture has, and whether one of them is forbidden.
pub(crate) fn unknown_names(rules: &[Rule<'_>]) -> (Vec<String>, bool) {
    let mut unknown = Vec::new();
    let mut forbidden = false;
    for rule in rules {
        for name in rule.names {
            if !architecture::is_known(name) {
                forbidden |= rule.forbids && !rule.is_default;
                unknown.push(name.clone());
            }
        }
    }
    unknown.sort_unstable();
    unknown.dedup();
    (unknown, forbidden)
}

/// The rules by number on one architecture, and the largest number that the profile names.
pub(crate) fn for_architecture(
    rules: &[Rule<'_>],
    architecture: Architecture,
) -> (BTreeMap<u32, CallRules>, Option<u32>) {
    let mut calls: BTreeMap<u32, CallRules> = BTreeMap::new();
    let mut largest = None;
    for rule in rules {
        for name in rule.names {
            let number = architecture.number(name);
            largest = largest.max(number.filter(|number| *number < X32_OLD_BLOCK.start));
            if rule.is_default {
                continue;
            }
            if let Some(number) = number {
                add(calls.entry(number).or_default(), rule);
            }
            if architecture == Architecture::X86
                && rule.alternatives.iter().all(Vec::is_empty)
                && let Some((multiplexer, selector)) = multiplexed(name)
            {
                calls
                    .entry(multiplexer)
                    .or_default()
                    .sometimes
                    .push(Conditional {
                        conditions: vec![selector],
                        returned: rule.returned,
                    });
            }
        }
    }
    (calls, largest)
}

fn add(call: &mut CallRules, rule: &Rule<'_>) {
    for conditions in &rule.alternatives {
        if conditions.is_empty() {
            call.always.get_or_insert(rule.returned);
        } else {
            call.sometimes.push(Conditional {
                conditions: conditions.clone(),
                returned: rule.returned,
            });
        }
    }
}

/// i386 has a second way to the socket and System V IPC calls: a number of the multiplexer, and
/// what its first argument must be (linux/net.h, linux/ipc.h; `ipc` has a version above bit 16).
fn multiplexed(name: &str) -> Option<(u32, Condition)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    let (multiplexer, mask, selector) = match name {
        "socket" => (SOCKETCALL, u64::MAX, 1),
        "bind" => (SOCKETCALL, u64::MAX, 2),
        "connect" => (SOCKETCALL, u64::MAX, 3),
        "listen" => (SOCKETCALL, u64::MAX, 4),
        "accept" => (SOCKETCALL, u64::MAX, 5),
        "getsockname" => (SOCKETCALL, u64::MAX, 6),
        "getpeername" => (SOCKETCALL, u64::MAX, 7),
        "socketpair" => (SOCKETCALL, u64::MAX, 8),
        "send" => (SOCKETCALL, u64::MAX, 9),
        "recv" => (SOCKETCALL, u64::MAX, 10),
        "sendto" => (SOCKETCALL, u64::MAX, 11),
        "recvfrom" => (SOCKETCALL, u64::MAX, 12),
        "shutdown" => (SOCKETCALL, u64::MAX, 13),
        "setsockopt" => (SOCKETCALL, u64::MAX, 14),
        "getsockopt" => (SOCKETCALL, u64::MAX, 15),
        "sendmsg" => (SOCKETCALL, u64::MAX, 16),
        "recvmsg" => (SOCKETCALL, u64::MAX, 17),
        "accept4" => (SOCKETCALL, u64::MAX, 18),
        "recvmmsg" => (SOCKETCALL, u64::MAX, 19),
        "sendmmsg" => (SOCKETCALL, u64::MAX, 20),
        "semop" => (IPC, 0xffff, 1),
        "semget" => (IPC, 0xffff, 2),
        "semctl" => (IPC, 0xffff, 3),
        "semtimedop" => (IPC, 0xffff, 4),
        "msgsnd" => (IPC, 0xffff, 11),
        "msgrcv" => (IPC, 0xffff, 12),
        "msgget" => (IPC, 0xffff, 13),
        "msgctl" => (IPC, 0xffff, 14),
        "shmat" => (IPC, 0xffff, 21),
        "shmdt" => (IPC, 0xffff, 22),
        "shmget" => (IPC, 0xffff, 23),
        "shmctl" => (IPC, 0xffff, 24),
        _ => return None,
    };
    let condition = Condition {
        index: 0,
        test: Test::Equal,
        value: selector,
        mask,
        negated: false,
    };
    Some((multiplexer, condition))
}

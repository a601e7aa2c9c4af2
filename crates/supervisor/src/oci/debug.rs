//! What `--debug` tells of the making of a container and of its processes.
//!
//! Whoever reads such logs knows the words of other OCI runtimes, so the steps that all of them
//! take have the same names here.

use super::report;
use gamut_abi::oci::OciCallers;
use gamut_abi::plan::Plan;

/// Tells what the new process will be like, before it is made.
pub(super) fn set_up(callers: &OciCallers, plan: &Plan) {
    if !callers.debug {
        return;
    }
    let count = plan.namespaces.len().to_string();
    report::debug(callers, || {
        ["nsexec container setup: ", &count, " namespaces"].concat()
    });
    if let Some(affinity) = &plan.process.exec_cpu_affinity
        && !affinity.initial.is_empty()
    {
        report::debug(callers, || {
            ["nsexec: affinity: ", &hexadecimal(&affinity.initial)].concat()
        });
    }
    if let Some(seccomp) = &plan.process.seccomp {
        report::debug(callers, || {
            ["seccomp filter flags: ", &seccomp.flags.to_string()].concat()
        });
    }
}

/// Tells that the container's first process is ready for its program.
pub(super) fn made(callers: &OciCallers, pid: u32) {
    child(callers, pid);
    report::debug(callers, || {
        String::from("init: closing the pipe to signal completion")
    });
}

/// Tells that a further process has become its program.
pub(super) fn executed(callers: &OciCallers, pid: u32) {
    child(callers, pid);
    report::debug(callers, || String::from("setns_init: about to exec: done"));
}

fn child(callers: &OciCallers, pid: u32) {
    report::debug(callers, || {
        ["child process in init(): ", &pid.to_string()].concat()
    });
}

/// A mask of 64-bit words, the first with the lowest bits.
fn hexadecimal(words: &[u64]) -> String {
    let mut text = String::from("0x");
    let last = words.iter().rposition(|word| *word != 0).unwrap_or(0);
    for (index, word) in words.iter().enumerate().take(last + 1).rev() {
        if index == last {
            text.push_str(&format!("{word:x}"));
        } else {
            text.push_str(&format!("{word:016x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_numbers() {
        assert_eq!(hexadecimal(&[]), "0x");
        assert_eq!(hexadecimal(&[0x2]), "0x2");
        assert_eq!(hexadecimal(&[0x3, 0x10, 0]), "0x100000000000000003");
    }
}

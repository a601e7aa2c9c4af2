//! `run`: the container in the foreground.

use super::{Made, failure, forget, make, report};
use crate::server::discard;
use crate::sys::process::{self, reset_child_signal};
use gamut_abi::control::Failure;
use gamut_abi::oci::OciLaunch;
use gamut_abi::plan::{NamespaceKind, NamespaceSource, Plan};
use gamut_container::CreateOptions;

/// Signals that say something about this process itself and are not forwarded.
const OWN_SIGNALS: [i32; 7] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// Makes the container, runs it to its end and removes it. Answers its exit code.
pub(super) fn run(launch: &OciLaunch) -> Result<u8, Failure> {
    let result = make_and_wait(launch);
    forget(launch);
    result
}

fn make_and_wait(launch: &OciLaunch) -> Result<u8, Failure> {
    // From the first moment on, a signal is for the container.
    reset_child_signal();
    let forwarded = block_signals();
    let Made { created, group } = make(launch, CreateOptions::default())?;
    let running = match created.start() {
        Ok(running) => running,
        Err(error) => {
            if let Some(group) = &group {
                discard(group);
            }
            return Err(error.into());
        }
    };
    let code = wait(running.pid, &forwarded);
    if let Some(group) = &group {
        // The end of a PID namespace's first process is the end of all others in it.
        let removed = if has_own_pid_namespace(&launch.plan) {
            group.remove()
        } else {
            group.kill().and_then(|()| group.remove())
        };
        if let Err(error) = removed {
            report::warning(launch.log.as_ref(), &error.to_string());
        }
    }
    code.map_err(|error| failure("wait for the container", &error))
}

fn has_own_pid_namespace(plan: &Plan) -> bool {
    plan.namespaces.iter().any(|namespace| {
        namespace.kind == NamespaceKind::Pid && namespace.source == NamespaceSource::New
    })
}

/// Blocks what is fetched by [`wait`]. The program gets an empty mask again before its execve.
fn block_signals() -> libc::sigset_t {
    // SAFETY: the set is valid once filled; nothing is written back by sigprocmask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        for signal in OWN_SIGNALS {
            libc::sigdelset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        set
    }
}

/// Forwards signals until the process ends; answers its exit code, 128 + signal if one killed it.
fn wait(pid: u32, forwarded: &libc::sigset_t) -> std::io::Result<u8> {
    loop {
        // SAFETY: the set is valid; no information about the signal is asked for.
        let signal = unsafe { libc::sigwaitinfo(forwarded, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => {
                while let Some(reaped) = process::reap() {
                    if reaped.pid == pid {
                        return Ok(u8::try_from(reaped.code & 0xff).unwrap_or(u8::MAX));
                    }
                }
            }
            1.. => {
                // It has not been waited for, so the id is its own; it may have just ended.
                let _ = process::kill(pid, signal);
            }
            _ => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

//! `run`: the container in the foreground, or started and left.

use super::make::{Made, forget, make};
use super::{failure, foreground, report};
use crate::server::discard;
use crate::sys::process::{self, reset_child_signal};
use gamut_abi::control::Failure;
use gamut_abi::oci::{OciLaunch, OciVerb};
use gamut_abi::plan::{NamespaceKind, NamespaceSource, Plan};
use gamut_cgroup::Group;
use gamut_container::{CreateOptions, Running, run_hooks};
use std::os::fd::AsFd;

/// Makes the container and starts it; unless it is to be left, runs it to its end and removes it.
/// Answers its exit code.
pub(super) fn run(launch: &OciLaunch) -> Result<u8, Failure> {
    let detached = launch.verb == OciVerb::RunDetached;
    let result = if detached {
        make_and_start(launch, false).map(|_| 0)
    } else {
        make_and_wait(launch)
    };
    if result.is_err() || !(detached || launch.keep) {
        forget(launch);
    }
    result
}

fn make_and_start(
    launch: &OciLaunch,
    die_with_parent: bool,
) -> Result<(Running, Option<Group>), Failure> {
    let options = CreateOptions {
        die_with_parent,
        leave_line_ends: launch.verb == OciVerb::Run,
        ..CreateOptions::default()
    };
    let Made { created, group } = make(launch, options)?;
    let started = created
        .start()
        .and_then(|running| match poststart(launch, running.pid) {
            Ok(()) => Ok(running),
            Err(error) => {
                let _ = process::send_signal(running.pidfd.as_fd(), libc::SIGKILL);
                Err(error)
            }
        });
    match started {
        Ok(running) => Ok((running, group)),
        Err(error) => {
            if let Some(group) = &group {
                discard(group);
            }
            Err(error.into())
        }
    }
}

fn poststart(launch: &OciLaunch, pid: u32) -> Result<(), gamut_container::Error> {
    let Some(hooks) = &launch.plan.hooks else {
        return Ok(());
    };
    let state = hooks.state("running", pid);
    run_hooks(&hooks.poststart, "poststart", &state, &hooks.bundle)
}

fn make_and_wait(launch: &OciLaunch) -> Result<u8, Failure> {
    // From the first moment on, a signal is for the container.
    reset_child_signal();
    let signals = foreground::Signals::block();
    if launch.subreaper {
        foreground::adopt_orphans();
    }
    let (mut running, group) = make_and_start(launch, true)?;
    let code = foreground::wait(running.pid, running.terminal.take(), &signals);
    // A container that is kept is still there for `delete`, with its group.
    if let Some(group) = group.filter(|_| !launch.keep) {
        // The end of a PID namespace's first process is the end of all others in it.
        let removed = if has_own_pid_namespace(&launch.plan) {
            group.remove()
        } else {
            group.kill().and_then(|()| group.remove())
        };
        if let Err(error) = removed {
            report::warning(&launch.callers, &error.to_string());
        }
    }
    code.map_err(|error| failure("wait for the container", &error))
}

fn has_own_pid_namespace(plan: &Plan) -> bool {
    plan.namespaces.iter().any(|namespace| {
        namespace.kind == NamespaceKind::Pid && namespace.source == NamespaceSource::New
    })
}

//! `exec`: a further process in a container.

use super::{callers, debug, failure, foreground, inherited_stdio, passed_files, report};
use crate::server::group_failure;
use crate::sys::process::{self, reset_child_signal};
use gamut_abi::control::{Failure, FailureKind};
use gamut_abi::oci::{OciExec, OciSubgroup};
use gamut_cgroup::{Controller, Group, Hierarchies};
use gamut_container::{ExecOptions, exec_with};
use std::os::fd::AsFd;

/// Runs the process; unless it is to be left, waits for its end. Answers its exit code.
pub(super) fn exec(request: &OciExec) -> Result<u8, Failure> {
    let mut files = passed_files(request.extra_files.saturating_add(1)).into_iter();
    let Some(init) = files.next() else {
        return Err(Failure {
            kind: FailureKind::Invalid,
            message: String::from("no descriptor of the container's first process came along"),
            errno: 0,
        });
    };
    let extra_files: Vec<_> = files.collect();
    reset_child_signal();
    let signals = (!request.detach).then(foreground::Signals::block);
    let groups = Groups::of(request)?;
    let join_groups = |pid| groups.join(pid);
    let options = ExecOptions {
        join_groups: (!groups.below.is_empty()).then_some(&join_groups),
        leave_line_ends: !request.detach,
        extra_files: &extra_files,
    };
    debug::set_up(&request.callers, &request.plan);
    let mut running = exec_with(
        init.as_fd(),
        request.init_pid,
        &request.plan.process,
        &request.plan,
        inherited_stdio()?,
        groups.own.as_ref(),
        options,
    )?;
    debug::executed(&request.callers, running.pid);
    for warning in &running.warnings {
        report::warning(&request.callers, warning);
    }
    let told = callers::tell(
        &request.callers,
        running.pid,
        running.pidfd.as_fd(),
        running.terminal.as_ref().map(AsFd::as_fd),
    );
    if let Err(failure) = told {
        let _ = process::send_signal(running.pidfd.as_fd(), libc::SIGKILL);
        return Err(failure);
    }
    match signals {
        None => Ok(0),
        Some(signals) => foreground::wait(running.pid, running.terminal.take(), &signals)
            .map_err(|error| failure("wait for the process", &error)),
    }
}

/// Where the process is accounted.
struct Groups {
    own: Option<Group>,
    /// Groups below the container's, each for some controllers, or for all if there are none.
    below: Vec<(Vec<Controller>, Group)>,
}

impl Groups {
    fn of(request: &OciExec) -> Result<Self, Failure> {
        let Some(path) = &request.cgroup_path else {
            return Ok(Self {
                own: None,
                below: Vec::new(),
            });
        };
        let hierarchies = Hierarchies::detect().map_err(|error| group_failure(&error))?;
        let at = |path: &str| Group::at(&hierarchies, path).map_err(|error| group_failure(&error));
        let below = request
            .subgroups
            .iter()
            .map(|subgroup| Ok((controllers(subgroup)?, at(&subgroup.path)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Self {
            own: Some(at(path)?),
            below,
        })
    }

    /// Puts a process where it belongs: what no group below names is accounted to the container.
    fn join(&self, pid: u32) -> Result<(), gamut_cgroup::Error> {
        let mut named = Vec::new();
        for (controllers, group) in &self.below {
            if controllers.is_empty() {
                return group.add_process(pid);
            }
            group.add_process_by_controller(pid, controllers, false)?;
            named.extend_from_slice(controllers);
        }
        match &self.own {
            Some(own) => own.add_process_by_controller(pid, &named, true),
            None => Ok(()),
        }
    }
}

fn controllers(subgroup: &OciSubgroup) -> Result<Vec<Controller>, Failure> {
    subgroup
        .controllers
        .iter()
        .map(|name| {
            Controller::ALL
                .into_iter()
                .find(|controller| controller.name_v1() == name)
                .ok_or_else(|| Failure {
                    kind: FailureKind::Invalid,
                    message: format!("unknown controller {name} in --cgroup"),
                    errno: 0,
                })
        })
        .collect()
}

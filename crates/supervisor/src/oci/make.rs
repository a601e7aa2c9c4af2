//! Making a container, up to just before execve.

use super::{callers, debug, failure, inherited_stdio, passed_files, report, state};
use crate::server::{discard, group_failure, make_group};
use gamut_abi::control::{Failure, FailureKind};
use gamut_abi::oci::{GATE_FILE, OciLaunch};
use gamut_abi::plan::Plan;
use gamut_cgroup::{Group, Hierarchies};
use gamut_container::{CreateOptions, Created, Gate, run_hooks};
use std::os::fd::AsFd;

/// A container that waits for its start, and its control group.
pub(super) struct Made {
    pub(super) created: Created,
    pub(super) group: Option<Group>,
}

/// Makes a container and leaves it waiting at its gate.
pub(super) fn create(launch: &OciLaunch) -> Result<(), Failure> {
    let made = Gate::make(&launch.state_directory, GATE_FILE)
        .map_err(Failure::from)
        .and_then(|gate| {
            make(
                launch,
                CreateOptions {
                    die_with_parent: false,
                    gate: Some(&gate),
                    ..CreateOptions::default()
                },
            )
        });
    match made {
        Ok(made) => {
            let _pid = made.created.detach();
            Ok(())
        }
        Err(failure) => {
            forget(launch);
            Err(failure)
        }
    }
}

/// Makes the container. On failure nothing is left but the state directory.
pub(super) fn make(launch: &OciLaunch, options: CreateOptions<'_>) -> Result<Made, Failure> {
    let extra_files = passed_files(launch.extra_files);
    let options = CreateOptions {
        extra_files: &extra_files,
        ..options
    };
    let mut warnings = Vec::new();
    check_group(&launch.plan)?;
    let group = make_group(&launch.plan, &mut warnings)?.map(|(_, group)| group);
    debug::set_up(&launch.callers, &launch.plan);
    let made = inherited_stdio()
        .and_then(|stdio| {
            gamut_container::create(&launch.plan, &[], stdio, group.as_ref(), options)
                .map_err(Failure::from)
        })
        .and_then(|created| match hand_over(launch, &created) {
            Ok(()) => Ok(created),
            Err(failure) => {
                created.abort();
                Err(failure)
            }
        });
    match made {
        Ok(created) => {
            warnings.extend_from_slice(&created.warnings);
            for warning in warnings {
                report::warning(&launch.callers, &warning);
            }
            debug::made(&launch.callers, created.pid);
            Ok(Made { created, group })
        }
        Err(failure) => {
            if let Some(group) = &group {
                discard(group);
            }
            Err(failure)
        }
    }
}

/// A control group that is somebody else's is not shared: limits and `delete` would reach both.
fn check_group(plan: &Plan) -> Result<(), Failure> {
    let Some(cgroup) = &plan.cgroup else {
        return Ok(());
    };
    let hierarchies = Hierarchies::detect().map_err(|error| group_failure(&error))?;
    let group = Group::at(&hierarchies, &cgroup.path).map_err(|error| group_failure(&error))?;
    if !group.exists() {
        return Ok(());
    }
    let refuse = |problem: String| {
        Err(Failure {
            kind: FailureKind::State,
            message: format!(
                "{problem}: {}; choose another linux.cgroupsPath",
                cgroup.path
            ),
            errno: 0,
        })
    };
    let processes = group.processes().map_err(|error| group_failure(&error))?;
    if !processes.is_empty() {
        let count = processes.len();
        return refuse(format!(
            "container's cgroup is not empty: {count} process(es) found"
        ));
    }
    if group.is_frozen().map_err(|error| group_failure(&error))? {
        return refuse("container's cgroup unexpectedly frozen".to_owned());
    }
    Ok(())
}

fn hand_over(launch: &OciLaunch, created: &Created) -> Result<(), Failure> {
    if let Some(id) = created.root_mount() {
        let place = &launch.plan.root.mount_point;
        state::write_root_mount(&launch.state_directory, id, place)
            .map_err(|error| failure("write which mount is the root", &error))?;
    }
    state::write_pid(&launch.state_directory, created.pid)
        .map_err(|error| failure("write the process id", &error))?;
    callers::tell(
        &launch.callers,
        created.pid,
        created.pidfd.as_fd(),
        created.terminal.as_ref().map(AsFd::as_fd),
    )
}

/// Removes the state directory of a container that is no more, and runs the hooks that come
/// last.
pub(super) fn forget(launch: &OciLaunch) {
    let directory = std::path::Path::new(&launch.state_directory);
    if let Err(error) = super::remove_state_directory(directory) {
        let message = format!("remove {}: {error}", launch.state_directory);
        report::warning(&launch.callers, &message);
    }
    let Some(hooks) = &launch.plan.hooks else {
        return;
    };
    let state = hooks.state("stopped", 0);
    for hook in &hooks.poststop {
        // One that fails does not keep the others from running (runtime.md, "Lifecycle").
        let hook = std::slice::from_ref(hook);
        if let Err(error) = run_hooks(hook, "poststop", &state, &hooks.bundle) {
            report::warning(&launch.callers, &error.message);
        }
    }
}

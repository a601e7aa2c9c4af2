//! What an ordinary user's engine cannot do as it was asked, said before it is too late.

use super::spec::{ContainerSpec, NetworkMode, ResourceSpec};
use crate::options::Options;

/// Warnings for the one who creates a container.
pub(super) fn warnings(spec: &ContainerSpec, options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    for (limit, controller) in asked(&spec.resources) {
        if let Some(reason) = missing(controller, options) {
            warnings.push(format!("{limit} is discarded: {reason}"));
        }
    }
    if options.rootless.is_some() && spec.network == NetworkMode::Host {
        warnings.push(
            "The network \"host\" is that of the rootless engine, not the machine's: nothing outside reaches its ports; publish them instead"
                .to_owned(),
        );
    }
    warnings
}

/// Why a controller is not to be had; `None` if it is.
fn missing(controller: &str, options: &Options) -> Option<String> {
    if let Some(reason) = &options.without_groups {
        return Some(reason.clone());
    }
    let controllers = options.controllers.as_ref()?;
    let is_there = controllers.iter().any(|one| one == controller);
    (!is_there).then(|| {
        format!(
            "the controller {controller} is not delegated to this user; let root add it to Delegate= of user@.service"
        )
    })
}

/// The flags by which limits were asked for, and the controllers that they need.
fn asked(resources: &ResourceSpec) -> Vec<(&'static str, &'static str)> {
    let ResourceSpec {
        cpu_shares,
        nano_cpus,
        cpu_period_us,
        cpu_quota_us,
        cpu_realtime_period_us,
        cpu_realtime_runtime_us,
        cpuset_cpus,
        cpuset_mems,
        memory_bytes,
        memory_reservation_bytes,
        memory_swap_bytes,
        memory_swappiness,
        oom_kill_disable,
        pids_limit,
        blkio_weight,
        blkio_devices,
    } = resources;
    let flags = [
        (
            memory_bytes.is_some(),
            ("The memory limit (--memory)", "memory"),
        ),
        (
            memory_swap_bytes.is_some(),
            ("The swap limit (--memory-swap)", "memory"),
        ),
        (
            memory_reservation_bytes.is_some(),
            ("The memory reservation (--memory-reservation)", "memory"),
        ),
        (
            memory_swappiness.is_some(),
            ("The swappiness (--memory-swappiness)", "memory"),
        ),
        (*oom_kill_disable, ("--oom-kill-disable", "memory")),
        (
            nano_cpus.is_some() || cpu_period_us.is_some() || cpu_quota_us.is_some(),
            (
                "The processor limit (--cpus, --cpu-period, --cpu-quota)",
                "cpu",
            ),
        ),
        (
            cpu_realtime_period_us.is_some() || cpu_realtime_runtime_us.is_some(),
            (
                "The real-time limit (--cpu-rt-period, --cpu-rt-runtime)",
                "cpu",
            ),
        ),
        (
            cpu_shares.is_some(),
            ("The processor weight (--cpu-shares)", "cpu"),
        ),
        (
            cpuset_cpus.is_some() || cpuset_mems.is_some(),
            (
                "The choice of processors (--cpuset-cpus, --cpuset-mems)",
                "cpuset",
            ),
        ),
        (
            pids_limit.is_some_and(|limit| limit > 0),
            ("The limit of processes (--pids-limit)", "pids"),
        ),
        (
            blkio_weight.is_some() || !blkio_devices.is_empty(),
            (
                "The limit of block I/O (--blkio-weight, --device-read-bps and the like)",
                "io",
            ),
        ),
    ];
    flags
        .into_iter()
        .filter_map(|(asked, flag)| asked.then_some(flag))
        .collect()
}

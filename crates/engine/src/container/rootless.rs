//! What an ordinary user's engine cannot do as it was asked, said before it is too late.

use super::spec::{ContainerSpec, NetworkMode, ResourceSpec};
use crate::options::Options;

/// Warnings for the one who creates a container.
pub(super) fn warnings(spec: &ContainerSpec, options: &Options) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(reason) = &options.without_groups {
        warnings.extend(
            asked(&spec.resources)
                .into_iter()
                .map(|limit| format!("{limit} is discarded: {reason}")),
        );
    }
    if options.rootless.is_some() && spec.network == NetworkMode::Host {
        warnings.push(
            "The network \"host\" is that of the rootless engine, not the machine's: nothing outside reaches its ports; publish them instead"
                .to_owned(),
        );
    }
    warnings
}

/// The flags by which limits were asked for.
fn asked(resources: &ResourceSpec) -> Vec<&'static str> {
    let ResourceSpec {
        cpu_shares,
        nano_cpus,
        cpu_period_us,
        cpu_quota_us,
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
        (memory_bytes.is_some(), "The memory limit (--memory)"),
        (
            memory_swap_bytes.is_some(),
            "The swap limit (--memory-swap)",
        ),
        (
            memory_reservation_bytes.is_some(),
            "The memory reservation (--memory-reservation)",
        ),
        (
            memory_swappiness.is_some(),
            "The swappiness (--memory-swappiness)",
        ),
        (*oom_kill_disable, "--oom-kill-disable"),
        (
            nano_cpus.is_some() || cpu_period_us.is_some() || cpu_quota_us.is_some(),
            "The processor limit (--cpus, --cpu-period, --cpu-quota)",
        ),
        (cpu_shares.is_some(), "The processor weight (--cpu-shares)"),
        (
            cpuset_cpus.is_some() || cpuset_mems.is_some(),
            "The choice of processors (--cpuset-cpus, --cpuset-mems)",
        ),
        (
            pids_limit.is_some_and(|limit| limit > 0),
            "The limit of processes (--pids-limit)",
        ),
        (
            blkio_weight.is_some() || !blkio_devices.is_empty(),
            "The limit of block I/O (--blkio-weight, --device-read-bps and the like)",
        ),
    ];
    flags
        .into_iter()
        .filter_map(|(asked, flag)| asked.then_some(flag))
        .collect()
}

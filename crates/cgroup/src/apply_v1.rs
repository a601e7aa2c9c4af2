//! Limits in the files of cgroup v1.

use crate::apply::Apply;
use crate::convert::weight_to_shares;
use crate::error::Error;
use crate::hierarchy::Hierarchy;
use crate::memory_v1;
use gamut_abi::resources::{Cpu, HugetlbLimit, Io, IoDevice, Limit, Memory};

/// A limit with v1's `-1` for none.
pub(crate) fn limit(limit: Limit) -> String {
    match limit {
        Limit::Max => String::from("-1"),
        Limit::Value(value) => value.to_string(),
    }
}

pub(crate) fn cpu(apply: &mut Apply<'_>, hierarchy: &Hierarchy, cpu: &Cpu) -> Result<(), Error> {
    if let Some(idle) = cpu.idle {
        apply.set(hierarchy, "cpu.idle", &idle.to_string(), "cpu.idle")?;
    }
    if let Some(shares) = cpu.weight.map(weight_to_shares).or(cpu.shares) {
        apply.set(
            hierarchy,
            "cpu.shares",
            &shares.to_string(),
            "the processor weight",
        )?;
    }
    bandwidth(apply, hierarchy, cpu)?;
    realtime(apply, hierarchy, cpu);
    Ok(())
}

/// Quota, period and burst. The kernel checks the ratio of quota to period against the parent
/// and the burst against the quota after each write, so the order depends on the direction.
fn bandwidth(apply: &mut Apply<'_>, hierarchy: &Hierarchy, cpu: &Cpu) -> Result<(), Error> {
    let what = "the processor quota";
    let period = cpu.period_us.map(|value| value.to_string());
    let quota = cpu.quota_us.map(limit);
    let burst = cpu.burst_us.map(|value| value.to_string());
    if let Some(burst) = &burst {
        // Too early to raise it if the quota is still small; then it is set below.
        let _ = apply.group.try_write(hierarchy, "cpu.cfs_burst_us", burst);
    }
    let mut period_is_set = false;
    if let Some(period) = &period {
        let written = apply
            .group
            .try_write(hierarchy, "cpu.cfs_period_us", period);
        period_is_set = written.is_ok();
    }
    if let Some(quota) = &quota {
        apply.set(hierarchy, "cpu.cfs_quota_us", quota, what)?;
    }
    if let (Some(period), false) = (&period, period_is_set) {
        apply.set(
            hierarchy,
            "cpu.cfs_period_us",
            period,
            "the processor period",
        )?;
    }
    if let Some(burst) = &burst {
        apply.set(hierarchy, "cpu.cfs_burst_us", burst, "the processor burst")?;
    }
    Ok(())
}

/// Real-time budgets depend on what the parents have to give, which is nothing on most machines:
/// a refusal is a warning. The kernel checks their ratio after each write, against one and the
/// parent's, so the order depends on the direction.
fn realtime(apply: &mut Apply<'_>, hierarchy: &Hierarchy, cpu: &Cpu) {
    const PERIOD: &str = "cpu.rt_period_us";
    const RUNTIME: &str = "cpu.rt_runtime_us";
    let period = cpu.realtime_period_us.map(|value| value.to_string());
    let runtime = cpu.realtime_runtime_us.map(|value| value.to_string());
    let mut rest = vec![(PERIOD, &period), (RUNTIME, &runtime)];
    if let (Some(period), Some(_)) = (&period, &runtime) {
        if apply.group.try_write(hierarchy, PERIOD, period).is_ok() {
            rest.remove(0);
        } else {
            rest.reverse();
        }
    }
    for (file, value) in rest {
        let Some(value) = value else { continue };
        if let Err(error) = apply.group.write(hierarchy, file, value) {
            apply.warn("the real-time budget", &error.to_string());
        }
    }
}

pub(crate) fn memory(
    apply: &mut Apply<'_>,
    hierarchy: &Hierarchy,
    memory: &Memory,
) -> Result<(), Error> {
    if memory.oom_kill_disable {
        // Before the limit, so that there is no moment in which it kills.
        apply.set(
            hierarchy,
            "memory.oom_control",
            "1",
            "disabling the OOM killer",
        )?;
    }
    memory_v1::limits(apply, hierarchy, memory)?;
    if let Some(reservation) = memory.reservation_bytes {
        let value = limit(reservation);
        apply.set(
            hierarchy,
            "memory.soft_limit_in_bytes",
            &value,
            "the memory reservation",
        )?;
    }
    if let Some(swappiness) = memory.swappiness {
        let value = swappiness.to_string();
        apply.set(hierarchy, "memory.swappiness", &value, "the swappiness")?;
    }
    if let Some(tcp) = memory.tcp_max_bytes {
        let value = limit(tcp);
        apply.set(
            hierarchy,
            "memory.kmem.tcp.limit_in_bytes",
            &value,
            "the limit of TCP buffers",
        )?;
    }
    if memory.high_bytes.is_some() {
        apply.warn("memory.high", "cgroup v1 has no counterpart of it");
    }
    Ok(())
}

pub(crate) fn io(apply: &mut Apply<'_>, hierarchy: &Hierarchy, io: &Io) -> Result<(), Error> {
    let what = "the block I/O weight";
    if let Some(weight) = io.weight {
        let value = weight.to_string();
        let files = [
            ("blkio.weight", value.as_str()),
            ("blkio.bfq.weight", value.as_str()),
        ];
        apply.set_first(hierarchy, &files, what)?;
    }
    for device in &io.devices {
        if let Some(weight) = device.weight {
            let value = with_device(device, u64::from(weight));
            let files = [
                ("blkio.weight_device", value.as_str()),
                ("blkio.bfq.weight_device", value.as_str()),
            ];
            apply.set_first(hierarchy, &files, what)?;
        }
        let limits = [
            (
                "blkio.throttle.read_bps_device",
                device.read_bytes_per_second,
            ),
            (
                "blkio.throttle.write_bps_device",
                device.write_bytes_per_second,
            ),
            (
                "blkio.throttle.read_iops_device",
                device.read_operations_per_second,
            ),
            (
                "blkio.throttle.write_iops_device",
                device.write_operations_per_second,
            ),
        ];
        for (file, limit) in limits {
            if let Some(limit) = limit {
                let value = with_device(device, limit);
                apply.set(hierarchy, file, &value, "the block I/O limit")?;
            }
        }
    }
    Ok(())
}

fn with_device(device: &IoDevice, value: u64) -> String {
    let mut text = device_name(device);
    text.push(' ');
    text.push_str(&value.to_string());
    text
}

/// `MAJOR:MINOR`.
pub(crate) fn device_name(device: &IoDevice) -> String {
    let mut text = device.major.to_string();
    text.push(':');
    text.push_str(&device.minor.to_string());
    text
}

pub(crate) fn hugetlb(
    apply: &mut Apply<'_>,
    hierarchy: &Hierarchy,
    entry: &HugetlbLimit,
) -> Result<(), Error> {
    let file = hugetlb_file(&entry.page_size, "limit_in_bytes");
    let value = entry.limit_bytes.to_string();
    apply.set(hierarchy, &file, &value, "the huge page limit")
}

/// `hugetlb.SIZE.NAME`.
pub(crate) fn hugetlb_file(page_size: &str, name: &str) -> String {
    ["hugetlb", page_size, name].join(".")
}

//! Limits in the files of cgroup v2.

use crate::apply::Apply;
use crate::apply_v1::{device_name, hugetlb_file};
use crate::convert::{blkio_to_io_weight, shares_to_weight};
use crate::error::Error;
use crate::hierarchy::Hierarchy;
use gamut_abi::resources::{Cpu, HugetlbLimit, Io, IoDevice, Limit, Memory};

/// A limit with the word `max` for none.
pub(crate) fn limit(limit: Limit) -> String {
    match limit {
        Limit::Max => String::from("max"),
        Limit::Value(value) => value.to_string(),
    }
}

pub(crate) fn cpu(apply: &mut Apply<'_>, hierarchy: &Hierarchy, cpu: &Cpu) -> Result<(), Error> {
    if let Some(idle) = cpu.idle {
        apply.set(hierarchy, "cpu.idle", &idle.to_string(), "cpu.idle")?;
    }
    if let Some(weight) = cpu.weight.or(cpu.shares.map(shares_to_weight)) {
        let value = weight.to_string();
        apply.set(hierarchy, "cpu.weight", &value, "the processor weight")?;
    }
    bandwidth(apply, hierarchy, cpu)?;
    if cpu.realtime_runtime_us.is_some() || cpu.realtime_period_us.is_some() {
        apply.warn("the real-time budget", "cgroup v2 has no counterpart of it");
    }
    Ok(())
}

/// The kernel demands that the burst is not above the quota, so a lower burst goes first and a
/// higher one last.
fn bandwidth(apply: &mut Apply<'_>, hierarchy: &Hierarchy, cpu: &Cpu) -> Result<(), Error> {
    let burst = cpu.burst_us.map(|value| value.to_string());
    if let Some(burst) = &burst {
        let _ = apply.group.try_write(hierarchy, "cpu.max.burst", burst);
    }
    if cpu.quota_us.is_some() || cpu.period_us.is_some() {
        let mut value = match cpu.quota_us {
            Some(quota) => limit(quota),
            None => current_quota(apply, hierarchy),
        };
        if let Some(period) = cpu.period_us {
            value.push(' ');
            value.push_str(&period.to_string());
        }
        apply.set(hierarchy, "cpu.max", &value, "the processor quota")?;
    }
    if let Some(burst) = &burst {
        apply.set(hierarchy, "cpu.max.burst", burst, "the processor burst")?;
    }
    Ok(())
}

/// The period cannot be written without a quota.
fn current_quota(apply: &Apply<'_>, hierarchy: &Hierarchy) -> String {
    apply
        .group
        .try_read(hierarchy, "cpu.max")
        .ok()
        .and_then(|text| {
            let text = String::from_utf8(text).ok()?;
            Some(text.split_ascii_whitespace().next()?.to_owned())
        })
        .unwrap_or_else(|| String::from("max"))
}

pub(crate) fn memory(
    apply: &mut Apply<'_>,
    hierarchy: &Hierarchy,
    memory: &Memory,
) -> Result<(), Error> {
    let files = [
        ("memory.swap.max", memory.swap_max_bytes, "the swap limit"),
        ("memory.max", memory.max_bytes, "the memory limit"),
        ("memory.high", memory.high_bytes, "memory.high"),
        (
            "memory.low",
            memory.reservation_bytes,
            "the memory reservation",
        ),
    ];
    for (file, wanted, what) in files {
        if let Some(wanted) = wanted {
            apply.set(hierarchy, file, &limit(wanted), what)?;
        }
    }
    if memory.swappiness.is_some() {
        apply.warn("the swappiness", "cgroup v2 has no counterpart of it");
    }
    if memory.tcp_max_bytes.is_some() {
        apply.warn(
            "the limit of TCP buffers",
            "cgroup v2 counts them with the rest of the memory",
        );
    }
    if memory.oom_kill_disable {
        apply.warn(
            "disabling the OOM killer",
            "cgroup v2 has no counterpart of it",
        );
    }
    Ok(())
}

pub(crate) fn io(apply: &mut Apply<'_>, hierarchy: &Hierarchy, io: &Io) -> Result<(), Error> {
    if let Some(weight) = io.weight {
        set_weight(apply, hierarchy, "default", weight)?;
    }
    for device in &io.devices {
        if let Some(weight) = device.weight {
            set_weight(apply, hierarchy, &device_name(device), weight)?;
        }
        if let Some(value) = io_max(device) {
            apply.set(hierarchy, "io.max", &value, "the block I/O limit")?;
        }
    }
    Ok(())
}

/// BFQ has a file of its own in blkio's scale; `io.weight` belongs to the iocost controller.
fn set_weight(
    apply: &mut Apply<'_>,
    hierarchy: &Hierarchy,
    whom: &str,
    weight: u16,
) -> Result<(), Error> {
    let bfq = [whom, &weight.to_string()].join(" ");
    let iocost = [whom, &blkio_to_io_weight(weight).to_string()].join(" ");
    let files = [
        ("io.bfq.weight", bfq.as_str()),
        ("io.weight", iocost.as_str()),
    ];
    apply.set_first(hierarchy, &files, "the block I/O weight")
}

/// A line of `io.max`; 0 lifts a limit, as in v1. `None` if nothing is set.
fn io_max(device: &IoDevice) -> Option<String> {
    let keys = [
        ("rbps", device.read_bytes_per_second),
        ("wbps", device.write_bytes_per_second),
        ("riops", device.read_operations_per_second),
        ("wiops", device.write_operations_per_second),
    ];
    let mut line = device_name(device);
    let mut any = false;
    for (key, value) in keys {
        let Some(value) = value else { continue };
        any = true;
        line.push(' ');
        line.push_str(key);
        line.push('=');
        line.push_str(&if value == 0 {
            String::from("max")
        } else {
            value.to_string()
        });
    }
    any.then_some(line)
}

pub(crate) fn hugetlb(
    apply: &mut Apply<'_>,
    hierarchy: &Hierarchy,
    entry: &HugetlbLimit,
) -> Result<(), Error> {
    let value = entry.limit_bytes.to_string();
    let file = hugetlb_file(&entry.page_size, "max");
    apply.set(hierarchy, &file, &value, "the huge page limit")?;
    // Reservations are limited too where the kernel can (since 5.7), as runc and crun do.
    let reserved = hugetlb_file(&entry.page_size, "rsvd.max");
    match apply.group.try_write(hierarchy, &reserved, &value) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
            Err(apply.group.write_error(hierarchy, &reserved, &value, error))
        }
        _ => Ok(()),
    }
}

//! Limits of the control group in OCI's terms.

use super::super::spec::ResourceSpec;
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Limits of the control group as OCI has them.
pub(super) fn resources(limits: &ResourceSpec, device_rules: Vec<Value>) -> Result<Value> {
    let mut value = resource_limits(limits)?;
    value["devices"] = Value::Array(device_rules);
    Ok(value)
}

/// Limits without device rules, for updates too.
///
/// # Errors
/// If limits contradict each other.
pub fn resource_limits(limits: &ResourceSpec) -> Result<Value> {
    let mut cpu = json!({});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu[key] = value;
        }
    };
    if limits.nano_cpus.is_some()
        && (limits.cpu_period_us.is_some() || limits.cpu_quota_us.is_some())
    {
        return Err(Error::invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set.",
        ));
    }
    set("shares", limits.cpu_shares.map(|value| json!(value)));
    set("period", limits.cpu_period_us.map(|value| json!(value)));
    set("quota", limits.cpu_quota_us.map(|value| json!(value)));
    set(
        "cpus",
        limits.cpuset_cpus.as_ref().map(|value| json!(value)),
    );
    set(
        "mems",
        limits.cpuset_mems.as_ref().map(|value| json!(value)),
    );
    if let Some(nano_cpus) = limits.nano_cpus {
        set("period", Some(json!(100_000)));
        set("quota", Some(json!(nano_cpus / 10_000)));
    }
    let realtime = (
        limits.cpu_realtime_period_us,
        limits.cpu_realtime_runtime_us,
    );
    if let (Some(period), Some(runtime)) = realtime
        && runtime > period
    {
        return Err(Error::invalid(
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    set("realtimePeriod", realtime.0.map(|value| json!(value)));
    set("realtimeRuntime", realtime.1.map(|value| json!(value)));
    let mut memory = json!({});
    if let Some(limit) = limits.memory_bytes {
        if limit < 6 << 20 {
            return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
        }
        memory["limit"] = json!(limit);
        // Docker's rule: without a word on swap, as much swap as memory.
        let swap = limits
            .memory_swap_bytes
            .unwrap_or_else(|| i64::try_from(limit.saturating_mul(2)).unwrap_or(i64::MAX));
        if swap >= 0 && u64::try_from(swap).is_ok_and(|swap| swap < limit) {
            return Err(Error::invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ));
        }
        memory["swap"] = json!(swap);
    } else if limits.memory_swap_bytes.is_some_and(|swap| swap > 0) {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if let Some(reservation) = limits.memory_reservation_bytes {
        if limits.memory_bytes.is_some_and(|limit| reservation > limit) {
            return Err(Error::invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ));
        }
        memory["reservation"] = json!(reservation);
    }
    if let Some(swappiness) = limits.memory_swappiness {
        memory["swappiness"] = json!(swappiness);
    }
    if limits.oom_kill_disable {
        memory["disableOOMKiller"] = json!(true);
    }
    let mut value = json!({"cpu": cpu, "memory": memory});
    if let Some(limit) = limits.pids_limit {
        value["pids"] = json!({"limit": if limit <= 0 { -1 } else { limit }});
    }
    value["blockIO"] = block_io(limits)?;
    Ok(value)
}

fn block_io(limits: &ResourceSpec) -> Result<Value> {
    let mut value = json!({});
    if let Some(weight) = limits.blkio_weight {
        value["weight"] = json!(weight);
    }
    for device in &limits.blkio_devices {
        let metadata = std::fs::metadata(&device.path).map_err(|source| {
            Error::system(
                format!("gathering device information for {}", device.path),
                source,
            )
        })?;
        if !metadata.file_type().is_block_device() {
            return Err(Error::invalid(format!(
                "{}: not a block device",
                device.path
            )));
        }
        let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
        let mut push = |key: &str, field: &str, number: Option<Value>| {
            if let Some(number) = number {
                if value[key].is_null() {
                    value[key] = json!([]);
                }
                if let Some(list) = value[key].as_array_mut() {
                    list.push(json!({"major": major, "minor": minor, field: number}));
                }
            }
        };
        push("weightDevice", "weight", device.weight.map(|n| json!(n)));
        push(
            "throttleReadBpsDevice",
            "rate",
            device.read_bytes_per_second.map(|n| json!(n)),
        );
        push(
            "throttleWriteBpsDevice",
            "rate",
            device.write_bytes_per_second.map(|n| json!(n)),
        );
        push(
            "throttleReadIOPSDevice",
            "rate",
            device.read_operations_per_second.map(|n| json!(n)),
        );
        push(
            "throttleWriteIOPSDevice",
            "rate",
            device.write_operations_per_second.map(|n| json!(n)),
        );
    }
    Ok(value)
}

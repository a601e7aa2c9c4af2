//! `events`: what a container uses, one JSON object a line, in the form of runc's.

use crate::arguments::Events;
use crate::error::Error;
use crate::lifecycle::group_of;
use crate::print;
use crate::process::Process;
use crate::state::{Root, Status};
use gamut_abi::resources::Limit;
use gamut_cgroup::{Group, HugetlbStats, IoStats, MemoryStats, Stats};
use serde_json::{Map, Value, json};

/// How often the container is looked at for want of memory, at least, in milliseconds.
const LOOK_MS: u64 = 100;

/// Shows what the container uses: once, or again and again until it ends.
///
/// # Errors
/// If it does not run or has no control group.
pub fn events(root: &Root<'_>, options: &Events) -> Result<(), Error> {
    let container = root.find(&options.id)?;
    let (Some(process), false) = (&container.process, container.status == Status::Stopped) else {
        return Err(container.refuses(
            "show events of",
            format!("container with id {} is not running", options.id),
        ));
    };
    let group = group_of(&container, "show events of")?;
    if options.once {
        return tell(&options.id, &group.stats()?);
    }
    follow(options, process, &group)
}

fn follow(options: &Events, process: &Process, group: &Group) -> Result<(), Error> {
    let mut kills = group.stats()?.memory.oom_kills;
    let mut left_ms = options.interval_ms;
    loop {
        let look_ms = left_ms.min(LOOK_MS);
        let ended = process.wait(i32::try_from(look_ms).unwrap_or(i32::MAX));
        // A group that is gone says nothing any more.
        let Ok(stats) = group.stats() else {
            return Ok(());
        };
        if stats.memory.oom_kills > kills {
            kills = stats.memory.oom_kills;
            let id = json!(options.id);
            print(&format!("{{\"type\":\"oom\",\"id\":{id}}}\n"))?;
        }
        if ended {
            return Ok(());
        }
        left_ms -= look_ms;
        if left_ms == 0 {
            left_ms = options.interval_ms;
            tell(&options.id, &stats)?;
        }
    }
}

fn tell(id: &str, stats: &Stats) -> Result<(), Error> {
    // In the order that readers of lines expect.
    let (id, data) = (json!(id), data(stats));
    print(&format!(
        "{{\"type\":\"stats\",\"id\":{id},\"data\":{data}}}\n"
    ))
}

fn data(stats: &Stats) -> Value {
    let cpu = &stats.cpu;
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns,
                "percpu": cpu.per_cpu_ns,
                "kernel": cpu.system_ns,
                "user": cpu.user_ns,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": memory(&stats.memory),
        "pids": {
            "current": stats.pids.current,
            "limit": bounded(stats.pids.limit).unwrap_or(0),
        },
        "blkio": block_io(&stats.io),
        "hugetlb": hugetlb(&stats.hugetlb),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn bounded(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Value(value) => Some(value),
        Limit::Max => None,
    }
}

fn memory(memory: &MemoryStats) -> Value {
    let raw: Map<String, Value> = memory
        .details
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "cache": memory.cache_bytes,
        "usage": {
            "limit": bounded(memory.limit_bytes).unwrap_or(u64::MAX),
            "usage": memory.usage_bytes,
            "max": memory.max_usage_bytes,
            "failcnt": memory.limit_failures,
        },
        "swap": {"limit": 0, "usage": memory.swap_bytes, "failcnt": 0},
        "kernel": {"limit": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "failcnt": 0},
        "raw": raw,
    })
}

fn block_io(devices: &[IoStats]) -> Value {
    let entries = |values: fn(&IoStats) -> [(&'static str, u64); 3]| -> Vec<Value> {
        devices
            .iter()
            .flat_map(|device| {
                values(device).map(|(operation, value)| {
                    json!({
                        "major": device.major,
                        "minor": device.minor,
                        "op": operation,
                        "value": value,
                    })
                })
            })
            .collect()
    };
    json!({
        "ioServiceBytesRecursive": entries(|device| [
            ("Read", device.read_bytes),
            ("Write", device.write_bytes),
            ("Discard", device.discard_bytes),
        ]),
        "ioServicedRecursive": entries(|device| [
            ("Read", device.read_operations),
            ("Write", device.write_operations),
            ("Discard", device.discard_operations),
        ]),
    })
}

fn hugetlb(sizes: &[HugetlbStats]) -> Value {
    let entries: Map<String, Value> = sizes
        .iter()
        .map(|size| {
            let value = json!({
                "usage": size.usage_bytes,
                "max": size.max_usage_bytes,
                "failcnt": size.limit_failures,
            });
            (size.page_size.clone(), value)
        })
        .collect();
    Value::Object(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_is_a_whole_object() {
        let data = data(&Stats::default());
        assert_eq!(data["cpu"]["usage"]["total"], 0);
        assert_eq!(data["pids"]["limit"], 0);
        assert_eq!(data["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(data["hugetlb"], json!({}));
    }
}

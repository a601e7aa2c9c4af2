//! Limits in the words of systemd (systemd.resource-control(5)), so that it does not undo them when
//! it writes its own view of a unit.

use super::wire::Value;
use crate::convert::{blkio_to_io_weight, shares_to_weight};
use gamut_abi::resources::{Limit, Resources};

/// A property of a unit.
pub(crate) type Property = (&'static str, Value);

/// Microseconds of a second.
const SECOND_US: u64 = 1_000_000;

/// systemd counts the quota in steps of this many microseconds per second.
const QUOTA_STEP_US: u64 = 10_000;

fn number(limit: Limit) -> Value {
    Value::Number(match limit {
        Limit::Max => u64::MAX,
        Limit::Value(value) => value,
    })
}

/// The properties that say what `resources` say, on cgroup v2.
pub(crate) fn properties(resources: &Resources) -> Vec<Property> {
    let mut list: Vec<Property> = Vec::new();
    let cpu = &resources.cpu;
    if let Some(weight) = cpu.weight.or(cpu.shares.map(shares_to_weight)) {
        list.push(("CPUWeight", Value::Number(u64::from(weight))));
    }
    if let Some(period) = cpu.period_us {
        list.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if let Some(quota) = cpu.quota_us {
        let per_second = match quota {
            Limit::Max => u64::MAX,
            Limit::Value(quota) => (quota.saturating_mul(SECOND_US)
                / cpu.period_us.unwrap_or(100_000).max(1))
            .next_multiple_of(QUOTA_STEP_US),
        };
        list.push(("CPUQuotaPerSecUSec", Value::Number(per_second)));
    }
    for (name, processors) in [
        ("AllowedCPUs", &cpu.cpuset_cpus),
        ("AllowedMemoryNodes", &cpu.cpuset_mems),
    ] {
        if let Some(mask) = processors.as_deref().and_then(mask) {
            list.push((name, Value::Bytes(mask)));
        }
    }
    let memory = &resources.memory;
    for (name, limit) in [
        ("MemoryMax", memory.max_bytes),
        ("MemoryHigh", memory.high_bytes),
        ("MemoryLow", memory.reservation_bytes),
        ("MemorySwapMax", memory.swap_max_bytes),
        ("TasksMax", resources.pids_max),
    ] {
        list.extend(limit.map(|limit| (name, number(limit))));
    }
    if let Some(weight) = resources.io.weight {
        let weight = u64::from(blkio_to_io_weight(weight));
        list.push(("IOWeight", Value::Number(weight)));
    }
    list
}

/// A list such as `0-2,4` as a bit mask, lowest byte first; `None` if it is no such list.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    for range in list
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last > 8191 {
            return None;
        }
        for number in first..=last {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0);
            }
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_properties() {
        let mut resources = Resources::default();
        assert_eq!(properties(&resources), []);
        resources.cpu.shares = Some(2048);
        resources.cpu.quota_us = Some(Limit::Value(12_345));
        resources.cpu.period_us = Some(50_000);
        resources.cpu.cpuset_cpus = Some("0-1,9".into());
        resources.memory.max_bytes = Some(Limit::Value(1 << 20));
        resources.memory.swap_max_bytes = Some(Limit::Max);
        resources.pids_max = Some(Limit::Value(7));
        resources.io.weight = Some(10);
        assert_eq!(
            properties(&resources),
            [
                ("CPUWeight", Value::Number(200)),
                ("CPUQuotaPeriodUSec", Value::Number(50_000)),
                ("CPUQuotaPerSecUSec", Value::Number(250_000)),
                ("AllowedCPUs", Value::Bytes(vec![3, 2])),
                ("MemoryMax", Value::Number(1 << 20)),
                ("MemorySwapMax", Value::Number(u64::MAX)),
                ("TasksMax", Value::Number(7)),
                ("IOWeight", Value::Number(1)),
            ]
        );
    }
}

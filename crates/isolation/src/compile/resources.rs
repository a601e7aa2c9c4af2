//! `linux.resources`, translated into the vocabulary of control groups version 2.

use super::devices::{numbers, rules};
use super::field::{invalid, text};
use crate::error::Error;
use gamut_abi::resources::{Cpu, HugetlbLimit, Io, IoDevice, Limit, Memory, RdmaLimit, Resources};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma,
    LinuxResources, LinuxThrottleDevice,
};
use std::collections::HashMap;

/// Compiles limits that are to change on a running container. Device access stays as it is
/// unless rules are given.
///
/// # Errors
/// [`Error::Invalid`] naming the field, which begins with `linux.resources`.
pub fn resources(changes: &LinuxResources) -> Result<Resources, Error> {
    let mut warnings = Vec::new();
    let mut compiled = all_resources(Some(changes), &mut warnings)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if changes.devices().as_ref().is_none_or(Vec::is_empty) {
        compiled.devices.clear();
    }
    Ok(compiled)
}

/// Compiles the limits of a new container. Zero means "not set" wherever the OCI runtime-spec's peers read it so.
pub(super) fn all_resources(
    resources: Option<&LinuxResources>,
    warnings: &mut Vec<String>,
) -> Result<Resources, Error> {
    let Some(resources) = resources else {
        return Ok(Resources {
            devices: rules(None)?,
            ..Resources::default()
        });
    };
    let (network_class, network_priorities) = resources
        .network()
        .as_ref()
        .map(network)
        .transpose()?
        .unwrap_or_default();
    Ok(Resources {
        cpu: resources
            .cpu()
            .as_ref()
            .map(cpu)
            .transpose()?
            .unwrap_or_default(),
        memory: resources
            .memory()
            .as_ref()
            .map(|limits| memory(limits, warnings))
            .transpose()?
            .unwrap_or_default(),
        // Since the runtime specification 1.3 a limit that is there counts, 0 as well: no further
        // process. systemd cannot express that and the first one needs its place: 1 is the same.
        pids_max: resources
            .pids()
            .map(|pids| u64::try_from(pids.limit()).map_or(Limit::Max, |n| Limit::Value(n.max(1)))),
        io: resources
            .block_io()
            .as_ref()
            .map(|limits| io(limits, warnings))
            .transpose()?
            .unwrap_or_default(),
        hugetlb: hugetlb(resources.hugepage_limits().as_deref().unwrap_or_default())?,
        devices: rules(resources.devices().as_deref())?,
        unified: resources
            .unified()
            .as_ref()
            .map(unified)
            .transpose()?
            .unwrap_or_default(),
        rdma: resources
            .rdma()
            .as_ref()
            .map(rdma)
            .transpose()?
            .unwrap_or_default(),
        network_class,
        network_priorities,
    })
}

/// -1 is no limit, 0 not set, anything else below zero an error.
fn limit(field: &str, value: Option<i64>) -> Result<Option<Limit>, Error> {
    match value {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(Limit::Max)),
        Some(value) => match u64::try_from(value) {
            Ok(value) => Ok(Some(Limit::Value(value))),
            Err(_) => Err(invalid(
                field,
                format!("{value} makes no sense; use -1 for no limit"),
            )),
        },
    }
}

fn cpu(cpu: &LinuxCpu) -> Result<Cpu, Error> {
    let period_us = cpu.period().filter(|period| *period != 0);
    if period_us.is_some_and(|period| !(1_000..=1_000_000).contains(&period)) {
        return Err(invalid(
            "linux.resources.cpu.period",
            "is not between 1000 and 1000000 microseconds",
        ));
    }
    let shares = cpu.shares().filter(|shares| *shares != 0);
    let quota_us = match cpu.quota() {
        None | Some(0) => None,
        Some(quota) => Some(u64::try_from(quota).map_or(Limit::Max, Limit::Value)),
    };
    if matches!(quota_us, Some(Limit::Value(quota)) if quota < 1_000) {
        return Err(invalid(
            "linux.resources.cpu.quota",
            "is below 1000 microseconds",
        ));
    }
    Ok(Cpu {
        // The kernel clamps to this range as well.
        shares: shares.map(|shares| shares.clamp(2, 262_144)),
        weight: None,
        quota_us,
        period_us,
        burst_us: cpu.burst(),
        idle: cpu.idle(),
        realtime_runtime_us: cpu.realtime_runtime().filter(|runtime| *runtime != 0),
        realtime_period_us: cpu.realtime_period().filter(|period| *period != 0),
        cpuset_cpus: list("linux.resources.cpu.cpus", cpu.cpus().as_deref())?,
        cpuset_mems: list("linux.resources.cpu.mems", cpu.mems().as_deref())?,
    })
}

/// A list as `0-2,4` (cpuset(7), "List format"); empty is not set.
fn list(field: &str, value: Option<&str>) -> Result<Option<String>, Error> {
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let good = value.split(',').all(|range| {
        let mut ends = range.trim().splitn(2, '-').map(str::parse::<u32>);
        match (ends.next(), ends.next()) {
            (Some(Ok(_)), None) => true,
            (Some(Ok(first)), Some(Ok(last))) => first <= last,
            _ => false,
        }
    });
    if good {
        Ok(Some(value.split_whitespace().collect()))
    } else {
        Err(invalid(
            field,
            format!("{value:?} is not a list such as 0-2,4"),
        ))
    }
}

#[allow(
    deprecated,
    reason = "a limit that the kernel has dropped is worth a warning"
)]
fn memory(memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<Memory, Error> {
    if !matches!(memory.kernel(), None | Some(0 | -1)) {
        warnings.push(
            "linux.resources.memory.kernel: Linux no longer limits kernel memory apart; ignored"
                .to_owned(),
        );
    }
    if memory.use_hierarchy() == Some(false) {
        warnings.push(
            "linux.resources.memory.useHierarchy: Linux always accounts hierarchically; ignored"
                .to_owned(),
        );
    }
    if memory
        .swappiness()
        .is_some_and(|swappiness| swappiness > 100)
    {
        return Err(invalid(
            "linux.resources.memory.swappiness",
            "is not between 0 and 100",
        ));
    }
    let max_bytes = limit("linux.resources.memory.limit", memory.limit())?;
    let swap = limit("linux.resources.memory.swap", memory.swap())?;
    Ok(Memory {
        max_bytes,
        reservation_bytes: limit("linux.resources.memory.reservation", memory.reservation())?,
        high_bytes: None,
        swap_max_bytes: swap_alone(max_bytes, swap)?,
        swappiness: memory.swappiness(),
        oom_kill_disable: memory.disable_oom_killer().unwrap_or(false),
        tcp_max_bytes: limit("linux.resources.memory.kernelTCP", memory.kernel_tcp())?,
        check_before_update: memory.check_before_update().unwrap_or(false),
    })
}

/// OCI's `swap` is memory and swap together, version 2 counts swap alone.
fn swap_alone(memory: Option<Limit>, both: Option<Limit>) -> Result<Option<Limit>, Error> {
    let field = "linux.resources.memory.swap";
    match (memory, both) {
        // No limit on memory and nothing said about swap: none on swap either.
        (Some(Limit::Max), None) | (_, Some(Limit::Max)) => Ok(Some(Limit::Max)),
        (_, None) => Ok(None),
        (Some(Limit::Value(memory)), Some(Limit::Value(both))) => both
            .checked_sub(memory)
            .map(|swap| Some(Limit::Value(swap)))
            .ok_or_else(|| {
                invalid(
                    field,
                    format!(
                        "{both} is below memory.limit {memory}: it is the sum of memory and swap"
                    ),
                )
            }),
        (None | Some(Limit::Max), Some(Limit::Value(_))) => Err(invalid(
            field,
            "needs memory.limit as well: it is the sum of memory and swap",
        )),
    }
}

fn weight(field: &str, weight: Option<u16>) -> Result<Option<u16>, Error> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => Err(invalid(
            field,
            format!("{weight} is not between 10 and 1000"),
        )),
    }
}

/// Linux has had no weight of its own for a group's processes, beside the groups below it, since
/// 5.0.
fn warn_of_leaf_weight(field: &str, weight: Option<u16>, warnings: &mut Vec<String>) {
    if weight.unwrap_or(0) != 0 {
        warnings.push(format!(
            "{field}.leafWeight: Linux has none since 5.0; ignored"
        ));
    }
}

fn io(io: &LinuxBlockIo, warnings: &mut Vec<String>) -> Result<Io, Error> {
    let base = "linux.resources.blockIO";
    warn_of_leaf_weight(base, io.leaf_weight(), warnings);
    let mut devices: Vec<IoDevice> = Vec::new();
    for (index, device) in io.weight_device().iter().flatten().enumerate() {
        let entry = format!("{base}.weightDevice[{index}]");
        warn_of_leaf_weight(&entry, device.leaf_weight(), warnings);
        let value = weight(&format!("{entry}.weight"), device.weight())?;
        at(
            &mut devices,
            numbers(&entry, device.major(), device.minor())?,
        )
        .weight = value;
    }
    type Slot = fn(&mut IoDevice) -> &mut Option<u64>;
    let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>, Slot); 4] = [
        (
            "throttleReadBpsDevice",
            io.throttle_read_bps_device(),
            |device| &mut device.read_bytes_per_second,
        ),
        (
            "throttleWriteBpsDevice",
            io.throttle_write_bps_device(),
            |device| &mut device.write_bytes_per_second,
        ),
        (
            "throttleReadIOPSDevice",
            io.throttle_read_iops_device(),
            |device| &mut device.read_operations_per_second,
        ),
        (
            "throttleWriteIOPSDevice",
            io.throttle_write_iops_device(),
            |device| &mut device.write_operations_per_second,
        ),
    ];
    for (name, list, slot) in throttles {
        for (index, device) in list.iter().flatten().enumerate() {
            let entry = format!("{base}.{name}[{index}]");
            let device_numbers = numbers(&entry, device.major(), device.minor())?;
            *slot(at(&mut devices, device_numbers)) = Some(device.rate());
        }
    }
    Ok(Io {
        weight: weight(&format!("{base}.weight"), io.weight())?,
        devices,
    })
}

/// The entry of a device, made if it is not there.
fn at(devices: &mut Vec<IoDevice>, (major, minor): (u32, u32)) -> &mut IoDevice {
    let known = devices
        .iter()
        .position(|device| (device.major, device.minor) == (major, minor));
    let index = known.unwrap_or(devices.len());
    if known.is_none() {
        devices.push(IoDevice {
            major,
            minor,
            ..IoDevice::default()
        });
    }
    &mut devices[index]
}

fn hugetlb(limits: &[LinuxHugepageLimit]) -> Result<Vec<HugetlbLimit>, Error> {
    let mut compiled: Vec<HugetlbLimit> = Vec::new();
    for (index, entry) in limits.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let digits = entry
            .page_size()
            .trim_end_matches("KB")
            .trim_end_matches("MB");
        let digits = digits.trim_end_matches("GB");
        let named = digits.len() + 2 == entry.page_size().len()
            && digits.parse::<u32>().is_ok_and(|size| size > 0);
        if !named {
            return Err(invalid(
                format!("{field}.pageSize"),
                format!(
                    "{:?} is not a page size such as 2MB or 1GB",
                    entry.page_size()
                ),
            ));
        }
        if compiled
            .iter()
            .any(|known| known.page_size == *entry.page_size())
        {
            return Err(invalid(format!("{field}.pageSize"), "is there twice"));
        }
        // A fresh group has no limit: -1 asks for what is there already.
        if entry.limit() == -1 {
            continue;
        }
        let limit_bytes = u64::try_from(entry.limit())
            .map_err(|_| invalid(format!("{field}.limit"), "must not be negative"))?;
        compiled.push(HugetlbLimit {
            page_size: entry.page_size().clone(),
            limit_bytes,
        });
    }
    Ok(compiled)
}

/// The class of packets, and their priorities by interface.
type Network = (Option<u32>, Vec<(String, u32)>);

fn network(network: &LinuxNetwork) -> Result<Network, Error> {
    let mut priorities = Vec::new();
    for (index, entry) in network.priorities().iter().flatten().enumerate() {
        let field = format!("linux.resources.network.priorities[{index}].name");
        device_name(&field, entry.name())?;
        priorities.push((entry.name().clone(), entry.priority()));
    }
    Ok((network.class_id().filter(|class| *class != 0), priorities))
}

fn rdma(limits: &HashMap<String, LinuxRdma>) -> Result<Vec<RdmaLimit>, Error> {
    let mut compiled = Vec::with_capacity(limits.len());
    for (device, limit) in limits {
        let field = format!("linux.resources.rdma.{device}");
        device_name(&field, device)?;
        if limit.hca_handles().is_none() && limit.hca_objects().is_none() {
            return Err(invalid(field, "limits neither hcaHandles nor hcaObjects"));
        }
        compiled.push(RdmaLimit {
            device: device.clone(),
            handles: limit.hca_handles(),
            objects: limit.hca_objects(),
        });
    }
    compiled.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(compiled)
}

/// A name that becomes the first word of a line.
fn device_name(field: &str, name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(invalid(
            field,
            format!("{name:?} is not the name of a device"),
        ));
    }
    Ok(())
}

/// Files of version 2 written as they are: names of the group's own files only, sorted.
fn unified(files: &HashMap<String, String>) -> Result<Vec<(String, String)>, Error> {
    let mut compiled = Vec::with_capacity(files.len());
    for (name, value) in files {
        let field = format!("linux.resources.unified.{name}");
        text(&field, value)?;
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        let Some((controller, file)) = name.split_once('.').filter(|_| plain) else {
            return Err(invalid(
                field,
                "is not a file of a control group, as memory.high",
            ));
        };
        if controller.is_empty() || file.is_empty() {
            return Err(invalid(
                field,
                "is not a file of a control group, as memory.high",
            ));
        }
        if controller == "cgroup" {
            return Err(invalid(
                field,
                "files of the control group core are the engine's own",
            ));
        }
        compiled.push((name.clone(), value.clone()));
    }
    compiled.sort();
    Ok(compiled)
}

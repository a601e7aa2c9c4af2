//! `update`: changing the limits of a container.

use crate::arguments::Update;
use crate::bundle::{read_file, wrong};
use crate::error::Error;
use crate::lifecycle::group_of;
use crate::log::Logger;
use crate::state::{Container, Root, Status};
use crate::unikernel;
use gamut_abi::resources::Limit;
use gamut_cgroup::Group;
use gamut_isolation::compile::{read_resources, resources};
use gamut_isolation::unikernel::MEMORY_UPDATE;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::io::Read;
use std::path::Path;

/// Most that is read from standard input, in bytes.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Changes what is given and leaves the rest.
///
/// # Errors
/// If a value makes no sense, the container has stopped or has no control group, or the kernel
/// refuses.
pub fn update(root: &Root<'_>, options: &Update, logger: &Logger<'_>) -> Result<(), Error> {
    let container = root.find(&options.id)?;
    if container.status == Status::Stopped {
        return Err(container.refuses("update", "container not running: it is stopped"));
    }
    let mut changes = match options.resources.as_deref() {
        Some(path) if path == Path::new("-") => {
            let mut text = Vec::new();
            std::io::stdin()
                .take(MAX_INPUT_BYTES)
                .read_to_end(&mut text)
                .map_err(Error::file("read", path))?;
            read_resources(&text).map_err(|error| wrong(path, &error))?
        }
        Some(path) => read_resources(&read_file(path)?).map_err(|error| wrong(path, &error))?,
        None => from_options(options, logger)?,
    };
    let group = group_of(&container, "update")?;
    if changes
        .memory()
        .as_ref()
        .is_some_and(|memory| *memory != LinuxMemory::default())
    {
        unikernel::refuse(&container, MEMORY_UPDATE)?;
    }
    complete_memory(&mut changes, &container, &group)?;
    // Devices are those of the beginning: others may have been added to them meanwhile.
    changes.set_devices(None);
    let compiled = resources(&changes)?;
    for warning in group.apply(&compiled)? {
        logger.warning(&warning);
    }
    Ok(())
}

fn from_options(options: &Update, logger: &Logger<'_>) -> Result<LinuxResources, Error> {
    let mut cpu = LinuxCpu::default();
    let mut memory = LinuxMemory::default();
    let mut block_io = LinuxBlockIo::default();
    let mut resources = LinuxResources::default();
    for (name, value) in &options.limits {
        // As runc has it: an empty value is none.
        if value.is_empty() {
            continue;
        }
        match name.as_str() {
            "blkio-weight" => {
                let weight: u16 = number(name, value)?;
                block_io.set_weight((weight != 0).then_some(weight));
            }
            "cpu-period" => drop(cpu.set_period(Some(number(name, value)?))),
            "cpu-quota" => drop(cpu.set_quota(Some(number(name, value)?))),
            "cpu-burst" => drop(cpu.set_burst(Some(number(name, value)?))),
            "cpu-share" => drop(cpu.set_shares(Some(number(name, value)?))),
            "cpu-idle" => drop(cpu.set_idle(Some(number(name, value)?))),
            "cpu-rt-period" => drop(cpu.set_realtime_period(Some(number(name, value)?))),
            "cpu-rt-runtime" => drop(cpu.set_realtime_runtime(Some(number(name, value)?))),
            "cpuset-cpus" => drop(cpu.set_cpus(Some(value.clone()))),
            "cpuset-mems" => drop(cpu.set_mems(Some(value.clone()))),
            "memory" => drop(memory.set_limit(Some(bytes(name, value)?))),
            "memory-reservation" => drop(memory.set_reservation(Some(bytes(name, value)?))),
            "memory-swap" => drop(memory.set_swap(Some(bytes(name, value)?))),
            "pids-limit" => {
                let mut pids = LinuxPids::default();
                pids.set_limit(number(name, value)?);
                resources.set_pids(Some(pids));
            }
            "kernel-memory" | "kernel-memory-tcp" => {
                bytes(name, value)?;
                logger.warning("Kernel memory settings are ignored and will be removed");
            }
            other => return Err(Error::Unsupported(format!("option --{other}"))),
        }
    }
    resources.set_cpu(Some(cpu));
    resources.set_memory(Some(memory));
    resources.set_block_io(Some(block_io));
    Ok(resources)
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|_| {
        Error::Usage(format!(
            "invalid value for {name}: {value:?} is no such number"
        ))
    })
}

/// A size as docker has it: `512m`, `1GiB`, `1.5g`; -1 is no limit.
fn bytes(name: &str, value: &str) -> Result<i64, Error> {
    if value == "-1" {
        return Ok(-1);
    }
    gamut_spec::units::parse_bytes(value)
        .and_then(|size| i64::try_from(size).ok())
        .ok_or_else(|| Error::Usage(format!("invalid value for {name}: {value:?} is no size")))
}

/// A limit on memory and swap together has a meaning only beside one on memory, which may be the
/// one in force; lifting that on memory alone lifts the other with it.
fn complete_memory(
    changes: &mut LinuxResources,
    container: &Container,
    group: &Group,
) -> Result<(), Error> {
    let Some(memory) = changes.memory() else {
        return Ok(());
    };
    if memory.limit().is_none() && memory.swap().is_some_and(|swap| swap > 0) {
        let stats = group.stats()?;
        let Limit::Value(limit) = stats.memory.limit_bytes else {
            return Err(container.refuses(
                "update",
                "unable to set swap limit without memory limit; give --memory, too",
            ));
        };
        let mut memory = *memory;
        memory.set_limit(i64::try_from(limit).ok());
        changes.set_memory(Some(memory));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Log;

    fn changes(limits: &[(&str, &str)]) -> Result<LinuxResources, Error> {
        let log = Log::default();
        let options = Update {
            limits: limits
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Update::default()
        };
        from_options(&options, &Logger::new(&log))
    }

    #[test]
    fn limits_are_read() {
        let changes = changes(&[
            ("memory", "32M"),
            ("cpu-share", "200"),
            ("pids-limit", "-1"),
        ]);
        let changes = changes.unwrap();
        assert_eq!(changes.memory().unwrap().limit(), Some(32 << 20));
        assert_eq!(changes.cpu().as_ref().unwrap().shares(), Some(200));
        assert_eq!(changes.pids().unwrap().limit(), -1);
    }

    #[test]
    fn nonsense_is_told_by_name() {
        for (name, value) in [
            ("memory", "many"),
            ("cpu-period", "-5"),
            ("pids-limit", "x"),
        ] {
            let error = changes(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

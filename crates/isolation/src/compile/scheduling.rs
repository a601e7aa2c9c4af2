//! Who gets processors, disks and memory first: `process.scheduler`, `process.ioPriority`,
//! `process.execCPUAffinity`, `linux.memoryPolicy` and `linux.personality`.
//!
//! Sources: OCI runtime-spec config.md and config-linux.md, sched_setattr(2), ioprio_set(2),
//! set_mempolicy(2), personality(2).

use super::field::invalid;
use crate::error::Error;
use gamut_abi::plan::{self, ExecCpuAffinity, IoPriority, MemoryPolicy};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

/// Largest number in a list of processors or nodes: far beyond any machine, small as a mask.
const MAX_LIST_NUMBER: usize = 8191;

/// `SCHED_FLAG_UTIL_CLAMP_MIN` and `_MAX`, whose values OCI has no field for.
const UTIL_CLAMP: &str = "has no value in the OCI configuration to clamp to; leave the flag out";

/// Compiles `process.ioPriority`.
pub(super) fn io_priority(process: &Process) -> Result<Option<IoPriority>, Error> {
    let Some(wanted) = process.io_priority() else {
        return Ok(None);
    };
    let level = u8::try_from(wanted.priority())
        .ok()
        .filter(|level| *level <= 7)
        .ok_or_else(|| {
            invalid(
                "process.ioPriority.priority",
                format!("{} is not between 0 and 7", wanted.priority()),
            )
        })?;
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(Some(IoPriority { class, level }))
}

/// Compiles `process.scheduler`.
pub(super) fn scheduler(process: &Process) -> Result<Option<plan::Scheduler>, Error> {
    process.scheduler().as_ref().map(one_scheduler).transpose()
}

fn one_scheduler(wanted: &Scheduler) -> Result<plan::Scheduler, Error> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(invalid(
                "process.scheduler.policy",
                "Linux has no SCHED_ISO; use SCHED_OTHER",
            ));
        }
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(invalid(
            "process.scheduler.nice",
            format!("{nice} is not between -20 and 19"),
        ));
    }
    let real_time = matches!(policy, 1 | 2);
    let priority = wanted.priority().unwrap_or(0);
    let possible = if real_time { 1..=99 } else { 0..=0 };
    if !possible.contains(&priority) {
        return Err(invalid(
            "process.scheduler.priority",
            format!(
                "{priority} is not between {} and {} for this policy",
                possible.start(),
                possible.end()
            ),
        ));
    }
    let times =
        [wanted.runtime(), wanted.deadline(), wanted.period()].map(|time| time.unwrap_or(0));
    if policy != 6 && times != [0; 3] {
        return Err(invalid(
            "process.scheduler.runtime",
            "runtime, deadline and period are for SCHED_DEADLINE only",
        ));
    }
    let mut flags = 0;
    for (index, flag) in wanted.flags().iter().flatten().enumerate() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin
            | LinuxSchedulerFlag::SchedFlagUtilClampMax => {
                return Err(invalid(
                    format!("process.scheduler.flags[{index}]"),
                    UTIL_CLAMP,
                ));
            }
        };
    }
    let [runtime_ns, deadline_ns, period_ns] = times;
    Ok(plan::Scheduler {
        policy,
        flags,
        nice,
        priority: priority.unsigned_abs(),
        runtime_ns,
        deadline_ns,
        period_ns,
    })
}

/// Compiles `process.execCPUAffinity`.
pub(super) fn exec_cpu_affinity(process: &Process) -> Result<Option<ExecCpuAffinity>, Error> {
    let Some(wanted) = process.exec_cpu_affinity() else {
        return Ok(None);
    };
    let processors = |name: &str, list: Option<&str>| {
        list.map_or(Ok(Vec::new()), |list| {
            mask(&format!("process.execCPUAffinity.{name}"), list)
        })
    };
    Ok(Some(ExecCpuAffinity {
        initial: processors("initial", wanted.initial().as_deref())?,
        last: processors("final", wanted.cpu_affinity_final().as_deref())?,
    }))
}

/// Compiles `linux.memoryPolicy`.
pub(super) fn memory_policy(linux: &Linux) -> Result<Option<MemoryPolicy>, Error> {
    let Some(wanted) = linux.memory_policy() else {
        return Ok(None);
    };
    // `MPOL_*` of linux/mempolicy.h.
    let (mode, takes_nodes) = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => (0, false),
        MemoryPolicyModeType::MpolPreferred => (1, true),
        MemoryPolicyModeType::MpolBind => (2, true),
        MemoryPolicyModeType::MpolInterleave => (3, true),
        MemoryPolicyModeType::MpolLocal => (4, false),
        MemoryPolicyModeType::MpolPreferredMany => (5, true),
        MemoryPolicyModeType::MpolWeightedInterleave => (6, true),
    };
    let nodes = match wanted.nodes().as_deref() {
        None | Some("") => Vec::new(),
        Some(list) => mask("linux.memoryPolicy.nodes", list).map_err(|error| match error {
            Error::Invalid { field, problem } => invalid(
                field,
                format!("invalid memory policy nodes {list:?}: {problem}"),
            ),
            other => other,
        })?,
    };
    // Preferring no node in particular is how MPOL_PREFERRED says "local".
    if takes_nodes == nodes.is_empty() && mode != 1 {
        return Err(invalid(
            "linux.memoryPolicy.nodes",
            if takes_nodes {
                String::from("this memory policy mode requires at least one node but got 0")
            } else {
                let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
                format!("this memory policy mode requires 0 nodes but got {count}; leave them out")
            },
        ));
    }
    let mut flags = 0;
    for flag in wanted.flags().iter().flatten() {
        flags |= match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        };
    }
    Ok(Some(MemoryPolicy {
        mode: mode | flags,
        nodes,
    }))
}

/// Compiles `linux.personality`.
pub(super) fn personality(linux: &Linux) -> Result<Option<u32>, Error> {
    let Some(wanted) = linux.personality() else {
        return Ok(None);
    };
    if wanted
        .flags()
        .as_ref()
        .is_some_and(|flags| !flags.is_empty())
    {
        return Err(invalid(
            "linux.personality.flags",
            "the OCI runtime-spec defines no flag; leave the list out",
        ));
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// A list such as `0-2,4` as a mask of 64-bit words.
fn mask(field: &str, list: &str) -> Result<Vec<u64>, Error> {
    let wrong = || invalid(field, format!("{list:?} is not a list such as 0-2,4"));
    let mut words: Vec<u64> = Vec::new();
    for range in list
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        if last > MAX_LIST_NUMBER {
            return Err(invalid(
                field,
                format!("{last} is larger than {MAX_LIST_NUMBER}"),
            ));
        }
        if words.len() <= last / 64 {
            words.resize(last / 64 + 1, 0);
        }
        for number in first..=last {
            words[number / 64] |= 1 << (number % 64);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask("f", "0-2,4").unwrap(), [0b1_0111]);
        assert_eq!(mask("f", "64").unwrap(), [0, 1]);
        assert_eq!(mask("f", "").unwrap(), [0_u64; 0]);
        for bad in ["a", "3-1", "-1", "1-", "9999"] {
            mask("f", bad).unwrap_err();
        }
    }
}

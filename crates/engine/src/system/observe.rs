//! Looking into running containers: processes and use of resources.

use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_cgroup::Stats;
use gamut_network::InterfaceStatistics;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The processes of a container, as `ps` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Titles of the columns.
    pub titles: Vec<String>,
    /// One row per process.
    pub processes: Vec<Vec<String>>,
}

/// Use of resources at one moment.
#[derive(Debug, Clone)]
pub struct StatsSample {
    /// When, in nanoseconds since the epoch.
    pub time_ns: u64,
    /// What its control group counts.
    pub cgroup: Stats,
    /// Its network interfaces, without the loopback; empty in the host's network.
    pub networks: Vec<InterfaceStatistics>,
    /// Processors of the host.
    pub online_cpus: u32,
    /// Processor time of the whole host in nanoseconds.
    pub system_cpu_ns: u64,
}

impl Engine {
    /// The processes of a running container.
    ///
    /// # Errors
    /// `Conflict` if it does not run, `InvalidArgument` for arguments without a PID column.
    pub fn processes(&self, caller: &Caller, name_or_id: &str, ps_args: &str) -> Result<Top> {
        let container = self.index.find(name_or_id)?;
        if !container.phase().is_live() {
            return Err(Self::not_running(&container));
        }
        self.emit_container(&container, "top", BTreeMap::new());
        let level = self.level_of(&container)?;
        let pids: BTreeSet<u32> = level
            .processes(&caller.context(None), &container.id)?
            .into_iter()
            .collect();
        let ps_args = if ps_args.is_empty() { "-ef" } else { ps_args };
        let output = Command::new("ps")
            .args(ps_args.split_whitespace())
            .env("LC_ALL", "C")
            .output()
            .map_err(|source| Error::system("run ps (package procps)", source))?;
        if !output.status.success() {
            return Err(Error::invalid(format!(
                "error running ps: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        select_processes(&String::from_utf8_lossy(&output.stdout), &pids)
    }

    /// Use of resources of a running container.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub fn stats(&self, caller: &Caller, name_or_id: &str) -> Result<StatsSample> {
        let container = self.index.find(name_or_id)?;
        if !container.phase().is_live() {
            return Err(Self::not_running(&container));
        }
        let cgroup = self
            .level_of(&container)?
            .stats(&caller.context(None), &container.id)?;
        let own_network = container
            .read(|record| record.spec.network != crate::container::spec::NetworkMode::Host);
        let pid = container.read(|record| i32::try_from(record.state.pid).unwrap_or(0));
        let networks = if own_network && pid > 0 {
            gamut_network::statistics::of_process(pid)
                .unwrap_or_default()
                .into_iter()
                .filter(|interface| interface.name != "lo")
                .collect()
        } else {
            Vec::new()
        };
        let stat = std::fs::read_to_string("/proc/stat")
            .map_err(|source| Error::system("read /proc/stat", source))?;
        let (online_cpus, system_cpu_ns) = host_cpu(&stat);
        Ok(StatsSample {
            time_ns: gamut_spec::time::now_ns(),
            cgroup,
            networks,
            online_cpus,
            system_cpu_ns,
        })
    }
}

/// Picks the rows of `ps` whose PID is in `pids`.
fn select_processes(output: &str, pids: &BTreeSet<u32>) -> Result<Top> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let pid_column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let pid = words
            .get(pid_column)
            .and_then(|word| word.parse::<u32>().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column may hold spaces.
        let last = titles
            .len()
            .saturating_sub(1)
            .min(words.len().saturating_sub(1));
        let (head, tail) = words.split_at(last);
        let mut row: Vec<String> = head.iter().map(|word| (*word).to_owned()).collect();
        row.push(tail.join(" "));
        processes.push(row);
    }
    Ok(Top { titles, processes })
}

/// Number of processors and their time in nanoseconds, from `/proc/stat` (ticks of 10 ms).
fn host_cpu(stat: &str) -> (u32, u64) {
    let mut online = 0;
    let mut total = 0;
    for line in stat.lines() {
        let Some(rest) = line.strip_prefix("cpu") else {
            continue;
        };
        if let Some(numbers) = rest.strip_prefix(' ') {
            // user nice system idle iowait irq softirq steal; guest time is in user already.
            let ticks = numbers
                .split_whitespace()
                .take(8)
                .filter_map(|n| n.parse::<u64>().ok());
            total = ticks.sum::<u64>().saturating_mul(10_000_000);
        } else {
            online += 1;
        }
    }
    (online, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_only() {
        let output =
            "UID   PID  PPID CMD\nroot    1     0 /sbin/init splash\nroot   42     1 sleep 1 2\n";
        let top = select_processes(output, &BTreeSet::from([42])).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(top.processes, [["root", "42", "1", "sleep 1 2"]]);
        assert!(select_processes("A B\n", &BTreeSet::new()).is_err());
    }

    #[test]
    fn processor_time_of_the_host() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2\ncpu1 1 2\nintr 5\n";
        assert_eq!(host_cpu(stat), (2, 360_000_000));
    }
}

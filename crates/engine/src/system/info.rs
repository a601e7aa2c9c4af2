//! The engine in numbers.

use super::host::Host;
use crate::container::record::Phase;
use crate::engine::Engine;
use crate::error::{Error, Result};
use gamut_isolation::Refusal;
use gamut_spec::isolation::IsolationLevel;
use std::fs;

/// The engine in numbers.
#[derive(Debug, Clone)]
pub struct Info {
    /// The host.
    pub host: Host,
    /// Levels of isolation on offer.
    pub levels: Vec<IsolationLevel>,
    /// Containers that run.
    pub running: usize,
    /// Containers that are frozen.
    pub paused: usize,
    /// Containers that do not run.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// 1 (hybrid too) or 2.
    pub cgroup_version: u8,
    /// Swap can be limited.
    pub swap_limit: bool,
    /// The host forwards IPv4.
    pub ipv4_forwarding: bool,
    /// Open descriptors of the daemon.
    pub descriptors: usize,
    /// Threads of the daemon.
    pub threads: usize,
    /// File system of the data root.
    pub backing_filesystem: String,
    /// The engine is an ordinary user's.
    pub rootless: bool,
    /// Why there are no control groups; `None` if there are.
    pub without_groups: Option<String>,
    /// Containers run under an AppArmor profile.
    pub apparmor: bool,
    /// What users should know of this host.
    pub warnings: Vec<String>,
}

impl Engine {
    /// The engine in numbers.
    ///
    /// # Errors
    /// If the image store cannot be read.
    pub fn info(&self) -> Result<Info> {
        let phases: Vec<Phase> = self
            .index
            .all()
            .iter()
            .map(|container| container.phase())
            .collect();
        let count = |wanted: &dyn Fn(Phase) -> bool| phases.iter().filter(|p| wanted(**p)).count();
        let images = self
            .images
            .list()
            .map_err(|source| Error::system("list the images", source))?
            .len();
        let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
        let unified = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
        let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
        let swap_limit =
            unified || fs::metadata("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").is_ok();
        let mut warnings = Vec::new();
        if !swap_limit && self.options.without_groups.is_none() {
            warnings.push("WARNING: No swap limit support".to_owned());
        }
        let without_groups = self.options.without_groups.clone();
        warnings.extend(
            without_groups
                .iter()
                .map(|reason| format!("WARNING: limits are not applied: {reason}")),
        );
        let rootless = self.options.rootless.as_ref();
        let shown = rootless.map_or(&[][..], |rootless| &rootless.warnings);
        warnings.extend(shown.iter().map(|warning| format!("WARNING: {warning}")));
        Ok(Info {
            rootless: rootless.is_some(),
            without_groups,
            host: Host::read(),
            levels: self.levels(),
            running: count(&|phase| matches!(phase, Phase::Running | Phase::Restarting)),
            paused: count(&|phase| phase == Phase::Paused),
            stopped: count(&|phase| !phase.is_live()),
            images,
            cgroup_version: if unified { 2 } else { 1 },
            swap_limit,
            ipv4_forwarding: forwarding.trim() == "1",
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            backing_filesystem: self.backing_filesystem(),
            apparmor: self.apparmor.confines(),
            warnings,
        })
    }

    /// Type of the file system below the data root, from the mount table.
    fn backing_filesystem(&self) -> String {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = self.options.data_root.to_string_lossy();
        let below = |point: &str| {
            root.strip_prefix(point)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || point == "/")
        };
        table
            .lines()
            .filter_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                Some((left.split(' ').nth(4)?, right.split(' ').next()?))
            })
            .filter(|(point, _)| below(point))
            .max_by_key(|(point, _)| point.len())
            .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
    }

    /// What the levels on offer cannot do, and why.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.levels
            .iter()
            .flat_map(|level| level.refusals())
            .copied()
            .collect()
    }
}

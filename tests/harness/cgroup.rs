//! The control groups of a daemon under test, on v2, v1 and hybrid machines.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sweep::kill;

/// A control group below which a daemon's workloads run, in every hierarchy of the machine.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// Names one; the engine makes it.
    #[must_use]
    pub fn new(path: String) -> Self {
        Self { path }
    }

    /// Its path, as the engine knows it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directories.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let children = fs::read_dir(root).into_iter().flatten().flatten();
        let hierarchies = children
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path());
        let name = self.path.trim_start_matches('/');
        std::iter::once(root.to_owned())
            .chain(hierarchies)
            .map(|hierarchy| hierarchy.join(name))
            .filter(|directory| directory.is_dir())
            .collect()
    }

    /// Every group below it.
    #[must_use]
    pub fn children(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = self.directories();
        while let Some(directory) = open.pop() {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            for entry in entries {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    found.push(entry.path());
                    open.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    /// Processes in it and below it.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let groups = self.directories().into_iter().chain(self.children());
        let mut pids: Vec<u32> = groups
            .filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok())
            .flat_map(|pids| {
                pids.lines()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        pids.retain(|pid| *pid > 0); // 0: a process of another pid namespace
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills its processes, frozen or not, and waits until they are gone.
    pub fn kill(&self) {
        let due = Instant::now() + Duration::from_secs(10);
        loop {
            let pids = self.processes();
            if pids.is_empty() || Instant::now() > due {
                return;
            }
            pids.into_iter().for_each(kill);
            // Frozen processes of v1 groups do not die before they are thawed.
            for group in self.children() {
                let state = File::options()
                    .write(true)
                    .open(group.join("freezer.state"));
                let _ = state.and_then(|mut state| state.write_all(b"THAWED"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes it and what is below it. What still holds processes stays.
    pub fn remove(&self) {
        for group in self.children().iter().rev() {
            let _ = fs::remove_dir(group);
        }
        for group in self.directories() {
            let _ = fs::remove_dir(group);
        }
    }
}

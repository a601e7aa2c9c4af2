//! The leak checker: what a daemon and its workloads hold on the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Cgroup, Namespaces, on_path};

/// What is there at one moment, each line with the number of times it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    lines: BTreeMap<String, usize>,
}

/// Where to look.
pub(crate) struct Scope<'d> {
    pub(crate) namespaces: &'d Namespaces,
    pub(crate) cgroup: &'d Cgroup,
    pub(crate) daemon_pid: u32,
    pub(crate) roots: [&'d Path; 2],
}

impl Snapshot {
    /// Looks now.
    pub(crate) fn take(scope: &Scope<'_>) -> Self {
        let mut snapshot = Self::default();
        snapshot.add_mounts(scope);
        for group in scope.cgroup.children() {
            snapshot.add("cgroup", &group.to_string_lossy());
        }
        snapshot.add_network(scope.namespaces);
        snapshot.add_processes(scope);
        snapshot.add_descriptors(scope.daemon_pid);
        for root in scope.roots {
            snapshot.add_files(root);
        }
        snapshot
    }

    fn add(&mut self, kind: &str, what: &str) {
        *self.lines.entry(format!("{kind}: {what}")).or_default() += 1;
    }

    /// Mounts of the namespace that the daemon and its supervisors share.
    fn add_mounts(&mut self, scope: &Scope<'_>) {
        let path = format!("/proc/{}/mountinfo", scope.daemon_pid);
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            // The ids of mount and parent are not part of what it is.
            let what = line.splitn(3, ' ').nth(2).unwrap_or(line);
            self.add("mount", what);
        }
    }

    /// Links, addresses, routes and firewall rules of the daemon's network namespace.
    fn add_network(&mut self, namespaces: &Namespaces) {
        let commands: [(&str, &[&str]); 4] = [
            ("ip", &["-o", "link", "show"]),
            ("ip", &["-o", "address", "show"]),
            ("ip", &["route", "show", "table", "all"]),
            ("nft", &["list", "ruleset"]),
        ];
        for (program, arguments) in commands {
            // Whoever lacks them has said so at the start.
            let Some(path) = on_path(program) else {
                continue;
            };
            let mut command = Command::new(path);
            namespaces.apply(command.args(arguments));
            let output = command.output().expect("it runs");
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                self.add(program, &without_chance(line));
            }
        }
    }

    /// Supervisors, workloads and the daemon's unreaped children.
    fn add_processes(&mut self, scope: &Scope<'_>) {
        let mount_name = scope.namespaces.mount_name();
        let groups = scope.cgroup.processes();
        for pid in processes() {
            let lives_here = fs::read_link(format!("/proc/{pid}/ns/mnt"))
                .is_ok_and(|name| *name.to_string_lossy() == *mount_name);
            // One that has ended since is none.
            let Some((name, state, parent)) = stat(pid) else {
                continue;
            };
            let zombie = state == "Z" && parent == scope.daemon_pid;
            if pid != scope.daemon_pid && (lives_here || zombie || groups.contains(&pid)) {
                // Whether it sleeps or runs at this moment is not part of what it is.
                let mark = if state == "Z" { " (zombie)" } else { "" };
                self.add("process", &format!("{name}{mark}"));
            }
        }
    }

    /// The daemon's open files, by what they are.
    fn add_descriptors(&mut self, daemon_pid: u32) {
        let directory = format!("/proc/{daemon_pid}/fd");
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(entry.path()) {
                let target = target.to_string_lossy();
                // `socket:[123]`: the number is not part of what it is.
                let kind = target.split_once(":[").map_or(&*target, |(kind, _)| kind);
                let named = matches!(&*target, "anon_inode:[eventfd]");
                self.add("descriptor", if named { &target } else { kind });
            }
        }
    }

    /// Every file below a directory but the content of unpacked layers, which its directory tells,
    /// and the list of references, which is written with the first image.
    fn add_files(&mut self, root: &Path) {
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if !entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("references.")
                {
                    self.add("file", &entry.path().to_string_lossy());
                }
                let is_layer = directory.ends_with("images/layers");
                if !is_layer && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
    }

    /// What is there now and was not before, and what is missing; empty if nothing has changed.
    /// Files may vanish: whoever removes an image that was there has that effect.
    #[must_use]
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let mut difference = Vec::new();
        let keys = self.lines.keys().chain(before.lines.keys());
        let mut keys: Vec<_> = keys.collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let now = self.lines.get(key).copied().unwrap_or(0);
            let then = before.lines.get(key).copied().unwrap_or(0);
            let vanished = now < then && key.starts_with("file: ");
            if now != then && !vanished {
                difference.push(format!("{key}: {then} before, {now} now"));
            }
        }
        difference
    }
}

/// A line of `ip` or `nft` without what changes by itself: counters, numbers of interfaces and
/// namespaces, link addresses, and the names of the pool's interchangeable endpoints.
fn without_chance(line: &str) -> String {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "packets" | "bytes" | "expires" | "link-netnsid" | "link/ether" => {
                words.next();
            }
            _ if word.strip_suffix(':').is_some_and(is_number) => {}
            _ if word.starts_with("gv") => kept.push("gv*"),
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

/// Process ids of the machine.
pub(crate) fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect()
}

/// Name, state and parent of a process.
pub(crate) fn stat(pid: u32) -> Option<(String, String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state parent ...`; the name may hold anything.
    let (start, rest) = stat.rsplit_once(") ")?;
    let name = start.split_once('(')?.1.to_owned();
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    Some((name, state, fields.next()?.parse().ok()?))
}

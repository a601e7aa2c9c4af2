//! Scopes of a running systemd.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::{go, is_root, shell, text};
use gamut_abi::resources::{Limit, Resources};
use gamut_cgroup::{Group, Hierarchies, Mode, systemd_path};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A scope that is gone when the test ends, however it ends.
struct Scope(Group);

impl Scope {
    fn new(name: &str) -> Option<Self> {
        let hierarchies = Hierarchies::detect().ok()?;
        if !is_root()
            || hierarchies.mode() != Mode::V2
            || !Path::new("/run/systemd/private").exists()
        {
            eprintln!("SKIPPED: needs root, cgroup v2 alone and a running systemd");
            return None;
        }
        let path = systemd_path(&format!("gamut-test.slice:gamut:{name}")).unwrap();
        Some(Self(Group::at_systemd(&hierarchies, &path).unwrap()))
    }

    fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/cgroup{}", self.0.path()))
    }

    fn file(&self, name: &str) -> String {
        let path = self.directory().join(name);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            eprintln!("LEAK: {error}; in it:");
            let processes = std::fs::read_to_string(self.directory().join("cgroup.procs"));
            for pid in processes.unwrap_or_default().lines() {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                eprintln!("{}", status.unwrap_or_default());
            }
        }
    }
}

fn limits() -> Resources {
    let mut resources = Resources::default();
    resources.cpu.shares = Some(2048);
    resources.cpu.quota_us = Some(Limit::Value(25_000));
    resources.cpu.period_us = Some(50_000);
    resources.cpu.cpuset_cpus = Some("0".into());
    resources.memory.max_bytes = Some(Limit::Value(64 << 20));
    resources.memory.swap_max_bytes = Some(Limit::Value(0));
    resources.memory.reservation_bytes = Some(Limit::Value(1 << 20));
    resources.pids_max = Some(Limit::Value(20));
    resources
}

#[test]
fn a_scope_holds_limits_over_a_reload() {
    let Some(scope) = Scope::new("limits") else {
        return;
    };
    scope.0.create().unwrap();
    assert!(
        scope
            .0
            .path()
            .ends_with("/gamut.slice/gamut-test.slice/gamut-limits.scope")
    );
    assert_eq!(scope.0.apply(&limits()).unwrap(), Vec::<String>::new());
    let mut child = shell(&scope.0, "cat /proc/self/cgroup; read line");
    // The placeholder has gone: one process, and it is ours.
    assert_eq!(scope.file("cgroup.procs"), child.id().to_string());
    let wanted = || {
        for (file, value) in [
            ("cpu.weight", "200"),
            ("cpu.max", "25000 50000"),
            ("cpuset.cpus", "0"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("memory.low", "1048576"),
            ("pids.max", "20"),
        ] {
            assert_eq!(scope.file(file), value, "{file}");
        }
    };
    wanted();
    let reload = Command::new("systemctl").arg("daemon-reload").status();
    assert!(reload.unwrap().success());
    wanted();
    go(&mut child);
    go(&mut child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output), format!("0::{}\n", scope.0.path()));
}

#[test]
fn a_scope_is_stopped_with_what_is_in_it() {
    let Some(scope) = Scope::new("stop") else {
        return;
    };
    scope.0.create().unwrap();
    let mut child = shell(&scope.0, "sleep 100");
    go(&mut child);
    scope.0.remove().unwrap();
    assert!(!scope.directory().exists());
    assert!(!child.wait().unwrap().success());
    // It can be made again, and removed twice.
    scope.0.create().unwrap();
    assert!(scope.directory().exists());
    scope.0.remove().unwrap();
    scope.0.remove().unwrap();
    let known = Command::new("systemctl")
        .args(["is-active", "gamut-stop.scope"])
        .output();
    assert!(text(&known.unwrap()).contains("inactive"));
}

#[test]
fn a_scope_that_exists_is_refused() {
    let Some(scope) = Scope::new("twice") else {
        return;
    };
    scope.0.create().unwrap();
    let error = Scope::new("twice").unwrap().0.create().unwrap_err();
    assert!(error.to_string().contains("UnitExists"), "{error}");
}

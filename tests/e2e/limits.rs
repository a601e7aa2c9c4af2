//! Limits: seen from inside and enforced.

use gamut_tests::{Cgroup, Daemon};
use std::fs;

/// A value of a container's control group: the first of several files (v1 or v2) that exists.
fn group_value(cgroup: &Cgroup, files: &[&str]) -> String {
    let groups = cgroup.children();
    let candidates = groups
        .iter()
        .flat_map(|group| files.iter().map(|file| group.join(file)));
    let found: Vec<_> = candidates
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    assert_eq!(found.len(), 1, "{files:?} in {groups:?}");
    found[0].trim().to_owned()
}

#[test]
fn limits_arrive_in_the_control_group() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let options = [
        "--memory",
        "48m",
        "--memory-swap",
        "48m",
        "--pids-limit",
        "37",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    daemon.detached("limited", &options, "sleep 1000");
    let value = |files: &[&str]| group_value(daemon.cgroup(), files);
    assert_eq!(
        value(&["memory.max", "memory.limit_in_bytes"]),
        (48 << 20).to_string()
    );
    assert_eq!(value(&["pids.max"]), "37");
    let quota = value(&["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    assert!(["512", "20"].contains(&value(&["cpu.shares", "cpu.weight"]).as_str()));
    assert_eq!(value(&["cpuset.cpus"]), "0");
    // The workload sees them.
    let allowed = [
        "exec",
        "limited",
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
    ];
    assert!(daemon.ok(&allowed).ends_with("\t0"));
    let host = daemon.inspect("limited")["HostConfig"].take();
    assert_eq!(host["NanoCpus"], 500_000_000);
    // A limit can be changed while it runs.
    daemon.ok(&["update", "--cpus", "0.25", "--pids-limit", "20", "limited"]);
    let quota = value(&["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "25000" || quota == "25000 100000", "{quota}");
    assert_eq!(value(&["pids.max"]), "20");

    for (flag, bad) in [
        ("--memory", "1k"),
        ("--cpus", "1000"),
        ("--cpuset-cpus", "999"),
        ("--pids-limit", "x"),
    ] {
        let refused = daemon.gamut(&["run", "--rm", flag, bad, "busybox", "true"]);
        assert_eq!(refused.code, 125, "{flag} {bad}: {refused:#?}");
    }
    daemon.finish();
}

#[test]
fn the_memory_limit_is_enforced() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    // Within the limit it runs, beyond it is killed, and the witness says why.
    let options = ["--memory", "32m", "--memory-swap", "32m"];
    let grow =
        |mebibytes: u32| format!("head -c {mebibytes}m /dev/zero | tail -c {mebibytes}m | wc -c");
    assert_eq!(daemon.shell(&options, &grow(8)).ok(), (8 << 20).to_string());
    daemon.detached("greedy", &options, "exec tail -c 200m /dev/zero");
    assert_eq!(daemon.ok(&["wait", "greedy"]), "137");
    let state = daemon.inspect("greedy")["State"].take();
    assert_eq!(state["OOMKilled"], true, "{state}");
    // Without a limit it is not.
    assert_eq!(daemon.shell(&[], &grow(64)).ok(), (64 << 20).to_string());
    let events = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=greedy",
        "--format",
        "{{.Action}}",
    ];
    let events = daemon.ok(&events);
    assert!(events.contains("oom"), "{events}");
    daemon.finish();
}

#[test]
fn the_process_limit_is_enforced() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done 2>&1; true";
    let refused = daemon.shell(&["--pids-limit", "5"], script);
    assert!(
        refused.stdout.contains("can't fork") || refused.stderr.contains("can't fork"),
        "{refused:#?}"
    );
    let fine = daemon.shell(
        &["--pids-limit", "50"],
        "for n in 1 2 3 4 5 6; do sleep 0.1 & done; wait; echo all",
    );
    assert_eq!(fine.ok(), "all");
    daemon.finish();
}

#[test]
fn ulimits_and_sysctls() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let limits = daemon.shell(
        &["--ulimit", "nofile=123:456", "--ulimit", "core=0"],
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    );
    assert_eq!(limits.ok(), "123\n456\n0");
    // Fewer than it takes to set a container up.
    let few = ["run", "--rm", "--ulimit", "nofile=3", "busybox"];
    let limit = daemon.ok(&[&few[..], &["sh", "-c", "ulimit -n"]].concat());
    assert_eq!(limit, "3");
    let _ = daemon
        .gamut(&["run", "--rm", "--ulimit", "nofile=9:3", "busybox", "true"])
        .fails(125);
    let _ = daemon
        .gamut(&["run", "--rm", "--ulimit", "nonsense=9", "busybox", "true"])
        .fails(125);
    let sysctl = [
        "--sysctl",
        "net.ipv4.ip_default_ttl=33",
        "--sysctl",
        "kernel.msgmax=4096",
    ];
    let read = daemon.shell(
        &sysctl,
        "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax",
    );
    assert_eq!(read.ok(), "33\n4096");
    // One that is not the container's own is refused.
    let host_wide = daemon.gamut(&[
        "run",
        "--rm",
        "--sysctl",
        "vm.swappiness=1",
        "busybox",
        "true",
    ]);
    let error = host_wide.fails(125);
    assert!(error.contains("vm.swappiness"), "{error}");
    daemon.finish();
}

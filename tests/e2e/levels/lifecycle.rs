//! Verbs on workloads, limits and restart policies.

use super::{Level, at_every_level, said, state};
use gamut_tests::eventually;
use std::fs;

at_every_level!(
    stop_asks_and_then_kills,
    paused_it_does_nothing,
    limits_arrive,
    restart_policies_hold,
);

fn stop_asks_and_then_kills(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    level.start(&daemon, "polite", &[], &["stop", "wait"]);
    said(&daemon, "polite", "waiting");
    daemon.ok(&["stop", "polite"]);
    assert_eq!(state(&daemon, "polite", "ExitCode"), 0);
    assert_eq!(daemon.ok(&["logs", "polite"]), "waiting\nstopping");
    // Whoever does not listen is killed when the time is up.
    level.start(
        &daemon,
        "deaf",
        &["--stop-timeout", "1"],
        &["do", "print", "up", "then", "stop", "ignore"],
    );
    said(&daemon, "deaf", "up");
    daemon.ok(&["stop", "deaf"]);
    assert_eq!(state(&daemon, "deaf", "ExitCode"), 137);
    // kill, and kill with a signal that can be listened to.
    daemon.ok(&["start", "deaf"]);
    daemon.ok(&["kill", "deaf"]);
    assert_eq!(daemon.ok(&["wait", "deaf"]), "137");
    level.start(&daemon, "killed", &[], &["stop", "wait"]);
    said(&daemon, "killed", "waiting");
    daemon.ok(&["kill", "-s", "TERM", "killed"]);
    assert_eq!(daemon.ok(&["wait", "killed"]), "0");
    let error = daemon.gamut(&["kill", "killed"]).fails(1);
    assert!(error.contains("not running"), "{error}");
    // A running one is removed by force only.
    level.start(&daemon, "busy", &[], &["stop", "ignore"]);
    let error = daemon.gamut(&["rm", "busy"]).fails(1);
    assert!(error.contains("running"), "{error}");
    daemon.ok(&["rm", "-f", "busy"]);
    daemon.finish();
}

fn paused_it_does_nothing(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    level.start(&daemon, "ticker", &[], &["tick", "20"]);
    said(&daemon, "ticker", "tick 2");
    daemon.ok(&["pause", "ticker"]);
    assert_eq!(state(&daemon, "ticker", "Status"), "paused");
    let frozen = daemon.ok(&["logs", "ticker"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(daemon.ok(&["logs", "ticker"]), frozen);
    daemon.ok(&["unpause", "ticker"]);
    eventually("it goes on", || daemon.ok(&["logs", "ticker"]) != frozen);
    daemon.ok(&["stop", "ticker"]);
    assert_eq!(state(&daemon, "ticker", "ExitCode"), 0);
    daemon.finish();
}

fn limits_arrive(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let options = [
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    level.start(&daemon, "limited", &options, &["stop", "wait"]);
    said(&daemon, "limited", "waiting");
    let value = |files: &[&str]| -> String {
        let groups = daemon.cgroup().children();
        let candidates = groups
            .iter()
            .flat_map(|group| files.iter().map(|file| group.join(file)));
        let found: Vec<String> = candidates
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect();
        assert_eq!(found.len(), 1, "{files:?} in {groups:?}");
        found[0].trim().to_owned()
    };
    let quota = value(&["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    assert!(["512", "20"].contains(&value(&["cpu.shares", "cpu.weight"]).as_str()));
    assert_eq!(value(&["cpuset.cpus"]), "0");
    let memory: u64 = value(&["memory.max", "memory.limit_in_bytes"])
        .parse()
        .unwrap();
    // The guest's memory is all its own: what the monitor needs comes on top.
    let expected = match level {
        Level::Container => 64 << 20,
        Level::Unikernel => (64 + 16) << 20,
        Level::Translated => (64 + 256) << 20,
    };
    assert_eq!(memory, expected);
    assert_eq!(daemon.inspect("limited")["HostConfig"]["Memory"], 64 << 20);
    daemon.ok(&["update", "--cpus", "0.25", "limited"]);
    let quota = value(&["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota == "25000" || quota == "25000 100000", "{quota}");
    daemon.ok(&["rm", "-f", "limited"]);
    daemon.finish();
}

fn restart_policies_hold(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    let restarts = |name: &str| daemon.inspect(name)["RestartCount"].as_u64().unwrap();
    level.start(
        &daemon,
        "flaky",
        &["--restart", "on-failure:2"],
        &["do", "print", "try", "then", "exit", "9"],
    );
    eventually("it has given up", || {
        state(&daemon, "flaky", "Status") == "exited" && restarts("flaky") == 2
    });
    assert_eq!(daemon.ok(&["logs", "flaky"]), "try\ntry\ntry");
    assert_eq!(state(&daemon, "flaky", "ExitCode"), 9);
    level.start(&daemon, "phoenix", &["--restart", "always"], &["exit", "0"]);
    eventually("it has come back", || restarts("phoenix") >= 2);
    daemon.ok(&["stop", "phoenix"]);
    assert_eq!(state(&daemon, "phoenix", "Status"), "exited");
    daemon.finish();
}

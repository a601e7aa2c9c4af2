//! No address is given out twice, whoever is killed at which step of a start.
//!
//! Ten kills; with `GAMUT_TEST_LONG=1` two hundred.

use gamut_tests::{Daemon, Session};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

/// Addresses by network namespace of the daemon's workloads, as the kernel has them: what is on
/// record is what is on trial.
fn addresses(daemon: &Daemon) -> BTreeMap<u64, Vec<String>> {
    let namespace = |pid: u32| fs::metadata(format!("/proc/{pid}/ns/net")).map(|facts| facts.ino());
    let own = namespace(daemon.pid()).unwrap();
    let mut found = BTreeMap::new();
    for pid in daemon.processes() {
        // A process may have ended meanwhile.
        let Ok(inode) = namespace(pid) else { continue };
        if inode == own || found.contains_key(&inode) {
            continue;
        }
        let output = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args(["ip", "-o", "addr", "show", "scope", "global"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let address = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
        found.insert(inode, text.lines().filter_map(address).collect());
    }
    found
}

fn assert_unique(daemon: &Daemon, when: &str) {
    let found = addresses(daemon);
    let mut holders: BTreeMap<&String, u64> = BTreeMap::new();
    for (namespace, addresses) in &found {
        for address in addresses {
            let other = holders.insert(address, *namespace);
            assert!(
                other.is_none(),
                "{when}: {address} is given twice: {found:#?}"
            );
        }
    }
}

/// The youngest supervisor, whose container is about to start.
fn youngest_supervisor(daemon: &Daemon) -> Option<i32> {
    let is_supervisor = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.starts_with("gamut-superv"))
    };
    let supervisors = daemon.processes().into_iter().filter(is_supervisor);
    i32::try_from(supervisors.max()?).ok()
}

#[test]
fn no_address_is_given_twice_whoever_is_killed() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    // Few, so that one that is given back is soon taken again.
    daemon.ok(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.79.0.0/28",
        "--subnet",
        "fd00:79::/64",
        "--ip-range",
        "fd00:79::/124",
        "few",
    ]);
    let is_long = std::env::var_os("GAMUT_TEST_LONG").is_some();
    let rounds: u32 = if is_long { 200 } else { 10 };
    let run = [
        "run",
        "-d",
        "--network",
        "few",
        "-p",
        "80",
        "busybox",
        "sleep",
        "1000",
    ];
    for round in 0..rounds {
        let sessions: Vec<Session> = (0..3).map(|_| daemon.spawn(&run)).collect();
        // From before the first step until after the last.
        std::thread::sleep(Duration::from_micros(u64::from(round * 7919 % 120) * 1000));
        let kills_daemon = round % 2 == 0;
        if kills_daemon {
            daemon.kill_9();
            daemon.restart();
        } else if let Some(pid) = youngest_supervisor(&daemon) {
            // SAFETY: kill(2) takes no pointers; the process is a supervisor of this daemon.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        for session in sessions {
            // It may have succeeded or not; both is right.
            let _ = session.wait();
        }
        let when = format!("round {round}");
        assert_unique(&daemon, &when);
        // What is free now is given to others.
        let next = daemon.gamut(&run);
        assert_eq!(next.code, 0, "{when}: {next:?}");
        assert_unique(&daemon, &when);
        let running = daemon.lines(&["ps", "-a", "-q"]);
        if running.len() > 8 {
            for id in running.iter().skip(2) {
                daemon.ok(&["rm", "-f", id]);
            }
        }
    }
    // Nothing was lost either: without the gateway, all thirteen can be had.
    for id in daemon.lines(&["ps", "-a", "-q"]) {
        daemon.ok(&["rm", "-f", &id]);
    }
    for _ in 0..13 {
        daemon.ok(&run);
    }
    assert_unique(&daemon, "all");
    let full = daemon.gamut(&run);
    assert!(full.stderr.contains("no free address left"), "{full:?}");
    daemon.finish();
}

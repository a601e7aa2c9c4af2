//! Hours of ordinary use in short: clients that make, use and remove containers without end.
//! Nothing leaks, and the daemon does not grow.

use gamut_tests::{Daemon, eventually};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients at once.
const CLIENTS: u32 = 4;

/// How long: `GAMUT_TEST_SOAK_SECONDS`, or twenty minutes.
fn duration() -> Duration {
    let seconds = std::env::var("GAMUT_TEST_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(1200))
}

/// Resident memory of a process in KiB (proc_pid_status(5)).
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.unwrap()
}

/// One client's turn: a container from its beginning to its end, with whatever verbs it picks.
fn turn(daemon: &Daemon, client: u32, number: u64) {
    let name = format!("churn-{client}-{number}");
    let script = "echo begun; sleep 1000";
    daemon.ok(&[
        "run", "-d", "--name", &name, "-v", "/data", "-e", "A=1", "busybox", "sh", "-c", script,
    ]);
    match number % 6 {
        0 => {
            let output = daemon.gamut(&["exec", &name, "sh", "-c", "echo in; exit 3"]);
            assert_eq!((output.code, output.stdout.trim()), (3, "in"));
        }
        1 => {
            daemon.ok(&["pause", &name]);
            daemon.ok(&["unpause", &name]);
        }
        2 => {
            daemon.ok(&["restart", "-t", "0", &name]);
        }
        3 => {
            daemon.ok(&["update", "--memory", "64m", "--memory-swap", "64m", &name]);
            daemon.ok(&["stats", "--no-stream", &name]);
        }
        4 => {
            daemon.ok(&["cp", &format!("{name}:/etc/hosts"), "-"]);
            daemon.ok(&["top", &name]);
        }
        _ => {
            assert_eq!(
                daemon.ok(&["run", "--rm", "busybox", "echo", "short"]),
                "short"
            );
        }
    }
    // A container that was just started (again) may not have come to its first word yet.
    eventually("the log begins", || {
        daemon.ok(&["logs", &name]).starts_with("begun")
    });
    daemon.ok(&["ps", "-a"]);
    if number.is_multiple_of(2) {
        daemon.ok(&["stop", "-t", "0", &name]);
    }
    daemon.ok(&["rm", "-f", "-v", &name]);
}

#[test]
#[ignore = "long: twenty minutes of four busy clients"]
fn churn_leaks_nothing_and_the_daemon_does_not_grow() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let begun = Instant::now();
    let length = duration();
    let turns = AtomicU64::new(0);
    let (mut early_kib, mut last_kib) = (0, 0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (daemon, turns) = (&daemon, &turns);
            scope.spawn(move || {
                for number in 0.. {
                    if begun.elapsed() > length {
                        return;
                    }
                    turn(daemon, client, number);
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The first fifth warms up: caches, threads, the log of events.
        while begun.elapsed() < length {
            std::thread::sleep(length / 50);
            last_kib = resident_kib(daemon.pid());
            if begun.elapsed() < length / 5 {
                early_kib = early_kib.max(last_kib);
            }
        }
    });
    let turns = turns.into_inner();
    println!("{turns} containers in {length:?}: {early_kib} KiB at first, {last_kib} KiB at last");
    assert!(turns > 0);
    // A fifth of leeway for what a moment happens to need.
    assert!(
        last_kib <= early_kib + early_kib / 5,
        "the daemon has grown"
    );
    assert_eq!(daemon.ok(&["system", "fsck"]), "no problems found");
    daemon.finish();
}

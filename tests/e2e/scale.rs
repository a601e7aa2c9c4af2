//! Many containers at once.

use gamut_tests::{Daemon, eventually};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Starts `count` idle containers by the API, `at_once` requests at a time.
fn start_idle(daemon: &Daemon, count: usize, at_once: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100000"]});
                    let path = format!("/containers/create?name=idle{number}");
                    let made = daemon.http("POST", &path, &body.to_string());
                    assert_eq!(made.status, 201, "{}", made.text());
                    let path = format!("/containers/idle{number}/start");
                    let started = daemon.http("POST", &path, "");
                    assert_eq!(started.status, 204, "{}", started.text());
                }
            });
        }
    });
}

/// Proportional set size of a process in KiB (proc_pid_smaps(5)).
fn pss_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.unwrap_or(0)
}

/// All run, each in a control group and with an address of its own, each supervisor is small, and
/// nothing is left of them in the end.
fn many(count: usize, at_once: usize) {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    start_idle(&daemon, count, at_once);
    let running = daemon.http("GET", "/containers/json", "").json();
    let running = running.as_array().unwrap();
    assert_eq!(running.len(), count);
    let mut addresses: Vec<&str> = running
        .iter()
        .map(|one| {
            assert_eq!(one["State"], "running", "{one}");
            let address = &one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"];
            address.as_str().unwrap()
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "an address was given out twice");
    let supervisors: Vec<u32> = daemon
        .processes()
        .into_iter()
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("gamut-superv"))
        })
        .collect();
    assert_eq!(supervisors.len(), count);
    let total_kib: u64 = supervisors.iter().map(|pid| pss_kib(*pid)).sum();
    let mean_kib = total_kib / u64::try_from(count).unwrap();
    println!("{count} idle containers: {mean_kib} KiB PSS per supervisor");
    assert!(mean_kib <= 1024, "{mean_kib} KiB");
    let names: Vec<String> = (0..count).map(|number| format!("idle{number}")).collect();
    let words: Vec<&str> = ["rm", "-f"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    daemon.ok(&words);
    eventually("the supervisors are gone", || daemon.processes().is_empty());
    daemon.finish();
}

#[test]
fn twenty_at_once() {
    many(20, 20);
}

#[test]
#[ignore = "long: a hundred containers at once, a thousand idle ones"]
fn a_hundred_at_once_and_a_thousand_idle() {
    many(100, 100);
    many(1000, 4);
}

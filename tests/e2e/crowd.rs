//! Two hundred clients of the API at once: every answer is right, nothing leaks, and the daemon
//! does not grow.

use gamut_tests::Daemon;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients at once.
const CLIENTS: u32 = 200;

/// Resident memory of a process in KiB (proc_pid_status(5)).
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.unwrap()
}

/// A container from its beginning to its end.
fn container(daemon: &Daemon, name: &str) {
    let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", "echo begun; exit 5"]}).to_string();
    let made = daemon.http("POST", &format!("/containers/create?name={name}"), &body);
    assert_eq!(made.status, 201, "{}", made.text());
    let started = daemon.http("POST", &format!("/containers/{name}/start"), "");
    assert_eq!(started.status, 204, "{}", started.text());
    let waited = daemon.http("POST", &format!("/containers/{name}/wait"), "");
    assert_eq!(waited.json()["StatusCode"], 5);
    let logs = daemon.http("GET", &format!("/containers/{name}/logs?stdout=1"), "");
    // Behind the eight bytes of the frame's head.
    assert_eq!(logs.body.get(8..), Some(&b"begun\n"[..]), "{}", logs.head);
    let removed = daemon.http("DELETE", &format!("/containers/{name}?v=1"), "");
    assert_eq!(removed.status, 204, "{}", removed.text());
}

fn exec(daemon: &Daemon) {
    let body = json!({"AttachStdout": true, "Cmd": ["sh", "-c", "echo in; exit 3"]}).to_string();
    let made = daemon.http("POST", "/containers/witness/exec", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let id = made["Id"].as_str().unwrap();
    let begun = daemon.http("POST", &format!("/exec/{id}/start"), r#"{"Detach": false}"#);
    assert!(
        begun.body.ends_with(b"in\n"),
        "{} {}",
        begun.head,
        begun.text()
    );
    let inspected = daemon.http("GET", &format!("/exec/{id}/json"), "").json();
    assert_eq!(inspected["ExitCode"], 3, "{inspected}");
}

/// One request, or a few that belong together.
fn turn(daemon: &Daemon, client: u32, number: u64) {
    let get = |path: &str| {
        let answer = daemon.http("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer
    };
    match (u64::from(client) + number) % 8 {
        0 => container(daemon, &format!("crowd-{client}-{number}")),
        1 => {
            let listed = get("/containers/json?all=1").json();
            let is_witness = |one: &serde_json::Value| one["Names"][0] == "/witness";
            assert!(listed.as_array().unwrap().iter().any(is_witness));
        }
        2 => assert_eq!(
            get("/containers/witness/json").json()["State"]["Running"],
            true
        ),
        3 => {
            let stats = get("/containers/witness/stats?stream=0&one-shot=1").json();
            assert!(stats["memory_stats"]["usage"].as_u64() > Some(0), "{stats}");
        }
        4 => exec(daemon),
        5 => {
            let logs = get("/containers/witness/logs?stdout=1&tail=3");
            assert_eq!(logs.body.len(), 3 * (8 + "line\n".len()));
        }
        6 => {
            assert!(!get("/images/json").json().as_array().unwrap().is_empty());
            assert!(get("/info").json()["Containers"].as_u64() > Some(0));
        }
        _ => assert_eq!(get("/_ping").text(), "OK"),
    }
}

/// All clients at work for a time, and then as long a rest as idle threads live and free memory is
/// kept. Returns how many turns they took, and the daemon's memory after it.
fn wave(daemon: &Daemon, number: u32, length: Duration) -> (u64, u64) {
    let begun = Instant::now();
    let turns = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let turns = &turns;
            scope.spawn(move || {
                let mut turn_number = u64::from(number) << 32;
                while begun.elapsed() < length {
                    turn(daemon, client, turn_number);
                    turns.fetch_add(1, Ordering::Relaxed);
                    turn_number += 1;
                }
            });
        }
    });
    std::thread::sleep(Duration::from_secs(11));
    (turns.into_inner(), resident_kib(daemon.pid()))
}

fn crowd(length: Duration) {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let script = "for i in 1 2 3 4 5; do echo line; done; exec sleep 100000";
    daemon.detached("witness", &[], script);
    let before = daemon.snapshot_at_rest();
    let (first, first_kib) = wave(&daemon, 1, length / 2);
    let (second, second_kib) = wave(&daemon, 2, length / 2);
    println!("{first} turns, {first_kib} KiB; {second} turns, {second_kib} KiB");
    assert!(first.min(second) > u64::from(CLIENTS));
    // A tenth of leeway for what the allocator happens to keep.
    assert!(
        second_kib <= first_kib + first_kib / 10,
        "the daemon has grown: {first_kib} KiB, then {second_kib} KiB"
    );
    let left = daemon.snapshot_at_rest().difference(&before);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(daemon.ok(&["system", "fsck"]), "no problems found");
    daemon.finish();
}

#[test]
fn two_hundred_clients_alone() {
    crowd(Duration::from_secs(40));
}

#[test]
#[ignore = "long: ten minutes of two hundred clients"]
fn two_hundred_clients_for_ten_minutes_alone() {
    crowd(Duration::from_secs(600));
}

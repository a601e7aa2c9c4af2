//! Restart policies, and workloads that outlive their daemon.

use gamut_tests::{Daemon, eventually};

fn restart_count(daemon: &Daemon, name: &str) -> u64 {
    daemon.inspect(name)["RestartCount"].as_u64().unwrap()
}

#[test]
fn on_failure_tries_so_often_and_no_more() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("flaky", &["--restart", "on-failure:2"], "echo try; exit 9");
    eventually("it has given up", || {
        let state = daemon.inspect("flaky")["State"].take();
        state["Status"] == "exited" && restart_count(&daemon, "flaky") == 2
    });
    assert_eq!(daemon.ok(&["logs", "flaky"]), "try\ntry\ntry");
    assert_eq!(daemon.inspect("flaky")["State"]["ExitCode"], 9);
    // Success is no failure.
    daemon.detached("fine", &["--restart", "on-failure"], "exit 0");
    assert_eq!(daemon.ok(&["wait", "fine"]), "0");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(restart_count(&daemon, "fine"), 0);
    daemon.finish();
}

#[test]
fn always_restarts_until_stopped() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("phoenix", &["--restart", "always"], "echo up; sleep 0.05");
    eventually("it has come back", || {
        restart_count(&daemon, "phoenix") >= 2
    });
    daemon.ok(&["stop", "phoenix"]);
    let count = restart_count(&daemon, "phoenix");
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(restart_count(&daemon, "phoenix"), count, "it was stopped");
    assert_eq!(daemon.inspect("phoenix")["State"]["Status"], "exited");
    daemon.finish();
}

#[test]
fn restarts_go_on_without_the_daemon() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let count = "echo life >> /data/lives; sleep 0.1; exit 1";
    daemon.detached("phoenix", &["--restart", "always"], count);
    daemon.detached("flaky", &["--restart", "on-failure:2"], "sleep 0.2; exit 9");
    eventually("the first life has begun", || {
        daemon.ok(&["ps", "-q"]).lines().count() == 2
    });
    daemon.kill_9();
    std::thread::sleep(std::time::Duration::from_secs(2));
    daemon.restart();
    let lived = restart_count(&daemon, "phoenix");
    assert!(lived >= 2, "{lived} restarts");
    eventually("the other has given up", || {
        daemon.inspect("flaky")["State"]["Status"] == "exited"
    });
    assert_eq!(restart_count(&daemon, "flaky"), 2);
    assert_eq!(daemon.inspect("flaky")["State"]["ExitCode"], 9);
    daemon.ok(&["stop", "-t", "0", "phoenix"]);
    assert_eq!(daemon.inspect("phoenix")["State"]["Status"], "exited");
    let lives = daemon.directory().join("lives");
    daemon.ok(&["cp", "phoenix:/data/lives", &lives.display().to_string()]);
    let lives = std::fs::read_to_string(lives).unwrap().lines().count();
    let restarts = usize::try_from(restart_count(&daemon, "phoenix")).unwrap();
    assert!(
        (restarts..=restarts + 1).contains(&lives),
        "{lives} lives, {restarts} restarts"
    );
    daemon.finish();
}

#[test]
fn workloads_outlive_the_daemon() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    let ticker = "n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.05; done";
    daemon.detached("ticker", &["-p", "8085:80"], ticker);
    daemon.detached("brief", &[], "echo begun; sleep 0.6; echo ended; exit 21");
    daemon.detached(
        "web",
        &["-p", "8086:80"],
        "echo on > /srv/index.html; exec httpd -f -p 80 -h /srv",
    );
    daemon.detached("passing", &["--rm"], "sleep 0.3");
    let pid = daemon.container_pid("ticker");
    eventually("the server answers", || {
        daemon.fetch("127.0.0.1:8086").is_some()
    });

    daemon.kill_9();
    // Nobody notices: the port still answers, the log still grows.
    assert!(daemon.fetch("127.0.0.1:8086").is_some());
    std::thread::sleep(std::time::Duration::from_millis(900));
    daemon.restart();

    assert_eq!(daemon.container_pid("ticker"), pid, "it runs on");
    // What ended meanwhile is found with its code and complete log.
    let brief = daemon.inspect("brief")["State"].take();
    assert_eq!(brief["Status"], "exited", "{brief}");
    assert_eq!(brief["ExitCode"], 21, "{brief}");
    assert_eq!(daemon.ok(&["logs", "brief"]), "begun\nended");
    eventually("--rm is kept, too", || {
        !daemon
            .ok(&["ps", "-a", "--format", "{{.Names}}"])
            .contains("passing")
    });
    let ticks = daemon.ok(&["logs", "ticker"]);
    let numbers: Vec<u32> = ticks
        .lines()
        .map(|line| line[5..].parse().unwrap())
        .collect();
    let expected: Vec<u32> = (1..=u32::try_from(numbers.len()).unwrap()).collect();
    assert_eq!(numbers, expected, "no line is lost or doubled");
    // Everything works on.
    assert_eq!(daemon.ok(&["exec", "ticker", "echo", "hi"]), "hi");
    assert!(daemon.fetch("127.0.0.1:8086").is_some());
    let follower = daemon.spawn(&["logs", "-f", "--tail", "1", "ticker"]);
    follower.expect("tick");
    daemon.ok(&["stop", "-t", "0", "ticker"]);
    assert_eq!(follower.wait().code, 0);

    // An orderly stop is no different.
    let pid = daemon.container_pid("web");
    daemon.restart();
    assert_eq!(daemon.container_pid("web"), pid);
    daemon.ok(&["rm", "-f", "web"]);
    assert!(daemon.fetch("127.0.0.1:8086").is_none());
    daemon.finish();
}

#[test]
fn what_was_stopped_stays_stopped_after_a_restart_of_the_daemon() {
    let Some(mut daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("unless", &["--restart", "unless-stopped"], "sleep 1000");
    daemon.detached("always", &["--restart", "always"], "sleep 1000");
    daemon.detached("never", &[], "sleep 1000");
    daemon.ok(&["stop", "-t", "0", "unless", "never"]);
    let pid = daemon.container_pid("always");
    daemon.restart();
    let status = |name: &str| {
        daemon.inspect(name)["State"]["Status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(status("unless"), "exited");
    assert_eq!(status("never"), "exited");
    assert_eq!(status("always"), "running");
    assert_eq!(daemon.container_pid("always"), pid);
    daemon.ok(&["start", "unless"]);
    daemon.kill_9();
    daemon.restart();
    assert_eq!(daemon.inspect("unless")["State"]["Status"], "running");
    daemon.finish();
}

#[test]
fn a_signal_that_asks_to_end_is_the_end() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let ends = "trap 'exit 3' TERM HUP USR1; echo up; while true; do sleep 0.05; done";
    let up = |name: &str, count: usize| {
        eventually(&format!("{name} is up"), || {
            daemon.ok(&["logs", name]).lines().count() == count
        });
    };
    daemon.detached("term", &["--restart", "always"], ends);
    daemon.detached(
        "own",
        &["--restart", "always", "--stop-signal", "USR1"],
        ends,
    );
    daemon.detached("other", &["--restart", "always"], ends);
    for name in ["term", "own", "other"] {
        up(name, 1);
    }
    daemon.ok(&["kill", "-s", "TERM", "term"]);
    daemon.ok(&["kill", "-s", "USR1", "own"]);
    daemon.ok(&["kill", "-s", "HUP", "other"]);
    up("other", 2);
    for name in ["term", "own"] {
        eventually(&format!("{name} has ended"), || {
            daemon.inspect(name)["State"]["Status"] == "exited"
        });
        assert_eq!(restart_count(&daemon, name), 0, "{name}");
    }
    // One that is down, to be started again later, stays down.
    daemon.detached("down", &["--restart", "always"], "exit 1");
    eventually("it has been started again often", || {
        restart_count(&daemon, "down") >= 4
    });
    eventually("it waits", || {
        daemon.inspect("down")["State"]["Status"] == "restarting"
    });
    daemon.ok(&["kill", "-s", "TERM", "down"]);
    eventually("it has ended", || {
        daemon.inspect("down")["State"]["Status"] == "exited"
    });
    // Started by a user, each has its policy again.
    daemon.ok(&["start", "term"]);
    up("term", 2);
    daemon.ok(&["kill", "-s", "HUP", "term"]);
    up("term", 3);
    daemon.finish();
}

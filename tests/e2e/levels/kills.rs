//! `kill -9` of the daemon, the supervisor and the first process.

use super::{Level, at_every_level, said, state};
use gamut_tests::eventually;

at_every_level!(
    it_outlives_the_daemon,
    with_its_supervisor_it_ends,
    killed_from_outside_it_has_ended,
);

fn kill(pid: u32) {
    let pid = libc::pid_t::try_from(pid).unwrap();
    // SAFETY: plain call; the id is positive, so exactly one process is meant.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn it_outlives_the_daemon(level: Level) {
    let Some(mut daemon) = level.daemon() else {
        return;
    };
    level.start(
        &daemon,
        "web",
        &["-p", "8086:80", "--hostname", "web"],
        &["serve"],
    );
    level.start(
        &daemon,
        "brief",
        &[],
        &[
            "do", "print", "begun", "then", "sleep", "1", "then", "exit", "21",
        ],
    );
    level.start(&daemon, "passing", &["--rm"], &["sleep", "1"]);
    let flaky = ["do", "print", "try", "then", "exit", "9"];
    level.start(&daemon, "flaky", &["--restart", "on-failure:3"], &flaky);
    eventually("the server answers", || {
        daemon.fetch("127.0.0.1:8086").is_some()
    });
    let pid = daemon.container_pid("web");
    daemon.kill_9();
    assert!(daemon.fetch("127.0.0.1:8086").is_some());
    std::thread::sleep(std::time::Duration::from_millis(1500));
    daemon.restart();
    assert_eq!(daemon.container_pid("web"), pid, "it runs on");
    assert!(daemon.fetch("127.0.0.1:8086").is_some());
    eventually("what ended meanwhile is known", || {
        state(&daemon, "brief", "Status") == "exited"
    });
    assert_eq!(state(&daemon, "brief", "ExitCode"), 21);
    assert_eq!(daemon.ok(&["logs", "brief"]), "begun");
    eventually("its policy has been obeyed", || {
        daemon.inspect("flaky")["RestartCount"] == 3
    });
    eventually("--rm is kept, too", || {
        !daemon
            .ok(&["ps", "-a", "--format", "{{.Names}}"])
            .contains("passing")
    });
    daemon.ok(&["stop", "web"]);
    assert_eq!(state(&daemon, "web", "ExitCode"), 0);
    daemon.finish();
}

fn with_its_supervisor_it_ends(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    level.start(&daemon, "orphan", &[], &["stop", "wait"]);
    said(&daemon, "orphan", "waiting");
    kill(daemon.supervisor_pid("orphan"));
    eventually("it has ended", || {
        state(&daemon, "orphan", "Status") == "exited"
    });
    assert_eq!(state(&daemon, "orphan", "ExitCode"), 137);
    daemon.ok(&["start", "orphan"]);
    daemon.ok(&["stop", "orphan"]);
    daemon.finish();
}

fn killed_from_outside_it_has_ended(level: Level) {
    let Some(daemon) = level.daemon() else {
        return;
    };
    level.start(
        &daemon,
        "victim",
        &["--restart", "on-failure:1"],
        &["stop", "wait"],
    );
    said(&daemon, "victim", "waiting");
    let first = daemon.container_pid("victim");
    kill(first);
    eventually("it is started again", || {
        daemon.inspect("victim")["RestartCount"] == 1
            && daemon.inspect("victim")["State"]["Pid"] != 0
    });
    assert_ne!(daemon.container_pid("victim"), first);
    daemon.ok(&["stop", "victim"]);
    daemon.finish();
}

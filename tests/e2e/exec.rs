//! `gamut exec`.

use gamut_tests::{Daemon, eventually};

#[test]
fn exec_runs_further_processes_in_a_container() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let options = ["-e", "FROM=run", "-w", "/srv", "--hostname", "inner"];
    daemon.detached("main", &options, "sleep 1000");
    let exec = |arguments: &[&str]| {
        let arguments: Vec<_> = ["exec"].iter().chain(arguments).copied().collect();
        daemon.gamut(&arguments)
    };

    // Its namespaces, environment and directory are the container's.
    let script = "hostname; pwd; echo $FROM; ps -o comm | grep -c sleep";
    assert_eq!(
        exec(&["main", "sh", "-c", script]).ok(),
        "inner\n/srv\nrun\n1"
    );
    // Streams and input.
    let output = exec(&["main", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
    let heard = daemon.gamut_with_input(&["exec", "-i", "main", "cat"], b"through exec");
    assert_eq!(heard.ok(), "through exec");
    // Flags.
    assert_eq!(
        exec(&["-e", "FROM=exec", "main", "sh", "-c", "echo $FROM"]).ok(),
        "exec"
    );
    assert_eq!(exec(&["-w", "/data", "main", "pwd"]).ok(), "/data");
    assert_eq!(
        exec(&["-u", "alice", "main", "sh", "-c", "id -un; echo $HOME"]).ok(),
        "alice\n/home/alice"
    );
    assert_eq!(
        exec(&["-u", "12:34", "main", "sh", "-c", "echo $(id -u):$(id -g)"]).ok(),
        "12:34"
    );
    // Exit codes.
    assert_eq!(exec(&["main", "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(exec(&["main", "sh", "-c", "kill -KILL $$"]).code, 137);
    let error = exec(&["main", "no-such-command"]).fails(127);
    assert!(error.contains("no-such-command"), "{error}");
    let _ = exec(&["main", "/etc/not-executable"]).fails(126);
    // Detached: it runs on, in the container.
    assert_eq!(
        exec(&["-d", "main", "sh", "-c", "sleep 0.2; echo done > /tmp/mark"]).ok(),
        ""
    );
    eventually("the detached process has run", || {
        exec(&["main", "cat", "/tmp/mark"]).stdout == "done\n"
    });
    // It is limited as the container is: in its control group.
    let groups = exec(&["main", "cat", "/proc/1/cgroup"]).ok();
    assert_eq!(exec(&["main", "cat", "/proc/self/cgroup"]).ok(), groups);

    let error = exec(&["nobody", "true"]).fails(1);
    assert!(error.contains("nobody"), "{error}");
    daemon.ok(&["stop", "-t", "0", "main"]);
    let error = exec(&["main", "true"]).fails(1);
    assert!(error.contains("not running"), "{error}");
    daemon.finish();
}

#[test]
fn execs_end_with_their_container() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("main", &[], "sleep 1000");
    let exec = daemon.spawn(&["exec", "main", "sh", "-c", "echo up; sleep 1000"]);
    exec.expect("up");
    daemon.ok(&["kill", "main"]);
    assert_eq!(exec.wait().code, 137);
    daemon.finish();
}

#[test]
fn many_execs_at_once() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached("main", &[], "sleep 1000");
    let started: Vec<_> = (0..20)
        .map(|n| {
            let script = format!("sleep 0.1; echo number {n}; exit {n}");
            (n, daemon.spawn(&["exec", "main", "sh", "-c", &script]))
        })
        .collect();
    for (n, session) in started {
        let output = session.wait();
        assert_eq!(output.code, n);
        assert_eq!(output.stdout, format!("number {n}\n"));
    }
    daemon.finish();
}

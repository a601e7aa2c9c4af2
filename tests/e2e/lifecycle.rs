//! Verbs on containers: start, stop, kill, pause, wait, rename, update, top, stats, events, ps.

use gamut_tests::{Daemon, eventually};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

#[test]
fn create_start_stop_restart_rm() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&[
        "create",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo run >> /data/runs; exec sleep 1000",
    ]);
    assert_eq!(daemon.inspect("box")["State"]["Status"], "created");
    assert_eq!(daemon.ok(&["ps", "-q"]), "");
    assert_eq!(daemon.ok(&["start", "box"]), "box");
    assert_eq!(daemon.ok(&["start", "box"]), "box"); // already running: nothing to do
    let first = daemon.container_pid("box");
    daemon.ok(&["restart", "-t", "0", "box"]);
    assert_ne!(daemon.container_pid("box"), first);
    // The writable layer lives through restarts.
    eventually("it has run twice", || {
        daemon.gamut(&["exec", "box", "cat", "/data/runs"]).stdout == "run\nrun\n"
    });
    let error = daemon.gamut(&["rm", "box"]).fails(1);
    assert!(error.contains("running"), "{error}");
    assert_eq!(daemon.ok(&["stop", "-t", "0", "box"]), "box");
    assert_eq!(daemon.ok(&["stop", "box"]), "box"); // already stopped
    let state = daemon.inspect("box")["State"].take();
    assert_eq!(state["Status"], "exited");
    assert_eq!(state["ExitCode"], 137);
    assert_eq!(daemon.ok(&["rm", "box"]), "box");
    let error = daemon.gamut(&["start", "box"]).fails(1);
    assert!(error.contains("No such container: box"), "{error}");
    daemon.finish();
}

#[test]
fn stop_sends_the_stop_signal_and_waits() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let script = "trap 'echo polite; exit 11' TERM; trap 'echo asked; exit 12' USR1; while true; do sleep 0.05; done";
    let stopped = |name: &str| {
        daemon.ok(&["stop", name]);
        let code = daemon.inspect(name)["State"]["ExitCode"].take();
        (code.as_i64().unwrap(), daemon.ok(&["logs", name]))
    };
    let up = |name: &str| {
        std::thread::sleep(std::time::Duration::from_millis(300)); // the traps are set
        daemon.container_pid(name)
    };
    daemon.detached("term", &[], script);
    up("term");
    assert_eq!(stopped("term"), (11, "polite".to_owned()));
    daemon.detached("usr1", &["--stop-signal", "SIGUSR1"], script);
    up("usr1");
    assert_eq!(stopped("usr1"), (12, "asked".to_owned()));
    // Whoever does not listen is killed when the time is up.
    daemon.detached(
        "deaf",
        &["--stop-timeout", "1"],
        "trap '' TERM; while true; do sleep 0.05; done",
    );
    up("deaf");
    let begun = std::time::Instant::now();
    assert_eq!(stopped("deaf").0, 137);
    let took = begun.elapsed().as_millis();
    assert!((900..4000).contains(&took), "{took} ms");
    // kill: any signal, by name or number.
    daemon.detached("killed", &[], script);
    up("killed");
    daemon.ok(&["kill", "-s", "USR1", "killed"]);
    assert_eq!(daemon.ok(&["wait", "killed"]), "12");
    let error = daemon.gamut(&["kill", "killed"]).fails(1);
    assert!(error.contains("not running"), "{error}");
    let error = daemon
        .gamut(&["run", "--stop-signal", "SIGNONSENSE", "busybox"])
        .fails(125);
    assert!(error.contains("SIGNONSENSE"), "{error}");
    daemon.finish();
}

#[test]
fn wait_pause_rename() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "early",
        &["-i"],
        "while read x && test -z $x; do echo again; done; exit 6",
    );
    // The head of the answer comes as soon as it is waited for.
    let mut waiter = UnixStream::connect(daemon.socket()).unwrap();
    waiter
        .write_all(b"POST /containers/early/wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = [0; 12];
    waiter.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    daemon.ok(&["rename", "early", "late"]);
    assert!(daemon.gamut(&["inspect", "early"]).code != 0);
    assert_eq!(daemon.inspect("late")["Name"], "/late");

    let mut attached = daemon.spawn(&["attach", "late"]);
    eventually("it is attached", || {
        attached.write("\n");
        attached.stdout().contains("again")
    });

    // Paused, it does nothing, and says so.
    daemon.ok(&["pause", "late"]);
    assert_eq!(daemon.inspect("late")["State"]["Status"], "paused");
    let status = daemon.ok(&["ps", "--format", "{{.Status}}"]);
    assert!(status.contains("(Paused)"), "{status}");
    let error = daemon.gamut(&["exec", "late", "true"]).fails(1);
    assert!(error.contains("paused"), "{error}");
    let error = daemon.gamut(&["attach", "late"]).fails(1);
    assert!(error.contains("paused"), "{error}");
    let error = daemon.gamut(&["pause", "late"]).fails(1);
    assert!(error.contains("paused"), "{error}");
    attached.write("go\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(daemon.inspect("late")["State"]["Running"], true);
    daemon.ok(&["unpause", "late"]);
    let mut rest = String::new();
    waiter.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"StatusCode\":6"), "{rest}");
    assert_eq!(attached.wait().code, 6);
    assert_eq!(daemon.ok(&["wait", "late"]), "6");

    // A paused container can be stopped and removed.
    daemon.detached("frozen", &[], "sleep 1000");
    daemon.ok(&["pause", "frozen"]);
    daemon.ok(&["stop", "-t", "1", "frozen"]);
    assert_eq!(daemon.inspect("frozen")["State"]["Status"], "exited");
    daemon.detached("frozen2", &[], "sleep 1000");
    daemon.ok(&["pause", "frozen2"]);
    daemon.ok(&["rm", "-f", "frozen2"]);
    let error = daemon.gamut(&["rename", "frozen", "late"]).fails(1);
    assert!(error.contains("in use"), "{error}");
    daemon.finish();
}

#[test]
fn ps_filters_and_formats() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "web-1",
        &["--label", "tier=web", "-p", "127.0.0.1:8081:80"],
        "sleep 1000",
    );
    daemon.detached(
        "web-2",
        &["--label", "tier=web", "--label", "blue"],
        "sleep 1000",
    );
    daemon.detached("job", &["-v", "state:/state"], "exit 3");
    daemon.ok(&["wait", "job"]);
    let names = |arguments: &[&str]| {
        let head = ["ps", "--format", "{{.Names}}"];
        let arguments: Vec<_> = head.iter().chain(arguments).copied().collect();
        let mut names = daemon.lines(&arguments);
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "web-1 web-2");
    assert_eq!(names(&["-a"]), "job web-1 web-2");
    assert_eq!(names(&["-l"]), "job");
    assert_eq!(names(&["-n", "2"]), "job web-2");
    assert_eq!(names(&["--filter", "label=tier=web"]), "web-1 web-2");
    assert_eq!(names(&["--filter", "label=blue"]), "web-2");
    assert_eq!(names(&["--filter", "name=web"]), "web-1 web-2");
    assert_eq!(names(&["-a", "--filter", "status=exited"]), "job");
    assert_eq!(names(&["-a", "--filter", "exited=3"]), "job");
    assert_eq!(names(&["-a", "--filter", "volume=state"]), "job");
    assert_eq!(
        names(&["-a", "--filter", "ancestor=busybox"]),
        "job web-1 web-2"
    );
    let error = daemon.gamut(&["ps", "--filter", "colour=red"]).fails(1);
    assert!(error.contains("colour"), "{error}");

    let table = daemon.ok(&["ps"]);
    assert!(table.starts_with("CONTAINER ID"), "{table}");
    assert!(table.contains("127.0.0.1:8081->80/tcp"), "{table}");
    let line = daemon.ok(&[
        "ps",
        "-a",
        "--filter",
        "name=job",
        "--format",
        "{{.Image}}|{{.Status}}",
    ]);
    assert!(line.starts_with("busybox|Exited (3)"), "{line}");
    assert_eq!(daemon.lines(&["ps", "-q", "--no-trunc"])[0].len(), 64);
    let json = daemon.ok(&["ps", "--format", "json", "--filter", "name=web-2"]);
    assert!(json.contains("\"Names\":\"web-2\""), "{json}");
    daemon.finish();
}

#[test]
fn top_stats_inspect_update_port() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "box",
        &["-p", "8099:80/tcp"],
        "sleep 1000 & sleep 1000 & echo > /data/new; rm /data/notes; wait",
    );
    eventually("both children run", || {
        daemon.ok(&["top", "box"]).matches("sleep 1000").count() >= 2
    });
    assert!(daemon.ok(&["top", "box"]).contains("PID"));

    let stats = daemon.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.MemUsage}} {{.PIDs}}",
        "box",
    ]);
    assert!(
        stats.starts_with("box ") && stats.contains('/') && stats.ends_with(" 3"),
        "{stats}"
    );

    let inspected = daemon.inspect("box");
    assert_eq!(inspected["State"]["Running"], true);
    assert_eq!(inspected["Config"]["Image"], "busybox");
    assert_eq!(inspected["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.Status}}", "box"]),
        "running"
    );

    assert_eq!(
        daemon.ok(&["port", "box", "80/tcp"]).lines().next(),
        Some("0.0.0.0:8099")
    );
    daemon.ok(&[
        "update",
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
        "--pids-limit",
        "50",
        "--cpu-shares",
        "512",
        "box",
    ]);
    let host = daemon.inspect("box")["HostConfig"].take();
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["PidsLimit"], 50);
    let stats = daemon.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "box"]);
    assert!(stats.ends_with("64MiB"), "{stats}");
    daemon.ok(&["update", "--restart", "on-failure:3", "box"]);
    let policy = daemon.inspect("box")["HostConfig"]["RestartPolicy"].take();
    assert_eq!(policy["Name"], "on-failure");
    assert_eq!(policy["MaximumRetryCount"], 3);
    daemon.finish();
}

#[test]
fn events_tell_the_story() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let live = daemon.spawn(&[
        "events",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ]);
    // Wait until it listens: events of containers that come and go for that.
    eventually("it listens", || {
        let _ = daemon.shell(&[], "true").ok();
        live.stdout().contains("destroy")
    });
    daemon.detached("told", &["--label", "a=b"], "exit 2");
    daemon.ok(&["wait", "told"]);
    daemon.ok(&["rename", "told", "retold"]);
    daemon.ok(&["rm", "retold"]);
    live.expect("rename");
    eventually("the last event arrives", || {
        live.stdout().trim_end().ends_with("rename\ndestroy")
    });
    let story = live.stdout();
    let story: Vec<_> = story.lines().collect();
    let last: Vec<_> = story[story.len() - 5..].to_vec();
    assert_eq!(last, ["create", "start", "die", "rename", "destroy"]);

    // The past can be asked for, too.
    let past = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=told",
        "--filter",
        "event=die",
        "--format",
        "{{json .Actor}}",
    ];
    let past = daemon.ok(&past);
    assert!(past.contains("\"exitCode\":\"2\""), "{past}");
    drop(live);
    daemon.finish();
}

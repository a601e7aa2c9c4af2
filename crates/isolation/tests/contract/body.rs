//! A life from prepare to delete.

use super::support::{Client, OUTPUT, Rig};
use gamut_abi::control::{Event, RestartPolicy};
use gamut_abi::plan::TerminalSize;
use gamut_abi::resources::{Limit, Resources};
use gamut_abi::status::State;
use gamut_isolation::contract::{Events, ExecSpec, Isolation, Started};
use gamut_isolation::{Context, Error};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

const ID: &str = "aaaa000000000000000000000000000000000000000000000000000000000001";
const TERMINAL_ID: &str = "aaaa000000000000000000000000000000000000000000000000000000000002";
const SCRIPT: &str = "trap 'exit 7' TERM; trap 'echo usr1' USR1; echo ready; \
                      while :; do sleep 0.05; done";

pub fn run(rig: &Rig) {
    let level = &*rig.level;
    let context = Context {
        request_id: "r1".to_owned(),
        ..Context::default()
    };
    let pid = begin(rig, &context);
    further_processes(rig, &context);
    freezing(level, &context);
    limits_and_use(rig, &context, pid);
    attaching(level, &context);
    files(level, &context);
    connecting(level, &context, pid);
    for _ in 0..2 {
        let done = level.checkpoint(&context, ID, Path::new("/nowhere"));
        assert!(rig.accept("checkpoint", done).is_none());
    }
    ending(level, &context);
    gone(level, &context);
    terminal(rig, &context);
    assert_eq!(level.list().unwrap(), Vec::<String>::new());
}

fn begin(rig: &Rig, context: &Context) -> u32 {
    let level = &*rig.level;
    assert_eq!(level.status(ID).unwrap(), None);
    rig.prepare(context, ID);
    rig.prepare(context, ID);
    let (mut client, attached) = Client::new();
    let mut workload = rig.workload(ID, rig.config(SCRIPT));
    workload.attached.push(attached);
    let created = level.create(context, workload).unwrap();
    let again = level
        .create(context, rig.workload(ID, rig.config(SCRIPT)))
        .unwrap();
    assert_eq!(created.pid, again.pid);
    assert_eq!(level.status(ID).unwrap().unwrap().state, State::Created);
    assert_eq!(level.list().unwrap(), [ID]);
    let Started { pid, .. } = level.start(context, ID).unwrap();
    assert_ne!(pid, 0);
    assert_eq!(level.start(context, ID).unwrap().pid, pid);
    client.expect("ready\n");
    let status = level.status(ID).unwrap().unwrap();
    assert_eq!(
        (status.state, status.pid, status.exit),
        (State::Running, pid, None)
    );
    assert!(status.started_ns > 0);
    for _ in 0..2 {
        level
            .signal(context, ID, None, libc::SIGUSR1, false)
            .unwrap();
        client.expect("usr1\n");
    }
    for _ in 0..2 {
        level
            .signal(context, ID, None, libc::SIGCONT, true)
            .unwrap();
    }
    pid
}

fn exec_spec(rig: &Rig, id: &str, args: &[&str], attach: bool) -> ExecSpec {
    let mut process = rig.config("")["process"].clone();
    process["args"] = json!(args);
    ExecSpec {
        id: id.to_owned(),
        process: serde_json::from_value(process).unwrap(),
        user: None,
        attach: attach.then_some(OUTPUT),
    }
}

fn further_processes(rig: &Rig, context: &Context) {
    let level = &*rig.level;
    for id in ["e1", "e2"] {
        let (mut client, attached) = Client::new();
        let spec = exec_spec(rig, id, &["sh", "-c", "echo out; echo err >&2"], true);
        let started = level
            .exec(context, ID, spec, Some(attached.stream))
            .unwrap();
        assert_ne!(started.pid, 0);
        client.expect("out\n");
        client.expect_end();
    }
    let sleep = || exec_spec(rig, "e3", &["sleep", "100"], false);
    let mut events = level.watch(context, ID).unwrap();
    assert!(matches!(events.next().unwrap(), Some(Event::Status(_))));
    level.exec(context, ID, sleep(), None).unwrap();
    let twice = level.exec(context, ID, sleep(), None);
    assert!(matches!(twice, Err(Error::State { .. })), "{twice:?}");
    level
        .signal(context, ID, Some("e3"), libc::SIGKILL, false)
        .unwrap();
    let exit = loop {
        match events.next().unwrap() {
            Some(Event::ExecExited { exec_id, exit }) if exec_id == "e3" => break exit,
            Some(_) => {}
            None => panic!("the events ended"),
        }
    };
    assert_eq!((exit.code, exit.signal), (137, 9));
    level
        .signal(context, ID, Some("e3"), libc::SIGKILL, false)
        .unwrap_err();
    for _ in 0..2 {
        let missing = exec_spec(rig, "e4", &["no-such-program"], false);
        let missing = level.exec(context, ID, missing, None);
        assert!(
            matches!(missing, Err(Error::ExecutableNotFound(_))),
            "{missing:?}"
        );
        let path = if level.processes(context, ID).is_ok() && rig.root.join("bin/sh").exists() {
            "/bin/not-executable".to_owned()
        } else {
            rig.root.join("bin/not-executable").display().to_string()
        };
        let denied = level.exec(context, ID, exec_spec(rig, "e5", &[&path], false), None);
        assert!(
            matches!(denied, Err(Error::ExecutableDenied(_))),
            "{denied:?}"
        );
    }
}

fn freezing(level: &dyn Isolation, context: &Context) {
    let state = || level.status(ID).unwrap().unwrap().state;
    for _ in 0..2 {
        level.pause(context, ID).unwrap();
        assert_eq!(state(), State::Paused);
    }
    for _ in 0..2 {
        level.resume(context, ID).unwrap();
        assert_eq!(state(), State::Running);
    }
}

fn limits_and_use(rig: &Rig, context: &Context, pid: u32) {
    let level = &*rig.level;
    let limits = Resources {
        pids_max: Some(Limit::Value(50)),
        ..Resources::default()
    };
    for _ in 0..2 {
        let updated = level.update(context, ID, Some(limits.clone()), None);
        rig.accept("limits", updated);
        level
            .update(context, ID, None, Some(RestartPolicy::Never))
            .unwrap();
        if let Some(stats) = rig.accept("stats", level.stats(context, ID)) {
            let pids = stats.pids;
            assert!(pids.current >= 1, "{pids:?}");
            assert_eq!(pids.limit, Limit::Value(50), "{pids:?}");
        }
        assert!(level.processes(context, ID).unwrap().contains(&pid));
    }
}

fn attaching(level: &dyn Isolation, context: &Context) {
    for _ in 0..2 {
        let (mut client, attached) = Client::new();
        level
            .attach(context, ID, attached.attach, attached.stream)
            .unwrap();
        level
            .signal(context, ID, None, libc::SIGUSR1, false)
            .unwrap();
        client.expect("usr1\n");
    }
}

fn files(level: &dyn Isolation, context: &Context) {
    for _ in 0..2 {
        let root = level.root(context, ID).unwrap();
        let marker = format!("/proc/self/fd/{}/marker", root.as_raw_fd());
        assert_eq!(std::fs::read_to_string(marker).unwrap(), "here");
    }
}

/// A server on the workload's loopback interface is reached, by either address family's.
fn connecting(level: &dyn Isolation, context: &Context, pid: u32) {
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let server = std::thread::spawn(move || {
        // SAFETY: setns only takes a descriptor and flags, and concerns this thread alone.
        let entered = unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        let namespace = |path| std::fs::read_link(path).unwrap();
        if namespace("/proc/thread-self/ns/net") != namespace("/proc/self/ns/net") {
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
        }
        let mut listeners = vec![TcpListener::bind("127.0.0.1:0").unwrap()];
        // A machine may be without IPv6.
        listeners.extend(TcpListener::bind("[::1]:0"));
        listeners
    });
    for listener in server.join().unwrap() {
        let port = listener.local_addr().unwrap().port();
        for _ in 0..2 {
            let mut stream = level.dial(context, ID, port).unwrap();
            listener.accept().unwrap().0.write_all(b"hello").unwrap();
            let mut got = String::new();
            stream.read_to_string(&mut got).unwrap();
            assert_eq!(got, "hello");
        }
        drop(listener);
        let refused = level.dial(context, ID, port);
        assert!(matches!(refused, Err(Error::System { .. })), "{refused:?}");
    }
}

/// The exit that a watcher is told of, and then the end of the events.
fn exit_of(mut events: Box<dyn Events>) -> i32 {
    let mut code = None;
    while let Some(event) = events.next().unwrap() {
        if let Event::Exited {
            exit,
            restart_in_ms: None,
        } = event
        {
            code = Some(exit.code);
        }
    }
    code.unwrap()
}

fn ending(level: &dyn Isolation, context: &Context) {
    let watchers = [
        level.watch(context, ID).unwrap(),
        level.watch(context, ID).unwrap(),
    ];
    for _ in 0..2 {
        level.stop(context, ID, libc::SIGTERM, Some(5_000)).unwrap();
        let status = level.status(ID).unwrap().unwrap();
        assert_eq!((status.state, status.pid), (State::Exited, 0));
        assert_eq!(status.exit.unwrap().code, 7);
    }
    for events in watchers {
        assert_eq!(exit_of(events), 7);
    }
    let (_, attached) = Client::new();
    for refused in [
        level.start(context, ID).map(|_| ()),
        level.signal(context, ID, None, libc::SIGTERM, false),
        level.pause(context, ID),
        level.resume(context, ID),
        level.attach(context, ID, attached.attach, attached.stream),
        level.processes(context, ID).map(|_| ()),
        level.root(context, ID).map(|_| ()),
        level.watch(context, ID).map(|_| ()),
    ] {
        assert!(matches!(refused, Err(Error::State { .. })), "{refused:?}");
    }
    for _ in 0..2 {
        level.delete(context, ID).unwrap();
        assert_eq!(level.status(ID).unwrap(), None);
        assert_eq!(level.list().unwrap(), Vec::<String>::new());
    }
}

fn gone(level: &dyn Isolation, context: &Context) {
    level.stop(context, ID, libc::SIGTERM, Some(5_000)).unwrap();
    for missing in [
        level.start(context, ID).map(|_| ()),
        level.signal(context, ID, None, libc::SIGTERM, false),
        level.pause(context, ID),
        level.update(context, ID, None, None),
        level.stats(context, ID).map(|_| ()),
        level.dial(context, ID, 80).map(|_| ()),
        level.watch(context, ID).map(|_| ()),
    ] {
        assert!(
            matches!(missing, Err(Error::NotFound { .. })),
            "{missing:?}"
        );
    }
}

fn terminal(rig: &Rig, context: &Context) {
    let level = &*rig.level;
    rig.prepare(context, TERMINAL_ID);
    let mut config = rig.config("while :; do stty size; sleep 0.05; done");
    config["process"]["terminal"] = json!(true);
    config["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    let (mut client, attached) = Client::new();
    let mut workload = rig.workload(TERMINAL_ID, config);
    workload.attached.push(attached);
    if rig
        .accept("terminal", level.create(context, workload))
        .is_some()
    {
        level.start(context, TERMINAL_ID).unwrap();
        client.expect("30 90");
        for _ in 0..2 {
            let size = TerminalSize {
                rows: 40,
                columns: 100,
            };
            level.resize(context, TERMINAL_ID, None, size).unwrap();
            client.expect("40 100");
        }
    }
    for _ in 0..2 {
        level.delete(context, TERMINAL_ID).unwrap();
    }
}

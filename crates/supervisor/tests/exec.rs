//! Exec sessions and frozen containers.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use gamut_abi::control::{Event, FailureKind, Reply, Verb};
use gamut_abi::plan::NamespaceKind;
use gamut_abi::status::State;
use std::io::{Read, Write};
use std::time::Duration;

#[test]
fn exec_streams_then_event_then_end() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 60");
    sandbox.start();
    let mut watchers = [sandbox.watch(), sandbox.watch(), sandbox.watch()];
    let mut stream = sandbox
        .exec("e1", shell("cat; echo err >&2; exit 4"), Some(ALL))
        .unwrap();
    stream.write_all(b"hello\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (stdout, stderr) = demultiplex(&mut stream);
    assert_eq!((&stdout[..], &stderr[..]), (&b"hello\n"[..], &b"err\n"[..]));
    // The stream has ended: the event must be on its way already.
    for watcher in &mut watchers {
        assert!(is_readable(watcher));
        let events = events_until(watcher, |event| matches!(event, Event::ExecExited { .. }));
        let Some(Event::ExecExited { exec_id, exit }) = events.last() else {
            panic!()
        };
        assert_eq!((&exec_id[..], exit.code), ("e1", 4));
    }
    let missing = sandbox
        .exec("e2", process(&["/bin/nothing"]), None)
        .map(|_| Reply::Done);
    assert_eq!(kind(missing), FailureKind::ExecutableNotFound);
    sandbox
        .exec("e3", process(&["/bin/sleep", "60"]), None)
        .unwrap();
    let again = sandbox
        .exec("e3", process(&["/bin/true"]), None)
        .map(|_| Reply::Done);
    assert_eq!(kind(again), FailureKind::State);
    let signal = Verb::ExecSignal {
        exec_id: "e3".to_owned(),
        signal: libc::SIGKILL,
    };
    sandbox.request(signal).unwrap();
    let [watcher, ..] = &mut watchers;
    let events = events_until(watcher, |event| matches!(event, Event::ExecExited { .. }));
    let Some(Event::ExecExited { exit, .. }) = events.last() else {
        panic!()
    };
    assert_eq!((exit.code, exit.signal), (137, 9));
}

#[test]
fn execs_die_with_the_container() {
    if !possible() {
        return;
    }
    for own_pid_namespace in [true, false] {
        let mut sandbox = Sandbox::new("read line; echo bye; sleep 50 &").stdin(true);
        if !own_pid_namespace {
            sandbox
                .launch
                .plan
                .namespaces
                .retain(|n| n.kind != NamespaceKind::Pid);
        }
        let mut stream = sandbox.start_attached(ALL);
        let mut exec = sandbox
            .exec("e", shell("echo up; sleep 60"), Some(OUTPUT))
            .unwrap();
        let mut watcher = sandbox.watch();
        // Only once it has spoken may it be killed: a header of eight bytes and its text.
        let mut first = [0; 11];
        exec.read_exact(&mut first).unwrap();
        assert_eq!(first[8..], *b"up\n");
        stream.write_all(b"\n").unwrap();
        assert_eq!(demultiplex(&mut stream).0, b"bye\n");
        assert_eq!(demultiplex(&mut exec).0, b"");
        events_until(&mut watcher, |event| {
            matches!(event, Event::ExecExited { .. })
        });
        sandbox.wait_exit();
    }
}

#[test]
fn exec_with_a_terminal() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("sleep 60");
    sandbox.start();
    let mut process = shell("stty size; tty -s && echo yes; exit 0");
    process.terminal = Some(gamut_abi::plan::TerminalSize {
        rows: 11,
        columns: 22,
    });
    let mut stream = sandbox.exec("t", process, Some(ALL)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("11 22\r\n"), "{text}");
}

#[test]
fn pause_resume_and_stop_of_a_paused_container() {
    if !possible() {
        return;
    }
    let mut sandbox = Sandbox::new("trap 'exit 6' TERM; while :; do sleep 0.02; done");
    sandbox.start();
    std::thread::sleep(Duration::from_millis(100));
    sandbox.request(Verb::Pause).unwrap();
    sandbox.request(Verb::Pause).unwrap();
    assert_eq!(sandbox.status().state, State::Paused);
    let refused = sandbox.exec("e", shell("true"), None).map(|_| Reply::Done);
    assert_eq!(kind(refused), FailureKind::State);
    sandbox.request(Verb::Resume).unwrap();
    assert_eq!(sandbox.status().state, State::Running);
    sandbox.request(Verb::Pause).unwrap();
    sandbox
        .request(Verb::Stop {
            signal: libc::SIGTERM,
            timeout_ms: Some(10_000),
        })
        .unwrap();
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 6);

    let mut sandbox = Sandbox::new("sleep 60");
    sandbox.start();
    sandbox.request(Verb::Pause).unwrap();
    sandbox
        .request(Verb::Signal {
            signal: libc::SIGKILL,
            all: false,
        })
        .unwrap();
    assert_eq!(sandbox.wait_exit().exit.unwrap().code, 137);
}

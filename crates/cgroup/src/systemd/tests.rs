//! The unit against a systemd of our own making.

use super::wire::{FIXED_BYTES, Kind, Message};
use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// What the peer answers to a call: texts in a reply, or an error; then perhaps the end of a job.
enum Answer {
    Job(&'static str, &'static str),
    Nothing,
    Refusal(&'static str),
}

/// Plays systemd: authenticates, and answers each call with the next answer. Returns the calls.
fn systemd(mut stream: UnixStream, answers: Vec<Answer>) -> JoinHandle<Vec<Message>> {
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\nBEGIN\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"\0AUTH EXTERNAL "));
        stream.write_all(b"OK 0123\r\n").unwrap();
        let mut calls = Vec::new();
        for answer in answers {
            let (serial, call) = receive(&mut stream);
            calls.push(call);
            match answer {
                Answer::Nothing => reply(&mut stream, 2, serial, &[], None),
                Answer::Refusal(name) => reply(&mut stream, 3, serial, &["no"], Some(name)),
                Answer::Job(job, result) => {
                    // Systemd may well be done before it answers.
                    signal(&mut stream, "/job/other", "failed");
                    signal(&mut stream, job, result);
                    reply(&mut stream, 2, serial, &[job], None);
                }
            }
        }
        calls
    })
}

fn receive(stream: &mut UnixStream) -> (u32, Message) {
    let mut bytes = vec![0; FIXED_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let length = wire::message_length(bytes.first_chunk().unwrap()).unwrap();
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[FIXED_BYTES..]).unwrap();
    let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    (serial, wire::parse(&bytes).unwrap())
}

/// A message with header fields as a peer writes them.
fn send(stream: &mut UnixStream, kind: u8, fields: &[u8], body: &[u8]) {
    let mut bytes = vec![b'l', kind, 0, 1];
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    bytes.extend_from_slice(&length(body));
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    bytes.extend_from_slice(&length(fields));
    bytes.extend_from_slice(fields);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).unwrap();
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.resize(into.len().next_multiple_of(4), 0);
    into.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    into.extend_from_slice(text.as_bytes());
    into.push(0);
}

fn field(into: &mut Vec<u8>, code: u8, kind: u8) {
    into.resize(into.len().next_multiple_of(8), 0);
    into.extend_from_slice(&[code, 1, kind, 0]);
}

fn body_signature(into: &mut Vec<u8>, signature: &str) {
    field(into, 8, b'g');
    into.push(u8::try_from(signature.len()).unwrap());
    into.extend_from_slice(signature.as_bytes());
    into.push(0);
}

fn reply(stream: &mut UnixStream, kind: u8, serial: u32, texts: &[&str], error: Option<&str>) {
    let mut fields = Vec::new();
    field(&mut fields, 5, b'u');
    fields.extend_from_slice(&serial.to_le_bytes());
    if let Some(error) = error {
        field(&mut fields, 4, b's');
        text(&mut fields, error);
    }
    body_signature(&mut fields, &"s".repeat(texts.len()));
    let mut body = Vec::new();
    for one in texts {
        text(&mut body, one);
    }
    send(stream, kind, &fields, &body);
}

fn signal(stream: &mut UnixStream, job: &str, result: &str) {
    let mut fields = Vec::new();
    field(&mut fields, 3, b's');
    text(&mut fields, "JobRemoved");
    body_signature(&mut fields, "uoss");
    let mut body = vec![1, 0, 0, 0];
    for one in [job, "x.scope", result] {
        text(&mut body, one);
    }
    send(stream, 4, &fields, &body);
}

fn with_systemd<T>(
    answers: Vec<Answer>,
    is_bus: bool,
    body: impl FnOnce(&Unit, &mut Bus) -> T,
) -> (T, Vec<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = systemd(theirs, answers);
    let unit = Unit::of_path("/system.slice/gamut-x.scope").unwrap();
    let mut bus = Bus::over(ours, is_bus).unwrap();
    let result = body(&unit, &mut bus);
    let calls = peer.join().unwrap();
    assert!(calls.iter().all(|call| call.kind == Kind::Call));
    (result, calls.into_iter().map(|call| call.member).collect())
}

#[test]
fn a_scope_is_started_and_stopped() {
    let answers = vec![
        Answer::Job("/job/1", "done"),
        Answer::Job("/job/2", "done"),
        Answer::Refusal(NO_SUCH_UNIT),
    ];
    let ((), calls) = with_systemd(answers, false, |unit, bus| {
        unit.start_over(bus, 1).unwrap();
        unit.stop_over(bus).unwrap();
    });
    assert_eq!(calls, ["StartTransientUnit", "StopUnit", "ResetFailedUnit"]);
}

#[test]
fn what_is_left_of_a_failed_scope_is_swept_away() {
    let answers = vec![
        Answer::Refusal(UNIT_EXISTS),
        Answer::Nothing,
        Answer::Job("/job/1", "done"),
    ];
    let (started, calls) = with_systemd(answers, false, |unit, bus| unit.start_over(bus, 1));
    started.unwrap();
    assert_eq!(
        calls,
        [
            "StartTransientUnit",
            "ResetFailedUnit",
            "StartTransientUnit"
        ]
    );
}

#[test]
fn failures_are_told_in_systemds_words() {
    let answers = vec![Answer::Refusal("org.freedesktop.DBus.Error.AccessDenied")];
    let (started, _) = with_systemd(answers, false, |unit, bus| unit.start_over(bus, 1));
    let error = started.unwrap_err().to_string();
    assert!(
        error.contains("gamut-x.scope") && error.contains("AccessDenied"),
        "{error}"
    );
    let answers = vec![Answer::Job("/job/1", "timeout")];
    let (started, _) = with_systemd(answers, false, |unit, bus| unit.start_over(bus, 1));
    let error = started.unwrap_err().to_string();
    assert!(error.contains("\"timeout\""), "{error}");
}

#[test]
fn on_a_bus_jobs_are_subscribed_to() {
    let answers = vec![
        Answer::Nothing,
        Answer::Nothing,
        Answer::Nothing,
        Answer::Nothing,
    ];
    let (set, calls) = with_systemd(answers, true, |unit, bus| {
        unit.set_over(bus, &[("TasksMax", Value::Number(5))])
    });
    set.unwrap();
    assert_eq!(
        calls,
        ["Hello", "AddMatch", "Subscribe", "SetUnitProperties"]
    );
}

#[test]
fn a_peer_that_hangs_up_is_an_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(Bus::over(ours, false).is_err());
}

#[test]
fn a_placeholder_is_there_until_it_is_dropped() {
    let placeholder = Placeholder::new().unwrap();
    let path = format!("/proc/{}", placeholder.pid());
    assert!(std::path::Path::new(&path).exists());
    drop(placeholder);
    assert!(!std::path::Path::new(&path).exists());
}

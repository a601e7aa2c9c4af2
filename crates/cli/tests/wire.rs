//! The program against a small engine in this process: what goes over the wire, and when.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail loudly, in its helpers too"
)]

mod fake;

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fake::{Engine, Request, frame, json, upgrade};

fn gamut(engine: &Engine, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gamut"));
    command
        .arg("--host")
        .arg(format!("unix://{}", engine.socket().display()))
        .args(arguments)
        .stdin(Stdio::null());
    command
}

fn text(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

/// An engine that runs one container, whose streams are written in the given pieces after start.
fn running(pieces: Vec<Vec<u8>>, code: i64) -> Engine {
    Engine::start(move |request: &Request, engine, stream| {
        match (request.method.as_str(), request.route()) {
            ("POST", "/containers/create") => json(stream, 201, r#"{"Id":"c1","Warnings":null}"#),
            ("POST", "/containers/c1/attach") => {
                upgrade(stream);
                engine.wait_for("POST /containers/c1/start");
                for piece in &pieces {
                    stream.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
                engine.note("streams closed");
                false
            }
            ("POST", "/containers/c1/wait") => {
                // Headers first, as dockerd does: the client may start only then.
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .unwrap();
                engine.wait_for("streams closed");
                let body = format!("{{\"StatusCode\":{code}}}");
                write!(stream, "{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).unwrap();
                true
            }
            ("POST", "/containers/c1/start") => {
                stream
                    .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                    .unwrap();
                true
            }
            _ => json(stream, 404, r#"{"message":"no such route"}"#),
        }
    })
}

#[test]
fn run_attaches_and_waits_before_it_starts() {
    let engine = running(vec![frame(1, b"out\n"), frame(2, b"err\n")], 7);
    let output = gamut(&engine, &["run", "--rm", "image", "cmd"])
        .output()
        .unwrap();
    assert_eq!(text(&output), ("out\n".into(), "err\n".into(), Some(7)));
    let log = engine.log();
    let at = |what: &str| {
        log.iter()
            .position(|entry| entry == what)
            .unwrap_or_else(|| panic!("{what} not in {log:?}"))
    };
    let start = at("POST /containers/c1/start");
    assert!(at("POST /containers/c1/attach") < start);
    assert!(at("POST /containers/c1/wait") < start);
    // Every request costs: no ping, no inspect.
    let requests = log.iter().filter(|entry| entry.contains(" /")).count();
    assert_eq!(requests, 4, "{log:?}");
}

#[test]
fn frames_may_be_split_anywhere() {
    let mut bytes = frame(1, b"hello ");
    bytes.extend(frame(2, b"problem\n"));
    bytes.extend(frame(1, b""));
    bytes.extend(frame(1, b"world\n"));
    let pieces = bytes.chunks(3).map(<[u8]>::to_vec).collect();
    let engine = running(pieces, 0);
    let output = gamut(&engine, &["run", "image"]).output().unwrap();
    assert_eq!(
        text(&output),
        ("hello world\n".into(), "problem\n".into(), Some(0))
    );
}

#[test]
fn a_missing_image_is_pulled_then_created() {
    let engine = Engine::start(|request: &Request, engine, stream| {
        match (request.method.as_str(), request.route()) {
            ("POST", "/containers/create") if engine.count("POST /images/create") == 0 => {
                json(stream, 404, r#"{"message":"No such image: image:latest"}"#)
            }
            ("POST", "/containers/create") => json(stream, 201, r#"{"Id":"c1"}"#),
            ("POST", "/images/create") => {
                assert!(
                    request.path.contains("fromImage=image&tag=latest"),
                    "{}",
                    request.path
                );
                let lines = "{\"status\":\"Pulling\",\"id\":\"latest\"}\r\n{\"status\":\"Pull complete\",\"id\":\"aa\"}\r\n";
                json(stream, 200, lines)
            }
            _ => json(stream, 200, ""),
        }
    });
    let output = gamut(&engine, &["create", "image"]).output().unwrap();
    let (stdout, stderr, code) = text(&output);
    assert_eq!((stdout.as_str(), code), ("c1\n", Some(0)));
    assert!(
        stderr.starts_with("Unable to find image 'image:latest' locally\n"),
        "{stderr}"
    );
    assert_eq!(engine.count("POST /containers/create"), 2);

    let engine = Engine::start(|_: &Request, _, stream| {
        json(stream, 404, r#"{"message":"No such image: image:latest"}"#)
    });
    let output = gamut(&engine, &["run", "--pull", "never", "image"])
        .output()
        .unwrap();
    let expected = "gamut: Error response from daemon: No such image: image:latest\n";
    assert_eq!(text(&output), (String::new(), expected.into(), Some(125)));
    assert_eq!(engine.count("POST /images/create"), 0);
}

#[test]
fn a_pull_that_fails_in_its_stream_fails() {
    let engine = Engine::start(|_: &Request, _, stream| {
        let message =
            r#"{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}"#;
        json(stream, 200, message)
    });
    let output = gamut(&engine, &["pull", "image"]).output().unwrap();
    let (_, stderr, code) = text(&output);
    assert_eq!((stderr.as_str(), code), ("manifest unknown\n", Some(1)));
}

#[test]
fn the_end_of_stdin_is_passed_on_and_output_goes_on() {
    let engine = Engine::start(|request: &Request, engine, stream| {
        match (request.method.as_str(), request.route()) {
            ("POST", "/containers/c1/exec") => json(stream, 201, r#"{"Id":"e1"}"#),
            ("POST", "/exec/e1/start") => {
                upgrade(stream);
                let mut input = Vec::new();
                // Ends only when the client closes its writing half.
                stream.read_to_end(&mut input).unwrap();
                engine.note("stdin ended");
                stream.write_all(&frame(1, &input)).unwrap();
                false
            }
            ("GET", "/exec/e1/json") => json(stream, 200, r#"{"ExitCode":3}"#),
            _ => json(stream, 404, r#"{"message":"no such route"}"#),
        }
    });
    let mut child = gamut(&engine, &["exec", "-i", "c1", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"ping").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output), ("ping".into(), String::new(), Some(3)));
}

#[test]
fn signals_are_passed_on() {
    let engine = Engine::start(|request: &Request, engine, stream| {
        match (request.method.as_str(), request.route()) {
            ("POST", "/containers/create") => json(stream, 201, r#"{"Id":"c1"}"#),
            ("POST", "/containers/c1/attach") => {
                upgrade(stream);
                engine.wait_for("POST /containers/c1/kill");
                false
            }
            ("POST", "/containers/c1/wait") => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .unwrap();
                engine.wait_for("POST /containers/c1/kill");
                stream
                    .write_all(b"12\r\n{\"StatusCode\":143}\r\n0\r\n\r\n")
                    .unwrap();
                true
            }
            ("POST", "/containers/c1/kill") => {
                assert!(request.path.ends_with("signal=15"), "{}", request.path);
                json(stream, 200, "")
            }
            _ => json(stream, 200, ""),
        }
    });
    let mut child = gamut(&engine, &["run", "image"]).spawn().unwrap();
    engine.wait_for("POST /containers/c1/start");
    let sent = Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn several_objects_fail_one_by_one() {
    let engine = Engine::start(|request: &Request, _, stream| match request.route() {
        "/containers/b" => json(stream, 404, r#"{"message":"No such container: b"}"#),
        _ => {
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap();
            true
        }
    });
    let output = gamut(&engine, &["rm", "a", "b", "c"]).output().unwrap();
    let expected = "Error response from daemon: No such container: b\n";
    assert_eq!(text(&output), ("a\nc\n".into(), expected.into(), Some(1)));
}

#[test]
fn bad_flags_make_no_request() {
    let engine = Engine::start(|_: &Request, _, stream| json(stream, 500, "{}"));
    for arguments in [
        &["run", "-p", "x", "image"] as &[&str],
        &["run", "-m", "lots", "image"],
        &["run", "--bogus", "image"],
        &["run", "-d", "-a", "stdout", "image"],
        &["create", "-v", "a:b:c:d", "image"],
    ] {
        let output = gamut(&engine, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
    assert!(engine.log().is_empty());
}

#[test]
fn no_engine_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let host = format!("unix://{}/none.sock", directory.path().display());
    let output = Command::new(env!("CARGO_BIN_EXE_gamut"))
        .args(["-H", &host, "ps"])
        .output()
        .unwrap();
    let (_, stderr, code) = text(&output);
    assert_eq!(code, Some(1));
    assert_eq!(stderr.lines().count(), 1);
    assert!(
        stderr.contains("cannot connect to the Gamut daemon at unix:///"),
        "{stderr}"
    );
}

#[test]
fn a_closed_output_ends_quietly() {
    let engine = Engine::start(|_: &Request, _, stream| {
        let many: Vec<String> = (0..5000)
            .map(|index| format!("{{\"Id\":\"sha256:{index:064}\",\"RepoTags\":[\"a:{index}\"]}}"))
            .collect();
        json(stream, 200, &format!("[{}]", many.join(",")))
    });
    let mut child = gamut(&engine, &["images", "-q", "--no-trunc"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(141), 0));
}

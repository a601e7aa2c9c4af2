//! Clients that do not do what clients should: the daemon answers others meanwhile, and nothing of
//! them stays.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gamut_tests::{Daemon, PATIENCE, eventually};

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes, says that there will be no more, and reads what comes back.
fn say(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = connect(daemon);
    // It may hang up in the middle.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: gamut\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn silence_and_slowness_hold_nobody_up() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let mut open = Vec::new();
    for number in 0..300 {
        let mut stream = connect(&daemon);
        // Nothing at all; half a head; a head that promises a body.
        let begun: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /containers/json HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            _ => b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{\"Image\":",
        };
        stream.write_all(begun).unwrap();
        open.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(
            daemon.http("GET", "/v1.41/containers/json", "").text(),
            "[]\n"
        );
    }
    assert_eq!(daemon.shell(&[], "echo served").ok(), "served");
    // A slow one gets its answer in the end.
    let mut slow = open.swap_remove(1);
    for byte in b"one\r\nConnection: close\r\n\r\n" {
        slow.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), Some(200), "{answer}");
    drop(open);
    daemon.finish();
}

#[test]
fn unread_streams_hold_nobody_up() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "loud",
        &["--log-opt", "max-size=1m"],
        "while :; do seq 1 10000; sleep 0.2; done",
    );
    let mut open = Vec::new();
    for number in 0..200 {
        let path = match number % 4 {
            0 => "/containers/loud/logs?stdout=1&follow=1",
            1 => "/containers/loud/logs?stdout=1&stderr=1&timestamps=1&details=1",
            2 => "/events",
            _ => "/containers/loud/stats",
        };
        let mut stream = connect(&daemon);
        stream.write_all(&request("GET", path, "", "")).unwrap();
        // The answer has begun, and is never read on.
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200", "{path}");
        open.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(daemon.lines(&["ps", "-q"]).len(), 1);
    }
    assert_eq!(daemon.shell(&[], "echo served").ok(), "served");
    let tail = || daemon.gamut(&["logs", "-t", "--tail", "1", "loud"]).stdout;
    let before = tail();
    eventually("the workload goes on", || tail() != before);
    drop(open);
    daemon.finish();
}

#[test]
fn what_is_no_request_is_refused() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let huge = format!("X-Huge: {}\r\n", "x".repeat(2 << 20));
    let many: String = (0..5_000)
        .map(|number| format!("X-{number}: y\r\n"))
        .collect();
    let long = format!("/containers/{}/json", "a".repeat(1 << 20));
    let deep = "[".repeat(100_000);
    let json = "Content-Type: application/json\r\n";
    let refused: [(Vec<u8>, &[u16]); 14] = [
        (request("GET", "/info", &huge, ""), &[431]),
        (request("GET", "/info", &many, ""), &[431]),
        (request("GET", &long, "", ""), &[404, 414, 431]),
        (request("POST", "/containers/create", json, "{"), &[400]),
        (request("POST", "/containers/create", json, &deep), &[400]),
        (request("POST", "/containers/create", json, "null"), &[400]),
        (
            request("POST", "/containers/create", json, "{\"Image\": 5}"),
            &[400],
        ),
        (
            request(
                "POST",
                "/containers/create",
                json,
                "{\"HostConfig\": {\"Memory\": \"much\"}}",
            ),
            &[400],
        ),
        (request("BREW", "/coffee", "", ""), &[404, 405]),
        (
            request("GET", "/containers/%00%ff/json", "", ""),
            &[400, 404],
        ),
        (request("GET", "/v1.9999/info", "", ""), &[400]),
        (
            b"GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n".to_vec(),
            &[400],
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        (vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[400]),
    ];
    for (bytes, expected) in refused {
        let answer = say(&daemon, &bytes);
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        match status(&answer) {
            Some(status) => assert!(
                expected.contains(&status) || expected.is_empty(),
                "{begin}: {answer}"
            ),
            // Hung up on without a word.
            None => assert!(answer.is_empty(), "{begin}: {answer}"),
        }
        assert_eq!(
            daemon.http("GET", "/_ping", "").status,
            200,
            "after {begin}"
        );
    }
    daemon.finish();
}

#[test]
fn cut_bodies_leave_nothing_half_done() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let images = daemon.lines(&["images", "-q"]);
    let archive = gamut_tests::busybox().unwrap();
    let half = &archive[..archive.len() / 2];
    let head = |path: &str, framing: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n{framing}\r\n\r\n"
        )
    };
    let create = "{\"Image\": \"busybox\", \"Cmd\": [\"true\"]}";
    let length = format!("Content-Length: {}", archive.len());
    let chunk = format!("{:x}\r\n", archive.len());
    for bytes in [
        [
            head("/images/create?fromSrc=-&repo=cut", &length).as_bytes(),
            half,
        ]
        .concat(),
        [
            head(
                "/images/create?fromSrc=-&repo=cut",
                "Transfer-Encoding: chunked",
            )
            .as_bytes(),
            chunk.as_bytes(),
            half,
        ]
        .concat(),
        [head("/images/load", &length).as_bytes(), half].concat(),
        [
            head("/images/load", "Transfer-Encoding: chunked").as_bytes(),
            b"zz\r\n",
        ]
        .concat(),
        [
            head("/containers/create?name=cut", "Content-Length: 500").as_bytes(),
            create.as_bytes(),
        ]
        .concat(),
        [
            head("/containers/create?name=cut", "Transfer-Encoding: chunked").as_bytes(),
            b"ffffffffffffffff1\r\nx",
        ]
        .concat(),
    ] {
        let answer = say(&daemon, &bytes);
        assert_ne!(status(&answer), Some(201), "{answer}");
        assert!(!answer.contains("\"status\":\"sha256:"), "{answer}");
    }
    assert_eq!(daemon.lines(&["images", "-q"]), images);
    assert_eq!(daemon.ok(&["ps", "-a", "-q"]), "");
    daemon.finish();
}

#[test]
fn wrong_upgrades_and_vanishing_clients() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.detached(
        "open",
        &["-i"],
        "while read l; do echo heard $l; done; echo end",
    );
    let upgrade = "Upgrade: tcp\r\nConnection: Upgrade\r\n";
    let websocket = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    // An upgrade where there is none to be had is an ordinary request.
    for (method, path, headers) in [
        ("GET", "/info", upgrade),
        ("GET", "/containers/json", websocket),
        ("POST", "/containers/nobody/attach?stream=1", upgrade),
        ("POST", "/exec/nothing/start", upgrade),
    ] {
        let bytes =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 0\r\n\r\n");
        let mut stream = connect(&daemon);
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(
            matches!(status(&head), Some(200 | 400 | 404)),
            "{path}: {head}"
        );
    }
    // Attached clients that leave at once, in the middle, without reading.
    let attach = format!(
        "POST /containers/open/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: 0\r\n\r\n"
    );
    for number in 0..60 {
        let mut stream = connect(&daemon);
        stream.write_all(attach.as_bytes()).unwrap();
        if number % 3 > 0 {
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 101");
        }
        if number % 3 == 2 {
            stream.write_all(b"hello\n").unwrap();
        }
    }
    let mut last = daemon.spawn(&["attach", "open"]);
    last.write("still there\n");
    last.expect("heard still there");
    // Exec sessions of clients that are gone end with their containers.
    for _ in 0..10 {
        let made = daemon.http(
            "POST",
            "/containers/open/exec",
            "{\"Cmd\": [\"cat\"], \"AttachStdin\": true, \"AttachStdout\": true}",
        );
        let id = made.json()["Id"].as_str().unwrap().to_owned();
        let mut stream = connect(&daemon);
        let body = "{\"Detach\": false}";
        let start = format!(
            "POST /exec/{id}/start HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(start.as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
    }
    daemon.ok(&["kill", "open"]);
    assert_eq!(last.wait().code, 137);
    daemon.finish();
}

//! The key-value server keeps what it has acknowledged.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use crate::guest::{Guest, MICROVM, Setup, config, free_port, image};

fn serve(disk: &Path, guest_port: u16) -> Option<(Guest, u16)> {
    let port = free_port();
    let text = config(&[
        ("arg", "/unikernel"),
        ("net", "0 address=10.0.2.15/24 gateway=10.0.2.2"),
    ]);
    let setup = Setup::new(&image("kv"), MICROVM)?;
    let setup = setup.config(&text).network(port, guest_port).block(disk);
    let mut guest = setup.start();
    guest.prints("listening on ports 80 and 6379");
    Some((guest, port))
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

/// Makes a request; status and body.
fn request(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = connect(port);
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body.to_owned())
}

#[test]
fn keys_are_set_read_listed_and_removed_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let Some((guest, port)) = serve(&disk, 80) else {
        return;
    };
    assert_eq!(request(port, "PUT", "/a%20b", "one").0, 204);
    assert_eq!(request(port, "PUT", "/c", "two").0, 204);
    assert_eq!(request(port, "GET", "/a%20b", ""), (200, "one".to_owned()));
    assert_eq!(request(port, "GET", "/", ""), (200, "a b\nc\n".to_owned()));
    assert_eq!(
        request(port, "GET", "/?from=b", ""),
        (200, "c\n".to_owned())
    );
    assert_eq!(request(port, "DELETE", "/c", "").0, 204);
    assert_eq!(request(port, "DELETE", "/c", "").0, 404);
    assert_eq!(request(port, "GET", "/c", "").0, 404);
    assert_eq!(request(port, "POST", "/c", "").0, 405);
    assert_eq!(request(port, "GET", "/%zz", "").0, 400);
    let (_, metrics) = request(port, "GET", "/metrics", "");
    assert!(metrics.contains("kv_keys 1\n"), "{metrics}");
    // A full store says so, and is none the worse.
    let value = "x".repeat(100_000);
    let statuses: Vec<u16> = (0..8)
        .map(|index| request(port, "PUT", &format!("/big{index}"), &value).0)
        .collect();
    assert_eq!((statuses[0], statuses[7]), (204, 507), "{statuses:?}");
    assert_eq!(request(port, "GET", "/a%20b", "").1, "one");
    drop(guest);
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 256 << 10]).unwrap();
    let mut acknowledged = std::collections::BTreeMap::<String, String>::new();
    let mut count = 0_u32;
    for round in 0..4 {
        let Some((guest, port)) = serve(&disk, 6379) else {
            return;
        };
        let stream = connect(port);
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut stream = &stream;
        let mut ask = |line: &str| {
            stream.write_all(line.as_bytes()).expect("sent");
            let mut answer = String::new();
            answers.read_line(&mut answer).expect("answered");
            answer
        };
        for (key, value) in &acknowledged {
            let length = ask(&format!("GET {key}\r\n"));
            assert_eq!(
                length,
                format!("${}\r\n", value.len()),
                "{key} in round {round}"
            );
            assert_eq!(ask(""), format!("{value}\r\n"), "{key} in round {round}");
        }
        // Enough for several compactions of the small areas.
        for _ in 0..60 {
            count += 1;
            let (key, value) = (
                format!("key{}", count % 17),
                format!("{count}-{}", "v".repeat(900)),
            );
            assert_eq!(
                ask(&format!("SET {key} {value}\r\n")),
                "+OK\r\n",
                "round {round}"
            );
            acknowledged.insert(key, value);
        }
        // Killed with a change under way that nobody waits for.
        stream.write_all(b"SET unacknowledged x\r\n").expect("sent");
        guest.kill();
    }
}

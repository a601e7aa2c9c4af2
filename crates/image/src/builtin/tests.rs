//! The two programs are run for real.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Extracts a built-in image by way of its archive and gives the path of its program.
fn program(name: &str, dir: &Path) -> PathBuf {
    let archive = archive(name).unwrap();
    let mut reader = crate::tar::Reader::new(&archive[..], crate::tar::Limits::default());
    let image = images().iter().find(|image| image.name == name).unwrap();
    let (_, program) = image.forms[0];
    let digest = crate::Digest::of(&layer(image.name, program).unwrap()).hex();
    while let Some(entry) = reader.next_entry().unwrap() {
        if entry.path.ends_with(digest.as_bytes()) {
            let mut layer = Vec::new();
            reader.read_to_end(&mut layer).unwrap();
            let target = dir.join("fs");
            let extracted = crate::layer::extract(
                &layer[..],
                &target,
                &crate::layer::ExtractOptions::default(),
            )
            .unwrap();
            assert!(extracted.implied_directories.is_empty());
            assert_eq!(
                target.join("tmp").metadata().unwrap().permissions().mode(),
                0o041_777
            );
            return target.join(name);
        }
    }
    panic!("the archive of {name} has no layer");
}

struct Server(Child, u16);

impl Server {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        for attempt in 0..50u16 {
            let id = u16::try_from(std::process::id() % 10_000).unwrap();
            let port = 20_000 + (id + attempt * 211) % 12_000;
            let mut child = Command::new(program)
                .args(arguments)
                .env("PORT", port.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            if line == "hello-http: ready\n" {
                return Self(child, port);
            }
            child.wait().unwrap();
        }
        panic!("no port is free");
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    fn stop(mut self) {
        let pid = libc::pid_t::try_from(self.0.id()).unwrap();
        // SAFETY: takes no pointer; the child is ours and not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

/// Reads one answer: header and body.
fn answer(stream: &mut impl BufRead) -> (String, Vec<u8>) {
    let (mut header, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        assert!(
            stream.read_line(&mut line).unwrap() > 0,
            "connection closed in {header:?}"
        );
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        header += &line;
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (header, body)
}

#[test]
fn archives_are_the_same_each_time_and_small() {
    for image in images() {
        let first = archive(image.name).unwrap();
        assert_eq!(first, archive(&format!("{}:latest", image.name)).unwrap());
        for (form, program) in image.forms {
            let limit_bytes = match form {
                ImageForm::Linux => 16 << 10,
                ImageForm::Unikernel => 2 << 20,
            };
            assert!(program.len() < limit_bytes, "{} bytes", program.len());
            // Panics of a unikernel say where in the standard library, too.
            let leaks = match form {
                ImageForm::Linux => &[env!("CARGO_MANIFEST_DIR"), "/rustc/"][..],
                ImageForm::Unikernel => &[env!("CARGO_MANIFEST_DIR"), "/root/", "/home/"][..],
            };
            let text = String::from_utf8_lossy(program);
            assert!(
                leaks.iter().all(|leak| !text.contains(leak)),
                "{} has build paths",
                image.name
            );
        }
    }
    assert!(archive("hello").is_none());
}

#[test]
fn hello_world_greets() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(program("hello-world", dir.path()))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"Hello from Gamut!\n"));
}

#[test]
fn hello_http_keeps_connections_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&program("hello-http", dir.path()), &[]);
    let mut streams: Vec<_> = (0..20).map(|_| BufReader::new(server.connect())).collect();
    for round in 0..3 {
        for (at, stream) in streams.iter_mut().enumerate() {
            let request = format!("GET /{round}/{at}?q HTTP/1.1\r\nHost: x\r\n\r\n");
            // In two pieces, to show that a request may come in parts.
            let (first, second) = request.split_at(9);
            stream.get_mut().write_all(first.as_bytes()).unwrap();
            stream.get_mut().write_all(second.as_bytes()).unwrap();
        }
        for (at, stream) in streams.iter_mut().enumerate() {
            let (header, body) = answer(stream);
            assert!(header.starts_with("HTTP/1.1 200 OK\r\n"), "{header}");
            let expected = format!("Hello from Gamut! Path: /{round}/{at}?q\n");
            assert_eq!(String::from_utf8(body).unwrap(), expected);
        }
    }
    // Two requests at once.
    let mut stream = BufReader::new(server.connect());
    stream
        .get_mut()
        .write_all(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: Close\r\n\r\n")
        .unwrap();
    assert!(answer(&mut stream).1.ends_with(b"/a\n"));
    assert!(answer(&mut stream).1.ends_with(b"/b\n"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for (request, status) in [
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("nonsense\r\n\r\n", "400"),
        (
            &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(5000)),
            "431",
        ),
    ] {
        let mut stream = BufReader::new(server.connect());
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.contains(status), "{line}");
    }
    server.stop();
}

#[test]
fn hello_http_holds_more_connections_than_it_has_places() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&program("hello-http", dir.path()), &[]);
    let mut waiting: Vec<_> = (0..300).map(|_| BufReader::new(server.connect())).collect();
    while let Some(mut stream) = waiting.pop_first_served() {
        let (header, _) = answer(&mut stream);
        assert!(header.starts_with("HTTP/1.1 200"));
    }
    server.stop();
}

trait PopFirst {
    fn pop_first_served(&mut self) -> Option<BufReader<TcpStream>>;
}

impl PopFirst for Vec<BufReader<TcpStream>> {
    /// Takes the connection that was made first, so that its place becomes free.
    fn pop_first_served(&mut self) -> Option<BufReader<TcpStream>> {
        let mut stream = (!self.is_empty()).then(|| self.remove(0))?;
        stream
            .get_mut()
            .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        Some(stream)
    }
}

#[test]
fn hello_http_serves_files_beneath_its_root_only() {
    let dir = tempfile::tempdir().unwrap();
    let program = program("hello-http", dir.path());
    let root = dir.path().join("www");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(root.join("index.html"), "<p>top").unwrap();
    std::fs::write(root.join("sub/index.html"), "<p>sub").unwrap();
    let large: Vec<u8> = (0..3_000_000u32)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    std::fs::write(root.join("a b.bin"), &large).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    let server = Server::start(&program, &["--root", root.to_str().unwrap()]);
    let mut stream = BufReader::new(server.connect());
    for (path, expected) in [
        ("/", Some(b"<p>top".as_slice())),
        ("/sub", Some(b"<p>sub")),
        ("/sub/?x=1", Some(b"<p>sub")),
        ("/a%20b.bin", Some(&large)),
        ("/../secret", None),
        ("/%2e%2e/secret", None),
        ("/link", None),
        ("//etc/passwd", None),
        ("/missing", None),
    ] {
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        let (header, body) = answer(&mut stream);
        match expected {
            Some(expected) => {
                assert!(header.starts_with("HTTP/1.1 200"), "{path}: {header}");
                assert!(body == expected, "{path}: {} bytes", body.len());
            }
            None => assert!(header.starts_with("HTTP/1.1 404"), "{path}: {header}"),
        }
    }
    server.stop();
}

//! The HTTP server over virtio-net and smoltcp.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::guest::{Guest, MICROVM, Setup, config, free_port, image};

/// The example, and the port at which it answers.
fn serve() -> Option<(Guest, u16)> {
    let port = free_port();
    let setup = Setup::new(&image("http"), MICROVM)?;
    let text = config(&[
        ("arg", "/unikernel"),
        ("net", "0 address=10.0.2.15/24 gateway=10.0.2.2"),
    ]);
    let mut guest = setup.config(&text).network(port, 80).start();
    guest.prints("listening on port 80");
    Some((guest, port))
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

/// Sends bytes, and reads until the server closes.
fn exchange(port: u16, request: &[u8]) -> String {
    let mut stream = connect(port);
    stream.write_all(request).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    String::from_utf8(answer).expect("text")
}

#[test]
fn the_example_answers_with_the_path() {
    let Some((_guest, port)) = serve() else {
        return;
    };
    let answer = exchange(
        port,
        b"GET /a/b?c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nHello from Unikernel! Path: /a/b\n"),
        "{answer}"
    );
    assert!(answer.contains("Content-Length: 33\r\n"), "{answer}");
    let head = exchange(port, b"HEAD /a/b HTTP/1.0\r\n\r\n");
    assert!(
        head.contains("Content-Length: 33\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn connections_are_kept_and_requests_pipelined() {
    let Some((_guest, port)) = serve() else {
        return;
    };
    let answer = exchange(
        port,
        b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n\
          POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
          POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n\
          GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\
          GET /never HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let paths: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("Hello from Unikernel! Path: "))
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3", "/4"], "{answer}");
}

#[test]
fn wrong_requests_get_the_right_answers() {
    let Some((_guest, port)) = serve() else {
        return;
    };
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(9000)
    );
    let much = format!(
        "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        2 << 20
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        ("rubbish\r\n\r\n", "400"),
        (&long, "431"),
        (&much, "413"),
        ("GET / HTTP/3.0\r\nHost: x\r\n\r\n", "505"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            "501",
        ),
    ] {
        let answer = exchange(port, request.as_bytes());
        let expected = format!("HTTP/1.1 {status} ");
        assert!(
            answer.starts_with(&expected),
            "{:?}: {answer}",
            &request[..20]
        );
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
    }
}

#[test]
fn many_clients_are_served_at_once() {
    let Some((_guest, port)) = serve() else {
        return;
    };
    // All are connected before the first one asks.
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(port)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let request = format!("GET /{index} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).expect("sent");
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("answered");
        assert!(answer.ends_with(&format!("Path: /{index}\n")), "{answer}");
    }
}

#[test]
fn a_client_of_the_guest_resolves_and_fetches() {
    // A server of this machine, which QEMU's network shows at 10.0.2.2.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a client");
        let mut request = [0; 1024];
        let count = stream.read(&mut request).expect("a request");
        let answer =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfound\n\r\n0\r\n\r\n";
        stream.write_all(answer.as_bytes()).expect("sent");
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    let Some(setup) = Setup::new(&image("probe"), MICROVM) else {
        return;
    };
    let url = format!("http://server:{port}/a?b");
    let text = config(&[
        ("arg", "/unikernel"),
        ("arg", "do"),
        ("arg", "addresses"),
        ("arg", "then"),
        ("arg", "resolve"),
        ("arg", "Server"),
        ("arg", "then"),
        ("arg", "get"),
        ("arg", &url),
        ("host", "10.0.2.2 other server"),
    ]);
    // Without an address in the configuration: by DHCP.
    let guest = setup.config(&text).network(free_port(), 80).start();
    let (code, output) = guest.ends();
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("0 10.0.2.15\n"), "{output}");
    assert!(output.contains("10.0.2.2\nstatus 200\nfound\n"), "{output}");
    let request = thread.join().unwrap();
    assert!(request.starts_with("GET /a?b HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains(&format!("Host: server:{port}\r\n")),
        "{request}"
    );
}

//! What testcontainers starts beside its containers: told by TCP which label they have, it removes
//! them through the engine's socket once the client has gone. It stands in for testcontainers'
//! own, whose image no registry at hand has.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

const SOCKET: &str = "/var/run/docker.sock";
const PORT: u16 = 8080;

fn main() {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("the port is free");
    println!("reaper Started!");
    let (client, _) = listener.accept().expect("a client comes");
    let mut answers = client.try_clone().expect("a descriptor is free");
    let mut labels = Vec::new();
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        if let Some(label) = line.trim().strip_prefix("label=") {
            labels.push(label.to_owned());
            let _ = answers.write_all(b"ACK\n");
        }
    }
    for label in labels {
        let filters = format!("%7B%22label%22:%5B%22{label}%22%5D%7D");
        let listed = request("GET", &format!("/containers/json?all=1&filters={filters}"));
        for rest in listed.split("\"Id\":\"").skip(1) {
            let id = rest.split('"').next().unwrap_or_default();
            println!("removing {id}");
            request("DELETE", &format!("/containers/{id}?force=1&v=1"));
        }
    }
}

fn request(method: &str, path: &str) -> String {
    let mut stream = UnixStream::connect(SOCKET).expect("the engine listens");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

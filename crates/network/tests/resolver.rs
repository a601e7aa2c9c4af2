//! Leading 127.0.0.11:53 to where the resolver listens.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use common::{ask, fetch, isolated, run};
use gamut_network::redirect_resolver;

const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

fn serve(name: &'static str) -> (u16, u16) {
    let udp = UdpSocket::bind((RESOLVER, 0)).unwrap();
    let tcp = TcpListener::bind((RESOLVER, 0)).unwrap();
    let ports = (
        udp.local_addr().unwrap().port(),
        tcp.local_addr().unwrap().port(),
    );
    std::thread::spawn(move || {
        let mut request = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut request) {
            let _ = udp.send_to(name.as_bytes(), peer);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            use std::io::{Read, Write};
            let mut stream = stream.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{name}");
        }
    });
    ports
}

#[test]
fn both_protocols_are_led_and_the_workload_keeps_its_own_port_53() {
    isolated(|| {
        // A workload that is a name server itself.
        let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
        let (udp, tcp) = serve("first");
        redirect_resolver(udp, tcp).unwrap();
        let asks = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            // Answers from any other address or port are not taken.
            socket.connect((RESOLVER, 53)).unwrap();
            socket
                .set_read_timeout(Some(std::time::Duration::from_secs(2)))
                .unwrap();
            socket.send(b"hello").unwrap();
            let mut answer = [0; 64];
            let count = socket.recv(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[..count]).into_owned()
        };
        assert_eq!(asks(), "first");
        assert_eq!(fetch((RESOLVER, 53)).as_deref(), Some("first"));
        // The namespace's connections are not tracked for it.
        let table = run("nft list ruleset");
        assert!(
            !table.contains("nat") && table.contains("gamut_dns"),
            "{table}"
        );

        let (udp, tcp) = serve("second");
        redirect_resolver(udp, tcp).unwrap();
        assert_eq!(asks(), "second");
        assert_eq!(fetch((RESOLVER, 53)).as_deref(), Some("second"));

        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        std::thread::spawn(move || {
            let mut request = [0; 64];
            let (_, peer) = own.recv_from(&mut request).unwrap();
            own.send_to(b"its own", peer).unwrap();
        });
        assert_eq!(
            ask(&client, (Ipv4Addr::LOCALHOST, 53)).as_deref(),
            Some("its own")
        );
    });
}

//! The forwarder between two guests.

use crate::guest::{MICROVM, Setup, arguments, config, free_port, image};

/// A network device at one end of a cable of QEMU.
fn cable(id: u8, end: &str, port: u16) -> [String; 4] {
    let address = format!("socket,id=c{id},{end}=127.0.0.1:{port}");
    let device = format!(
        "virtio-net-device,netdev=c{id},mac=52:54:00:00:{id:02x}:{:02x}",
        port & 0xff
    );
    ["-netdev".to_owned(), address, "-device".to_owned(), device]
}

fn with(setup: Setup, cable: &[String; 4]) -> Setup {
    let words: Vec<&str> = cable.iter().map(String::as_str).collect();
    setup.args(&words)
}

#[test]
fn two_guests_talk_through_a_third() {
    let (first, second) = (free_port(), free_port());
    let Some(setup) = Setup::new(&image("forward"), MICROVM) else {
        return;
    };
    let setup = with(setup.config(&arguments(&[])), &cable(1, "listen", first));
    let mut forwarder = with(setup, &cable(2, "listen", second)).start();
    forwarder.prints("forwarding frames");

    let server = Setup::new(&image("http"), MICROVM).expect("QEMU was there");
    let text = config(&[
        ("arg", "http"),
        ("net", "0 address=10.1.0.1/24 address=fd00::1/64"),
    ]);
    let mut server = with(server.config(&text), &cable(3, "connect", first)).start();
    server.prints("listening on port 80");

    // One client for both, since QEMU's listening end of a cable takes one connection.
    let client = Setup::new(&image("probe"), MICROVM).expect("QEMU was there");
    let text = config(&[
        ("arg", "probe"),
        ("arg", "do"),
        ("arg", "get"),
        ("arg", "http://10.1.0.1/four"),
        ("arg", "then"),
        ("arg", "get"),
        ("arg", "http://[fd00::1]/six"),
        ("net", "0 address=10.1.0.2/24 address=fd00::2/64"),
    ]);
    let client = with(client.config(&text), &cable(4, "connect", second)).start();
    let (code, output) = client.ends();
    assert_eq!(code, 0, "{output}");
    for path in ["/four", "/six"] {
        let text = format!("status 200\nHello from Unikernel! Path: {path}\n");
        assert!(output.contains(&text), "{output}");
    }
}

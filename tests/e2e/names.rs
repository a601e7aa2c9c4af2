//! Names that are no container's: who is asked for them, and who is not.

use crate::networks::resolves;
use gamut_tests::Daemon;

#[test]
fn other_names_are_asked_of_the_resolvers_that_are_named() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.ok(&["network", "create", "net"]);
    daemon.ok(&["network", "create", "--internal", "closed"]);
    let gateway = daemon.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
        "bridge",
    ]);
    let answers = upstream(&daemon, &gateway);
    let options = [
        "--network",
        "net",
        "--dns",
        &gateway,
        "--dns-search",
        "corp.test",
    ];
    daemon.detached("box", &options, "sleep 1000");
    assert_eq!(
        resolves(&daemon, "box", "known.example.test"),
        ["192.0.2.7"]
    );
    let unknown = daemon.gamut(&["exec", "box", "nslookup", "-type=a", "other.example.test"]);
    assert!(unknown.stdout.contains("NXDOMAIN"), "{unknown:?}");
    let resolv = daemon.ok(&["exec", "box", "cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("search corp.test"), "{resolv}");
    assert!(
        resolv.contains(&format!("ExtServers: [{gateway}]")),
        "{resolv}"
    );
    // Nothing leaves a network without a way out, names neither.
    let options = ["--network", "closed", "--dns", &gateway];
    let asked = answers.load(std::sync::atomic::Ordering::SeqCst);
    let script = "nslookup -type=a known.example.test";
    let closed = daemon.shell(&options, script);
    assert!(closed.stdout.contains("SERVFAIL"), "{closed:?}");
    assert_eq!(answers.load(std::sync::atomic::Ordering::SeqCst), asked);
    daemon.finish();
}

/// A resolver in the daemon's network namespace, at port 53 of an address, that knows one name;
/// counts the questions.
fn upstream(daemon: &Daemon, address: &str) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    let address: std::net::IpAddr = address.parse().unwrap();
    let socket = daemon
        .namespaces()
        .inside(|| std::net::UdpSocket::bind((address, 53)).unwrap());
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question) {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut answer = question[..length].to_vec();
            let known = question[..length]
                .windows(6)
                .any(|part| part == b"\x05known");
            // An answer, with recursion; of the other name, that there is none such.
            answer[2] |= 0x80;
            answer[3] = if known { 0x80 } else { 0x83 };
            if known {
                answer[7] = 1;
                answer.extend([0xC0, 0x0C, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
            }
            let _ = socket.send_to(&answer, client);
        }
    });
    count
}

//! A world for tests: every test runs on a thread in a network namespace of its own, so that the
//! machine's interfaces, rules and settings are never touched.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gamut_network::{
    BridgeConfig, Connected, EndpointConfig, NamespacePool, Network, NetworkNamespace, PortMapping,
    Protocol,
};

/// Runs a test on a thread in a fresh namespace with its loopback up.
pub fn isolated(test: impl FnOnce() + Send + 'static) {
    if !Command::new("nft")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        eprintln!("SKIPPED: nft is not installed");
        return;
    }
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare(2) takes no pointers and changes this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!(
                "SKIPPED: no network namespace: {}",
                std::io::Error::last_os_error()
            );
            return;
        }
        run("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line in the thread's namespace; it must succeed.
pub fn run(line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a closure on a thread inside a namespace and returns its result.
pub fn inside<T: Send + 'static>(
    namespace: &impl AsFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    spawn_inside(namespace, work).join().unwrap()
}

pub fn spawn_inside<T: Send + 'static>(
    namespace: &impl AsFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let fd: OwnedFd = namespace.as_fd().try_clone_to_owned().unwrap();
    std::thread::spawn(move || {
        // SAFETY: setns(2) takes no pointers and changes this thread only.
        let entered = unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
        drop(fd);
        work()
    })
}

/// A namespace linked to the thread's by a veth pair: 203.0.113.1 here, 203.0.113.9 there. It
/// routes everything by way of here.
pub fn outside_world() -> NetworkNamespace {
    world("out0", "203.0.113")
}

/// A linked namespace of any subnet, given by its first three numbers.
pub fn world(link: &'static str, subnet: &'static str) -> NetworkNamespace {
    let pool = NamespacePool::loopback_only(0).unwrap();
    let world = pool.take().unwrap().into_namespace();
    let path = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        world.as_fd().as_raw_fd()
    );
    run(&format!(
        "ip link add {link} type veth peer name eth0 netns {path} && \
         ip addr add {subnet}.1/24 dev {link} && ip link set {link} up"
    ));
    inside(&world, move || {
        run(&format!(
            "ip addr add {subnet}.9/24 dev eth0 && ip link set eth0 up && \
             ip route add default via {subnet}.1"
        ))
    });
    // The kernel lets packets through some time after both ends are up.
    let is_up = || run(&format!("ip link show dev {link}")).contains("state UP");
    eventually("the outside is linked", is_up);
    world
}

pub fn network() -> Network {
    Network::ensure(&BridgeConfig::default()).unwrap()
}

/// A connected namespace with the subnet's address number `last`.
pub fn container(network: &Network, last: u8) -> Connected {
    let pool = NamespacePool::new(network, 0).unwrap();
    let [a, b, c, _] = network.gateway().octets();
    let address = Ipv4Addr::new(a, b, c, last);
    pool.take()
        .unwrap()
        .connect(&EndpointConfig::new(network, address))
        .unwrap()
}

pub fn mapping(host_port: u16, container_port: u16, protocol: Protocol) -> PortMapping {
    PortMapping {
        host_ip: None,
        host_port,
        host_port_last: 0,
        container_port,
        protocol,
    }
}

pub fn mapping_at(host_ip: &str, host_port: u16, container_port: u16) -> PortMapping {
    let host_ip = Some(host_ip.parse::<IpAddr>().unwrap());
    PortMapping {
        host_ip,
        host_port,
        host_port_last: 0,
        container_port,
        protocol: Protocol::Tcp,
    }
}

/// Answers every request on TCP and UDP `port` inside a namespace with its name and the client's
/// address, until the process ends.
pub fn serve(namespace: &impl AsFd, name: &'static str, port: u16) {
    serve_at(namespace, name, (Ipv4Addr::UNSPECIFIED, port));
}

/// As [`serve`], at an address.
pub fn serve_at(namespace: &impl AsFd, name: &'static str, at: impl Into<SocketAddr>) {
    let everywhere = at.into();
    let (tcp, udp) = inside(namespace, move || {
        (
            TcpListener::bind(everywhere).unwrap(),
            UdpSocket::bind(everywhere).unwrap(),
        )
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request);
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{name} {peer}");
        }
    });
    std::thread::spawn(move || {
        let mut request = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut request) {
            let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

const PATIENCE: Duration = Duration::from_millis(700);

/// Fetches from a TCP server; `None` if it cannot be reached.
pub fn fetch(target: impl Into<SocketAddr>) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&target.into(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .rsplit_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
}

/// Asks a UDP server; `None` if no answer comes.
pub fn ask(socket: &UdpSocket, target: impl Into<SocketAddr>) -> Option<String> {
    ask_within(PATIENCE, socket, target)
}

/// As [`ask`], with a patience of one's own.
pub fn ask_within(
    patience: Duration,
    socket: &UdpSocket,
    target: impl Into<SocketAddr>,
) -> Option<String> {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send_to(b"hello", target.into()).ok()?;
    let mut answer = [0; 64];
    let (bytes, _) = socket.recv_from(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..bytes]).into_owned())
}

pub fn ask_once(target: impl Into<SocketAddr>) -> Option<String> {
    let target = target.into();
    let any: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    ask(&UdpSocket::bind(any).unwrap(), target)
}

/// Names of our host-side interfaces in the thread's namespace.
pub fn host_interfaces() -> Vec<String> {
    let links = run("ip -o link show type veth");
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    let names = names.filter_map(|name| name.split('@').next());
    names
        .filter(|name| name.starts_with("gv"))
        .map(str::to_owned)
        .collect()
}

/// Waits until a condition holds.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

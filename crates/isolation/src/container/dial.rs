//! Connecting to a workload from within its network.

use super::pid::PinnedProcess;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// What `localhost` means inside, in the order in which it is tried.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Connects to a TCP port of the loopback interface that a process has. No process is made: a
/// thread enters the network namespace and ends there; the socket stays in it.
///
/// # Errors
/// Those of open(2) on the namespace, setns(2), and connect(2) to the first address.
pub(super) fn from_within(
    process: &PinnedProcess,
    port: u16,
    within: Duration,
) -> io::Result<TcpStream> {
    let namespace = process.open_file("ns/net", libc::O_RDONLY)?;
    let thread = thread::Builder::new().name("dial".to_owned());
    let dialling = thread.spawn(move || {
        enter(&namespace)?;
        drop(namespace);
        loopback(port, within)
    })?;
    dialling
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that connects panicked")))
}

/// Connects to a port of the calling thread's loopback interface.
///
/// # Errors
/// Those of connect(2) to the first address.
pub(crate) fn loopback(port: u16, within: Duration) -> io::Result<TcpStream> {
    let due = Instant::now() + within;
    let mut refused = None;
    for address in LOOPBACK {
        let left = due.saturating_duration_since(Instant::now());
        // Zero is not allowed.
        let left = left.max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), left) {
            Ok(stream) => return Ok(stream),
            // What the first address says is worth more than that there is no IPv6.
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    // SAFETY: setns(2) takes no pointers and changes the calling thread's namespace only, which
    // ends after its one connection.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

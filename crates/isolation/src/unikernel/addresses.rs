//! The addresses of a network namespace, and connecting to them from this one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

/// Addresses of a namespace's interfaces, IPv4 first, without those of the loopback and of links.
/// No process is made: a thread enters the namespace and ends there.
///
/// # Errors
/// Those of setns(2) and getifaddrs(3).
pub(super) fn of(namespace: &OwnedFd) -> io::Result<Vec<IpAddr>> {
    let namespace = namespace.try_clone()?;
    let thread = thread::Builder::new().name("addresses".to_owned());
    let looking = thread.spawn(move || {
        // SAFETY: setns(2) takes no pointers and changes the calling thread's namespace only.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        own()
    })?;
    looking.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "the thread that looks for addresses panicked",
        ))
    })
}

/// Addresses of this thread's namespace.
fn own() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the call stores a list in `first`, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = first;
    // SAFETY: the list ends with null; each entry is whole, and `ifa_addr` is null or points to
    // an address of the family that it tells.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: as above.
        let Some(address) = (unsafe { entry.ifa_addr.as_ref() }) else {
            continue;
        };
        match i32::from(address.sa_family) {
            libc::AF_INET => {
                // SAFETY: an address of this family is a `sockaddr_in`; it may not be aligned.
                let address =
                    unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                let bits = u32::from_be(address.sin_addr.s_addr);
                addresses.push(IpAddr::V4(Ipv4Addr::from_bits(bits)));
            }
            libc::AF_INET6 => {
                // SAFETY: as above, of a `sockaddr_in6`.
                let address =
                    unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                let address = Ipv6Addr::from(address.sin6_addr.s6_addr);
                if !address.is_unicast_link_local() {
                    addresses.push(IpAddr::V6(address));
                }
            }
            _ => {}
        }
    }
    // SAFETY: the list that getifaddrs(3) has made, once.
    unsafe { libc::freeifaddrs(first) };
    addresses.retain(|address| !address.is_loopback());
    addresses.sort();
    Ok(addresses)
}

/// How long one attempt to connect may take: afterwards the kernel would ask a second time, too.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Connects to a port of whichever address answers first, from this process's own network. Goes on
/// only as long as the workload `is_there`: nobody says that an address is gone.
///
/// # Errors
/// Those of connect(2) to the first address; `AddrNotAvailable` without any, `NotConnected` if the
/// workload has ended.
pub(super) fn dial(
    addresses: &[IpAddr],
    port: u16,
    within: Duration,
    is_there: impl Fn() -> bool,
) -> io::Result<TcpStream> {
    let due = Instant::now() + within;
    loop {
        let mut refused = None;
        for address in addresses {
            let left = due.saturating_duration_since(Instant::now());
            // Zero is not allowed.
            let left = left.clamp(Duration::from_millis(1), ATTEMPT);
            match TcpStream::connect_timeout(&SocketAddr::new(*address, port), left) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        let refused = refused.unwrap_or_else(|| {
            io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "it has no address: it was made with --network none",
            )
        });
        if refused.kind() != io::ErrorKind::TimedOut || Instant::now() >= due {
            return Err(refused);
        }
        if !is_there() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "it has ended"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A listener whose queue is full answers nobody.
    #[test]
    fn no_attempt_goes_on_once_the_workload_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: listen(2) takes no pointers; a second one shortens the queue.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().unwrap();
        let attempt = Duration::from_millis(100);
        let queued: Vec<_> = (0..4)
            .map_while(|_| TcpStream::connect_timeout(&address, attempt).ok())
            .collect();
        assert!(!queued.is_empty() && queued.len() < 4);
        let within = Duration::from_secs(600);
        let error = dial(&[address.ip()], address.port(), within, || false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}

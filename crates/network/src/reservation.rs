//! Holding a host port, so that no other process and no other publication gets it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ports::Protocol;
use crate::sysctl;

/// Where chosen ports come from if the kernel's own range cannot be read.
const FALLBACK_RANGE: (u16, u16) = (49153, 65535);

/// A port that was just given up may be held for a moment by a child process of ours that has not
/// yet reached its exec, which closes the inherited socket.
const RETRIES: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Where ports are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the host.
    #[default]
    Host,
    /// In a network namespace of the engine's own, which lacks the host's addresses.
    Inside,
}

/// A socket bound to a host port. Nothing is ever read from it: the firewall sends the port's
/// packets elsewhere before they reach it.
#[derive(Debug)]
pub(crate) struct Reservation {
    port: u16,
    _socket: OwnedFd,
}

impl Reservation {
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Addresses on which one port is to be held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// On each of these, or on none.
    pub addresses: &'a [IpAddr],
    pub protocol: Protocol,
    pub place: Place,
}

impl Wish<'_> {
    fn reserve(&self, port: u16) -> Result<Vec<Reservation>> {
        self.addresses
            .iter()
            .map(|address| reserve(*address, port, self.protocol, self.place))
            .collect()
    }

    /// Reserves one port, by a reservation for each address.
    pub fn exact(&self, port: u16) -> Result<Vec<Reservation>> {
        let mut retries = RETRIES;
        loop {
            match self.reserve(port) {
                Err(Error::PortTaken { .. }) if retries > 0 => {
                    retries -= 1;
                    std::thread::sleep(RETRY_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// Reserves the first free port of a range.
    pub fn first_of(&self, first: u16, last: u16) -> Result<Vec<Reservation>> {
        self.first_among(first..=last)?
            .ok_or(Error::PortsExhausted { first, last })
    }

    /// Reserves a free port of the range that the kernel, too, takes ports from
    /// (`ip_local_port_range`), searching on from `next`.
    pub fn any(&self, next: &mut u16) -> Result<Vec<Reservation>> {
        let (first, last) = range();
        for attempt in 0..=RETRIES {
            if attempt > 0 {
                std::thread::sleep(RETRY_PAUSE);
            }
            let start = (*next).clamp(first, last);
            if let Some(held) = self.first_among((start..=last).chain(first..start))? {
                let port = held.first().map_or(first, Reservation::port);
                *next = if port == last { first } else { port + 1 };
                return Ok(held);
            }
        }
        Err(Error::PortsExhausted { first, last })
    }

    fn first_among(&self, ports: impl Iterator<Item = u16>) -> Result<Option<Vec<Reservation>>> {
        for port in ports {
            match self.reserve(port) {
                Err(Error::PortTaken { .. }) => {}
                outcome => return outcome.map(Some),
            }
        }
        Ok(None)
    }
}

fn reserve(address: IpAddr, port: u16, protocol: Protocol, place: Place) -> Result<Reservation> {
    hold(address, port, protocol, place).map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => Error::PortTaken {
            address,
            port,
            source,
        },
        Some(libc::EADDRNOTAVAIL) => Error::InvalidArgument(format!(
            "Bind for {} failed: {address} is not an address of this host",
            SocketAddr::new(address, port)
        )),
        // The kernel has no such sockets.
        Some(libc::EAFNOSUPPORT) => Error::Unsupported(format!(
            "port {port} cannot be published at {address}: this kernel has no IPv6"
        )),
        _ => Error::system(
            format!("bind {}/{protocol}", SocketAddr::new(address, port)),
            source,
        ),
    })
}

fn range() -> (u16, u16) {
    let text = sysctl::read("ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => (first, last),
        _ => FALLBACK_RANGE,
    }
}

fn hold(address: IpAddr, port: u16, protocol: Protocol, place: Place) -> io::Result<Reservation> {
    let kind = match protocol {
        Protocol::Tcp => libc::SOCK_STREAM,
        Protocol::Udp => libc::SOCK_DGRAM,
        Protocol::Sctp => return Err(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT)),
    };
    let socket = socket(kind, address, place)?;
    match bind(&socket, address, port) {
        // Closed connections of an earlier server (TIME_WAIT) block a plain bind for a minute.
        // With SO_REUSEADDR only a living socket does; but to keep later sockets with that
        // option off the port, this one has to listen.
        Err(error)
            if protocol == Protocol::Tcp && error.raw_os_error() == Some(libc::EADDRINUSE) =>
        {
            hold_listening(address, port, place)
        }
        other => other.map(|()| Reservation {
            port,
            _socket: socket,
        }),
    }
}

fn hold_listening(address: IpAddr, port: u16, place: Place) -> io::Result<Reservation> {
    let socket = socket(libc::SOCK_STREAM, address, place)?;
    switch_on(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    bind(&socket, address, port)?;
    // SAFETY: listen(2) takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 0) })?;
    Ok(Reservation {
        port,
        _socket: socket,
    })
}

fn switch_on(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that outlives the call, and its size is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on).try_into().unwrap_or(4),
        )
    })
}

fn socket(kind: libc::c_int, address: IpAddr, place: Place) -> io::Result<OwnedFd> {
    let (domain, level, free_bind) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::SOL_IP, libc::IP_FREEBIND),
        IpAddr::V6(_) => (libc::AF_INET6, libc::SOL_IPV6, libc::IPV6_FREEBIND),
    };
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        // The port of the other family is another one's, or held by a socket of its own.
        switch_on(&socket, libc::SOL_IPV6, libc::IPV6_V6ONLY)?;
    }
    if place == Place::Inside {
        switch_on(&socket, level, free_bind)?;
    }
    Ok(socket)
}

fn bind(socket: &OwnedFd, address: IpAddr, port: u16) -> io::Result<()> {
    match address {
        IpAddr::V4(address) => bind_name(
            socket,
            &libc::sockaddr_in {
                sin_family: libc::AF_INET.try_into().unwrap_or(2),
                sin_port: port.to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(address).to_be(),
                },
                sin_zero: [0; 8],
            },
        ),
        IpAddr::V6(address) => bind_name(
            socket,
            &libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6.try_into().unwrap_or(10),
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                sin6_scope_id: 0,
            },
        ),
    }
}

/// `name` is a `sockaddr_in` or a `sockaddr_in6`.
fn bind_name<T>(socket: &OwnedFd, name: &T) -> io::Result<()> {
    let length = size_of::<T>().try_into().unwrap_or(0);
    // SAFETY: `name` is readable for its own size, which is given, and outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(name).cast(), length) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

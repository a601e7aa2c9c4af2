//! The way to a receiver of log lines: a bounded queue and a socket that is never waited for.

use super::Stream;
use super::lines::PREFIX_BYTES;
use super::message::{Line, encode};
use crate::server::LOG_TOKEN;
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::io::would_block;
use gamut_abi::control::{LogSink, SinkAddress};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// Between two attempts to reach a receiver that is not there.
const RETRY: Duration = Duration::from_secs(1);

/// See the module's text.
pub(super) struct Sink {
    settings: LogSink,
    pid: u32,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// How much of the first message has gone out, over a stream.
    sent_bytes: usize,
    /// Lines that found no room, about which nobody was told yet.
    dropped: u64,
    connection: Option<Connection>,
    /// Broken, and still to be taken out of the loop's registrations.
    broken: Option<Connection>,
    retry_at: Option<Instant>,
}

struct Connection {
    socket: OwnedFd,
    /// Messages have no bounds of their own, and may go out in parts.
    is_stream: bool,
    registration: Registration,
}

impl Sink {
    pub(super) fn new(settings: LogSink) -> Self {
        Self {
            settings,
            pid: std::process::id(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            sent_bytes: 0,
            dropped: 0,
            connection: None,
            broken: None,
            retry_at: None,
        }
    }

    /// Takes lines of the log, each with its prefix.
    pub(super) fn push(&mut self, lines: &[u8], time_ns: u64) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some((prefix, text)) = line.split_at_checked(PREFIX_BYTES) else {
                continue;
            };
            let is_stderr = prefix.get(PREFIX_BYTES - 9..PREFIX_BYTES - 3) == Some(b"stderr");
            self.push_line(Line {
                stream: if is_stderr {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                },
                partial: prefix.get(PREFIX_BYTES - 2) == Some(&b'P'),
                time_ns,
                text: text.strip_suffix(b"\n").unwrap_or(text),
            });
        }
        // Without a marker of its own: it goes out as soon as there is room again.
        self.send();
    }

    fn push_line(&mut self, line: Line<'_>) {
        if self.dropped > 0 && self.queue.is_empty() {
            let text = format!(
                "gamut: {} lines of output were dropped: the receiver of the log was too slow",
                self.dropped
            );
            self.dropped = 0;
            self.enqueue(encode(
                &self.settings.format,
                self.pid,
                Line {
                    stream: Stream::Stderr,
                    partial: false,
                    text: text.as_bytes(),
                    ..line
                },
            ));
        }
        let limit = usize::try_from(self.settings.max_queue_bytes).unwrap_or(usize::MAX);
        if self.queued_bytes >= limit {
            self.send();
        }
        if self.queued_bytes >= limit {
            self.dropped += 1;
            return;
        }
        self.enqueue(encode(&self.settings.format, self.pid, line));
    }

    fn enqueue(&mut self, message: Vec<u8>) {
        self.queued_bytes += message.len();
        self.queue.push_back(message);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.queue.is_empty())
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty() || self.connection.is_none()
    }

    pub(super) fn undelivered_lines(&self) -> u64 {
        self.dropped + u64::try_from(self.queue.len()).unwrap_or(0)
    }

    /// Connects if it is time to, sends what is taken, and awaits room for the rest.
    pub(super) fn settle(&mut self, epoll: &Epoll, now: Instant) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
        }
        self.send();
        if let Some(mut broken) = self.broken.take() {
            // It was registered or not; either way it is not afterwards.
            let _ = broken.registration.set(epoll, broken.socket.as_fd(), None);
        }
        let wanted = (!self.queue.is_empty()).then_some(epoll::OUT);
        if let Some(connection) = &mut self.connection {
            // Should it fail, the socket is looked at with the next line.
            let _ = connection
                .registration
                .set(epoll, connection.socket.as_fd(), wanted);
        }
    }

    fn send(&mut self) {
        if self.queue.is_empty() || (self.connection.is_none() && !self.connect()) {
            return;
        }
        while let Some(message) = self.queue.front() {
            let Some(connection) = &self.connection else {
                return;
            };
            let rest = message.get(self.sent_bytes..).unwrap_or_default();
            let sent = send(connection.socket.as_fd(), rest).map(|sent| {
                if connection.is_stream {
                    self.sent_bytes + sent
                } else {
                    message.len()
                }
            });
            match sent {
                Ok(sent) if sent >= message.len() => self.shift(),
                Ok(sent) => self.sent_bytes = sent,
                Err(error)
                    if would_block(&error) || error.raw_os_error() == Some(libc::ENOBUFS) =>
                {
                    return;
                }
                // Longer than the receiver takes: it will not become shorter.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    self.dropped += 1;
                    self.shift();
                }
                Err(_) => return self.disconnect(),
            }
        }
    }

    fn shift(&mut self) {
        self.sent_bytes = 0;
        if let Some(message) = self.queue.pop_front() {
            self.queued_bytes -= message.len();
        }
    }

    /// Whether there is a socket now.
    fn connect(&mut self) -> bool {
        if self.retry_at.is_some() {
            return false;
        }
        match connect(&self.settings.address) {
            Ok((socket, is_stream)) => {
                self.connection = Some(Connection {
                    socket,
                    is_stream,
                    registration: Registration::new(LOG_TOKEN),
                });
                true
            }
            Err(_) => {
                self.retry_at = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    /// A message that was sent in part is sent again as a whole.
    fn disconnect(&mut self) {
        if self.broken.is_none() {
            self.broken = self.connection.take();
        }
        self.connection = None;
        self.sent_bytes = 0;
        self.retry_at = Some(Instant::now() + RETRY);
    }
}

/// A socket that is connected or on its way to be, and whether it is a stream. Nothing here waits.
fn connect(address: &SinkAddress) -> io::Result<(OwnedFd, bool)> {
    Ok(match address {
        SinkAddress::UnixDatagram(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(path)?;
            (socket.into(), false)
        }
        SinkAddress::UnixStream(path) => (begin(&unix_name(path)?, libc::AF_UNIX)?, true),
        SinkAddress::Udp(address) => {
            let address = parse(address)?;
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
                SocketAddr::V6(_) => ([0u16; 8], 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            (socket.into(), false)
        }
        SinkAddress::Tcp(address) => {
            let socket = match parse(address)? {
                SocketAddr::V4(address) => begin(&name_v4(address), libc::AF_INET)?,
                SocketAddr::V6(address) => begin(&name_v6(address), libc::AF_INET6)?,
            };
            (socket, true)
        }
    })
}

fn parse(address: &str) -> io::Result<SocketAddr> {
    address
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn family(family: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or_default()
}

fn unix_name(path: &str) -> io::Result<libc::sockaddr_un> {
    let mut name = libc::sockaddr_un {
        sun_family: family(libc::AF_UNIX),
        sun_path: [0; 108],
    };
    // The last byte stays NUL.
    if path.len() >= name.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in name.sun_path.iter_mut().zip(path.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(name)
}

fn name_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: family(libc::AF_INET),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn name_v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: family(libc::AF_INET6),
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr {
            s6_addr: address.ip().octets(),
        },
        sin6_scope_id: address.scope_id(),
    }
}

/// Begins to connect a stream; that it did, or did not, shows in the first write.
///
/// # Errors
/// Those of socket(2) and connect(2); `WouldBlock` if a unix socket's queue is full.
fn begin<Name>(name: &Name, family: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    let socket = unsafe {
        let raw = libc::socket(
            family,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        );
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    let length = libc::socklen_t::try_from(size_of::<Name>()).unwrap_or_default();
    // SAFETY: `name` is a socket address of this family and outlives the call.
    let result =
        unsafe { libc::connect(socket.as_raw_fd(), std::ptr::from_ref(name).cast(), length) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
    }
    Ok(socket)
}

/// send(2) without SIGPIPE, repeated when interrupted. Not connected yet counts as full.
fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length describe a live slice.
        let result = unsafe {
            libc::send(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        if let Ok(sent) = usize::try_from(result) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::Prefix;
    use super::*;
    use gamut_abi::control::{SinkFormat, SyslogStyle};
    use std::io::Read;
    use std::net::TcpListener;
    use std::path::Path;

    fn sink(address: SinkAddress, max_queue_bytes: u32) -> Sink {
        Sink::new(LogSink {
            address,
            format: SinkFormat::Syslog {
                style: SyslogStyle::Rfc5424,
                facility: 3,
                hostname: "host".to_owned(),
                tag: "tag".to_owned(),
            },
            max_queue_bytes,
        })
    }

    fn datagrams(path: &Path) -> SinkAddress {
        SinkAddress::UnixDatagram(path.to_str().unwrap().to_owned())
    }

    fn push(sink: &mut Sink, text: &str) {
        let mut lines = Vec::new();
        Prefix::new(*b"2024-03-01T00:00:00.000000007Z", Stream::Stderr)
            .put_full(text.as_bytes(), &mut lines);
        sink.push(&lines, 1_709_251_200_000_000_007);
    }

    /// Long after the last attempt.
    fn settle(sink: &mut Sink, epoll: &Epoll) {
        sink.settle(epoll, Instant::now() + 2 * RETRY);
    }

    fn received(receiver: &UnixDatagram) -> Vec<String> {
        receiver.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(count) = receiver.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        all
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let epoll = Epoll::new().unwrap();
        let mut sink = sink(datagrams(&path), 500);
        for number in 0..100 {
            push(&mut sink, &format!("line {number}"));
        }
        assert!(sink.queued_bytes < 600, "{} bytes wait", sink.queued_bytes);
        assert_eq!(sink.undelivered_lines(), 100);
        // Nobody is there: the end is not held up.
        assert!(sink.is_flushed() && sink.deadline().is_some());
        // It comes: what waited arrives, then a line that tells how much is missing.
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut all = Vec::new();
        for _ in 0..100 {
            settle(&mut sink, &epoll);
            all.extend(received(&receiver));
        }
        assert!(all[0].ends_with("- line 0\n"), "{all:?}");
        assert_eq!(
            sink.undelivered_lines(),
            100 - u64::try_from(all.len()).unwrap()
        );
        push(&mut sink, "the next");
        settle(&mut sink, &epoll);
        let last = received(&receiver);
        assert!(last[0].contains("lines of output were dropped"), "{last:?}");
        assert!(last[1].ends_with("- the next\n"), "{last:?}");
        assert_eq!(sink.undelivered_lines(), 0);
    }

    #[test]
    fn a_receiver_that_goes_and_comes_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let epoll = Epoll::new().unwrap();
        let first = UnixDatagram::bind(&path).unwrap();
        let mut sink = sink(datagrams(&path), 4096);
        push(&mut sink, "one");
        assert_eq!(received(&first).len(), 1);
        drop(first);
        std::fs::remove_file(&path).unwrap();
        push(&mut sink, "two");
        settle(&mut sink, &epoll);
        let second = UnixDatagram::bind(&path).unwrap();
        settle(&mut sink, &epoll);
        assert!(received(&second)[0].ends_with("- two\n"));
    }

    #[test]
    fn a_stream_that_is_read_slowly_gets_whole_messages() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = SinkAddress::Tcp(listener.local_addr().unwrap().to_string());
        let epoll = Epoll::new().unwrap();
        let mut sink = sink(address, 64 << 20);
        let long = "x".repeat(10_000);
        for _ in 0..1_000 {
            push(&mut sink, &long);
        }
        // More than the socket takes: the rest is awaited.
        assert!(sink.undelivered_lines() > 0 && !sink.is_flushed());
        let (mut stream, _) = listener.accept().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        while sink.undelivered_lines() > 0 {
            sink.settle(&epoll, Instant::now());
            let mut ready = Vec::new();
            epoll
                .wait(&mut ready, Some(Duration::from_secs(10)))
                .unwrap();
        }
        drop(sink);
        let text = reader.join().unwrap();
        assert_eq!(text.lines().count(), 1_000);
        assert!(text.lines().all(|line| line.ends_with(&long)));
    }
}

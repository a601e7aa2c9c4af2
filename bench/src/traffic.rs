//! HTTP requests to a port of a daemon's network namespace.

use crate::measure::Failure;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /bench HTTP/1.1\r\nHost: bench\r\n\r\n";

/// Does something in the network namespace of a process.
///
/// # Errors
/// If the namespace cannot be entered, and those of what is done.
pub fn inside<T: Send>(
    pid: u32,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, Failure> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    // Of a thread of its own, which does not come back.
    let done = std::thread::scope(|scope| {
        scope
            .spawn(move || {
                // SAFETY: plain call on an open descriptor; it concerns this thread alone.
                if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(format!(
                        "enter the network namespace: {}",
                        std::io::Error::last_os_error()
                    ));
                }
                work()
            })
            .join()
    });
    match done {
        Ok(done) => done.map_err(Failure::from),
        Err(_) => Err("the thread of the requests ended".into()),
    }
}

/// Waits until a server gives the first byte of an answer.
///
/// # Errors
/// If there is none after ten seconds.
pub fn first_byte(address: SocketAddr) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let asked = TcpStream::connect_timeout(&address, Duration::from_millis(500)).and_then(
            |mut stream| {
                stream.set_read_timeout(Some(Duration::from_millis(500)))?;
                stream.write_all(REQUEST)?;
                stream.read(&mut [0; 1])
            },
        );
        match asked {
            Ok(1..) => return Ok(()),
            _ if Instant::now() > until => return Err(format!("{address} does not answer")),
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// What a server did under load.
pub struct Load {
    /// Requests answered per second.
    pub per_second: f64,
    /// 99 of 100 requests took no longer than this.
    pub p99: Duration,
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self, String> {
        let failed = |error| format!("connect to {address}: {error}");
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let sent = Instant::now();
        stream.write_all(REQUEST).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            stream,
            sent,
            answer: Vec::new(),
        })
    }

    /// Reads what is there; how long the request took, if it is answered. The next one is sent.
    fn progress(&mut self, address: SocketAddr) -> Result<Option<Duration>, String> {
        let mut buffer = [0; 4096];
        let read = match self.stream.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(format!("read from {address}: {error}")),
        };
        self.answer.extend(buffer.iter().take(read));
        let closed = read == 0;
        if !closed && !is_whole(&self.answer) {
            return Ok(None);
        }
        if closed && self.answer.is_empty() {
            return Err(format!("{address} closed the connection without an answer"));
        }
        let took = self.sent.elapsed();
        if closed || says_close(&self.answer) {
            // A server that answers one request per connection.
            *self = Self::open(address)?;
        } else {
            self.answer.clear();
            self.sent = Instant::now();
            self.stream
                .write_all(REQUEST)
                .map_err(|error| format!("write to {address}: {error}"))?;
        }
        Ok(Some(took))
    }
}

fn says_close(answer: &[u8]) -> bool {
    String::from_utf8_lossy(answer)
        .to_ascii_lowercase()
        .contains("connection: close")
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

/// Asks over several connections at once, for a time, one request after the other on each.
///
/// # Errors
/// If the server cannot be reached or ends a connection without an answer.
pub fn load(address: SocketAddr, connections: usize, time: Duration) -> Result<Load, String> {
    let mut open = (0..connections)
        .map(|_| Connection::open(address))
        .collect::<Result<Vec<_>, _>>()?;
    let mut took = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let mut polled: Vec<libc::pollfd> = open
            .iter()
            .map(|connection| libc::pollfd {
                fd: connection.stream.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let count = libc::nfds_t::try_from(polled.len()).map_err(|error| error.to_string())?;
        // SAFETY: the array has that many entries and lives until poll returns.
        unsafe { libc::poll(polled.as_mut_ptr(), count, 100) };
        for (connection, polled) in open.iter_mut().zip(&polled) {
            if polled.revents != 0 {
                took.extend(connection.progress(address)?);
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    took.sort_unstable();
    let answered = u32::try_from(took.len()).map_err(|error| error.to_string())?;
    Ok(Load {
        per_second: f64::from(answered) / seconds,
        p99: took
            .get(took.len().saturating_sub(1) * 99 / 100)
            .copied()
            .unwrap_or_default(),
    })
}

//! TCP: listeners with a backlog, and streams.
//!
//! Memory is taken when somebody connects: a listener has no sockets that wait. The first segment
//! of a connection is seen before the protocols see it, and a socket is made for it if the
//! backlog has room; if not, the segment is dropped, and the peer tries again.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::{Poll, Waker};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, RecvError, Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;

use super::interface::{Attachment, ip_address};
use super::stack::{self, Stack};
use super::syn;
use crate::error::becomes_error;
use crate::memory;

/// Connections that a listener keeps until they are accepted.
pub const DEFAULT_BACKLOG: usize = 128;
/// Buffers of a connection, in bytes: in a guest with a small heap and with a large one.
const BUFFER_BYTES_SMALL: usize = 8 << 10;
const BUFFER_BYTES: usize = 64 << 10;
/// A heap of this size is large.
const LARGE_HEAP_BYTES: u64 = 48 << 20;
/// How long a peer may stay silent while a connection is made or ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that wait for late segments (TIME-WAIT); the oldest ones go first.
const MAX_TIME_WAIT: usize = 16;

/// Connections are not taken when less memory than this is left.
const RESERVE_BYTES: usize = 256 << 10;

/// Why a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpError {
    /// No device leads to the address.
    Unreachable,
    /// The peer refused, or did not answer.
    Refused,
    /// The peer broke the connection, or has been silent for too long.
    Reset,
    /// Our side has been closed.
    Closed,
    /// Somebody else listens on the port.
    InUse,
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "no network leads to this address",
            Self::Refused => "connection refused, or no answer",
            Self::Reset => "connection broken by the peer",
            Self::Closed => "connection is closed on our side",
            Self::InUse => "somebody else listens on this port",
        })
    }
}

becomes_error!(TcpError);

/// A socket and the device it is at.
type Place = (usize, SocketHandle);

struct Listening {
    port: u16,
    backlog: usize,
    buffer_bytes: usize,
    /// Connections that are being made or have not been accepted.
    pending: VecDeque<Place>,
    waiting: Option<Waker>,
}

/// Listeners, and sockets that nobody holds any more.
pub(super) struct State {
    listening: Vec<Listening>,
    /// Closed by their owners: sent and acknowledged what is left.
    leaving: VecDeque<Place>,
}

impl State {
    pub(super) const fn new() -> Self {
        Self {
            listening: Vec::new(),
            leaving: VecDeque::new(),
        }
    }

    fn listening(&mut self, port: u16) -> Option<&mut Listening> {
        self.listening
            .iter_mut()
            .find(|listening| listening.port == port)
    }
}

fn new_socket(buffer_bytes: usize) -> Socket<'static> {
    let mut socket = Socket::new(
        SocketBuffer::new(vec![0; buffer_bytes]),
        SocketBuffer::new(vec![0; buffer_bytes]),
    );
    socket.set_nagle_enabled(false);
    socket
}

fn default_buffer_bytes() -> usize {
    if crate::boot::block().heap_bytes >= LARGE_HEAP_BYTES {
        BUFFER_BYTES
    } else {
        BUFFER_BYTES_SMALL
    }
}

fn is_known(attachment: &Attachment, syn: &syn::Syn) -> bool {
    let Some(from) = ip_address(syn.from) else {
        return true;
    };
    let remote = IpEndpoint::new(from, syn.from_port);
    attachment.sockets.iter().any(|(_, socket)| match socket {
        smoltcp::socket::Socket::Tcp(socket) => {
            socket.remote_endpoint() == Some(remote)
                && socket
                    .local_endpoint()
                    .is_some_and(|local| local.port == syn.to_port)
                && socket.state() != tcp::State::TimeWait
        }
        #[allow(
            unreachable_patterns,
            reason = "the only kind without further features"
        )]
        _ => false,
    })
}

/// Lets a device handle what has arrived, with a socket for each connection that is wanted.
pub(super) fn receive(state: &mut State, index: usize, attachment: &mut Attachment, now: Instant) {
    let made: core::cell::Cell<Option<(u16, SocketHandle)>> = core::cell::Cell::new(None);
    let state = core::cell::RefCell::new(state);
    attachment.receive(
        now,
        |attachment, frame| {
            let Some(syn) = syn::read(frame) else {
                return true;
            };
            let mut state = state.borrow_mut();
            let Some(listening) = state.listening(syn.to_port) else {
                return true;
            };
            if is_known(attachment, &syn) {
                return true;
            }
            let is_full = listening.pending.len() >= listening.backlog;
            if is_full || memory::available_bytes() < RESERVE_BYTES + 4 * listening.buffer_bytes {
                return false;
            }
            let mut socket = new_socket(listening.buffer_bytes);
            socket.set_timeout(Some(PATIENCE));
            if socket.listen(syn.to_port).is_ok() {
                let handle = attachment.sockets.add(socket);
                listening.pending.push_back((index, handle));
                made.set(Some((syn.to_port, handle)));
            }
            true
        },
        |attachment| {
            // The segment was not for us after all (address, checksum): the socket goes again.
            let Some((port, handle)) = made.take() else {
                return;
            };
            if attachment.sockets.get::<Socket<'_>>(handle).state() == tcp::State::Listen {
                attachment.sockets.remove(handle);
                if let Some(listening) = state.borrow_mut().listening(port) {
                    listening.pending.retain(|place| *place != (index, handle));
                }
            }
        },
    );
}

/// Wakes who can accept, and removes sockets that are done.
pub(super) fn settle(stack: &mut Stack) {
    let Stack {
        attachments, tcp, ..
    } = stack;
    for listening in &mut tcp.listening {
        if listening.pending.is_empty() || listening.waiting.is_none() {
            continue;
        }
        let is_acceptable = |&(index, handle): &Place| {
            attachments.get(index).is_some_and(|attachment| {
                let state = attachment.sockets.get::<Socket<'_>>(handle).state();
                !matches!(state, tcp::State::Listen | tcp::State::SynReceived)
            })
        };
        if listening.pending.iter().any(is_acceptable)
            && let Some(waiting) = listening.waiting.take()
        {
            waiting.wake();
        }
    }
    let mut in_time_wait = 0;
    for &(index, handle) in &tcp.leaving {
        if let Some(attachment) = attachments.get(index) {
            let socket = attachment.sockets.get::<Socket<'_>>(handle);
            in_time_wait += usize::from(socket.state() == tcp::State::TimeWait);
        }
    }
    tcp.leaving.retain(|&(index, handle)| {
        let Some(attachment) = attachments.get_mut(index) else {
            return false;
        };
        let is_done = match attachment.sockets.get::<Socket<'_>>(handle).state() {
            tcp::State::Closed => true,
            tcp::State::TimeWait if in_time_wait > MAX_TIME_WAIT => {
                in_time_wait -= 1;
                true
            }
            _ => false,
        };
        if is_done {
            attachment.sockets.remove(handle);
        }
        !is_done
    });
}

/// Whether a closed connection still has something to send.
pub(super) fn is_sending() -> bool {
    stack::with(|stack| {
        let Stack {
            attachments, tcp, ..
        } = stack;
        tcp.leaving.iter().any(|&(index, handle)| {
            attachments.get(index).is_some_and(|attachment| {
                let socket = attachment.sockets.get::<Socket<'_>>(handle);
                !matches!(
                    socket.state(),
                    tcp::State::Closed | tcp::State::TimeWait | tcp::State::FinWait2
                )
            })
        })
    })
}

/// Waits for connections on a port of all devices.
#[derive(Debug)]
pub struct TcpListener {
    port: u16,
}

impl TcpListener {
    /// Listens on a port.
    ///
    /// # Errors
    /// If somebody else does.
    pub fn bind(port: u16) -> Result<Self, TcpError> {
        Self::bind_with(port, DEFAULT_BACKLOG, default_buffer_bytes())
    }

    /// Listens on a port, with a backlog and buffers of a size per connection and direction.
    ///
    /// # Errors
    /// If somebody else does.
    pub fn bind_with(port: u16, backlog: usize, buffer_bytes: usize) -> Result<Self, TcpError> {
        stack::with(|stack| {
            if port == 0 || stack.tcp.listening(port).is_some() {
                return Err(TcpError::InUse);
            }
            stack.tcp.listening.push(Listening {
                port,
                backlog,
                buffer_bytes,
                pending: VecDeque::new(),
                waiting: None,
            });
            Ok(Self { port })
        })
    }

    /// Waits for the next connection.
    pub async fn accept(&mut self) -> TcpStream {
        poll_fn(|context| {
            stack::with(|stack| {
                let Stack {
                    attachments, tcp, ..
                } = stack;
                let Some(listening) = tcp.listening(self.port) else {
                    return Poll::Pending;
                };
                let mut accepted = None;
                listening.pending.retain(|&(index, handle)| {
                    let Some(attachment) = attachments.get_mut(index) else {
                        return false;
                    };
                    let socket = attachment.sockets.get_mut::<Socket<'_>>(handle);
                    match socket.state() {
                        tcp::State::Listen | tcp::State::SynReceived => true,
                        tcp::State::Closed => {
                            attachment.sockets.remove(handle);
                            false
                        }
                        _ if accepted.is_some() => true,
                        _ => {
                            socket.set_timeout(None);
                            accepted = Some((index, handle));
                            false
                        }
                    }
                });
                match accepted {
                    Some(place) => Poll::Ready(TcpStream { place }),
                    None => {
                        listening.waiting = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        stack::with(|stack| {
            let Stack {
                attachments, tcp, ..
            } = stack;
            let Some(at) = tcp
                .listening
                .iter()
                .position(|listening| listening.port == self.port)
            else {
                return;
            };
            for (index, handle) in tcp.listening.remove(at).pending {
                if let Some(attachment) = attachments.get_mut(index) {
                    attachment.sockets.get_mut::<Socket<'_>>(handle).abort();
                    attachment.is_touched = true;
                    tcp.leaving.push_back((index, handle));
                }
            }
        });
    }
}

/// A connection. Dropping it closes it; what has been written is still sent.
#[derive(Debug)]
pub struct TcpStream {
    place: Place,
}

impl TcpStream {
    /// Connects to an address.
    ///
    /// # Errors
    /// If nothing leads there, or the peer refuses or does not answer.
    pub async fn connect(address: SocketAddr) -> Result<Self, TcpError> {
        let remote = ip_address(address.ip()).ok_or(TcpError::Unreachable)?;
        stack::wait_for_address().await;
        let stream = stack::with(|stack| {
            let index = stack.route(&remote).ok_or(TcpError::Unreachable)?;
            let port = stack.ephemeral_port();
            let attachment = stack
                .attachments
                .get_mut(index)
                .ok_or(TcpError::Unreachable)?;
            let mut socket = new_socket(default_buffer_bytes());
            socket.set_timeout(Some(PATIENCE));
            let endpoint = IpEndpoint::new(remote, address.port());
            socket
                .connect(attachment.interface.context(), endpoint, port)
                .map_err(|_| TcpError::Unreachable)?;
            attachment.is_touched = true;
            let handle = attachment.sockets.add(socket);
            Ok(Self {
                place: (index, handle),
            })
        })?;
        poll_fn(|context| {
            stream.with(|socket| match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                tcp::State::Closed => Poll::Ready(Err(TcpError::Refused)),
                _ => {
                    socket.set_timeout(None);
                    Poll::Ready(Ok(()))
                }
            })
        })
        .await?;
        Ok(stream)
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        self.with_touch(use_it, |_| false)
    }

    /// Calls a function that gives the protocols something to do.
    fn change<R>(&self, use_it: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        self.with_touch(use_it, |_| true)
    }

    /// Calls a function that gives the protocols something to do if it is ready.
    fn poll_change<R>(&self, use_it: impl FnOnce(&mut Socket<'static>) -> Poll<R>) -> Poll<R> {
        self.with_touch(use_it, Poll::is_ready)
    }

    fn with_touch<R>(
        &self,
        use_it: impl FnOnce(&mut Socket<'static>) -> R,
        touches: impl FnOnce(&R) -> bool,
    ) -> R {
        let (index, handle) = self.place;
        stack::with(|stack| {
            let attachment = &mut stack.attachments[index];
            let result = use_it(attachment.sockets.get_mut::<Socket<'static>>(handle));
            attachment.is_touched |= touches(&result);
            result
        })
    }

    /// The peer's address, while there is a connection.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.with(|socket| {
            let remote = socket.remote_endpoint()?;
            Some(SocketAddr::new(IpAddr::from(remote.addr), remote.port))
        })
    }

    /// Waits for bytes and takes as many as there are room for; 0 once the peer has closed its
    /// side.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TcpError> {
        poll_fn(|context| {
            self.poll_change(|socket| {
                if socket.may_recv() && !socket.can_recv() {
                    socket.register_recv_waker(context.waker());
                    return Poll::Pending;
                }
                Poll::Ready(match socket.recv_slice(buffer) {
                    Ok(count) => Ok(count),
                    Err(RecvError::Finished) => Ok(0),
                    Err(RecvError::InvalidState) => Err(TcpError::Reset),
                })
            })
        })
        .await
    }

    /// Waits for bytes and appends at most `most_bytes` of them; 0 once the peer has closed its
    /// side. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn read_to(
        &mut self,
        buffer: &mut Vec<u8>,
        most_bytes: usize,
    ) -> Result<usize, TcpError> {
        self.take(buffer, most_bytes).await
    }

    async fn take(&self, buffer: &mut Vec<u8>, most_bytes: usize) -> Result<usize, TcpError> {
        poll_fn(|context| {
            self.poll_change(|socket| {
                if socket.may_recv() && !socket.can_recv() {
                    socket.register_recv_waker(context.waker());
                    return Poll::Pending;
                }
                let received = socket.recv(|data| {
                    let count = data.len().min(most_bytes);
                    buffer.extend_from_slice(data.get(..count).unwrap_or_default());
                    (count, count)
                });
                Poll::Ready(match received {
                    Ok(count) => Ok(count),
                    Err(RecvError::Finished) => Ok(0),
                    Err(RecvError::InvalidState) => Err(TcpError::Reset),
                })
            })
        })
        .await
    }

    /// Waits for room and writes as many bytes as fit, at least one.
    ///
    /// # Errors
    /// If the connection is broken or closed on our side.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, TcpError> {
        self.put(bytes).await
    }

    async fn put(&self, bytes: &[u8]) -> Result<usize, TcpError> {
        poll_fn(|context| {
            self.poll_change(|socket| match socket.send_slice(bytes) {
                Ok(0) if !bytes.is_empty() => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                Ok(count) => Poll::Ready(Ok(count)),
                Err(_) if socket.state() == tcp::State::Closed => Poll::Ready(Err(TcpError::Reset)),
                Err(_) => Poll::Ready(Err(TcpError::Closed)),
            })
        })
        .await
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// If the connection is broken or closed on our side.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), TcpError> {
        self.put_all(bytes).await
    }

    async fn put_all(&self, mut bytes: &[u8]) -> Result<(), TcpError> {
        while !bytes.is_empty() {
            let count = self.put(bytes).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Both directions, each to be used by a task of its own or beside the other ([`join`]).
    ///
    /// [`join`]: crate::executor::join
    pub fn split(&mut self) -> (TcpReader<'_>, TcpWriter<'_>) {
        (TcpReader(self), TcpWriter(self))
    }

    /// Waits until the peer has acknowledged everything that was written.
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn flush(&mut self) -> Result<(), TcpError> {
        poll_fn(|context| {
            self.with(|socket| {
                if socket.send_queue() == 0 {
                    return Poll::Ready(Ok(()));
                }
                if socket.state() == tcp::State::Closed {
                    return Poll::Ready(Err(TcpError::Reset));
                }
                socket.register_send_waker(context.waker());
                Poll::Pending
            })
        })
        .await
    }

    /// Closes our side; the peer can still send.
    pub fn shutdown(&mut self) {
        self.change(Socket::close);
    }

    /// Breaks the connection.
    pub fn abort(self) {
        self.change(Socket::abort);
    }
}

/// What the peer of a connection sends.
#[derive(Debug)]
pub struct TcpReader<'stream>(&'stream TcpStream);

impl TcpReader<'_> {
    /// As [`TcpStream::read_to`].
    ///
    /// # Errors
    /// If the connection is broken.
    pub async fn read_to(
        &mut self,
        buffer: &mut Vec<u8>,
        most_bytes: usize,
    ) -> Result<usize, TcpError> {
        self.0.take(buffer, most_bytes).await
    }
}

/// What is sent to the peer of a connection.
#[derive(Debug)]
pub struct TcpWriter<'stream>(&'stream TcpStream);

impl TcpWriter<'_> {
    /// As [`TcpStream::write_all`].
    ///
    /// # Errors
    /// If the connection is broken or closed on our side.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), TcpError> {
        self.0.put_all(bytes).await
    }

    /// As [`TcpStream::shutdown`].
    pub fn shutdown(&mut self) {
        self.0.change(Socket::close);
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.change(|socket| {
            socket.close();
            socket.set_timeout(Some(PATIENCE));
        });
        stack::with(|stack| stack.tcp.leaving.push_back(self.place));
    }
}

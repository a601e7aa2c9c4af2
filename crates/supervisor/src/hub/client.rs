//! One attached client.

use super::ByteQueue;
use crate::log::Stream;
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::io;
use gamut_abi::control::Attach;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Output that waits for a client; when it is full, the process's pipe is not read.
const BUFFER_BYTES: usize = 1 << 20;

/// After the process is gone, a client that takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(60);

/// After everything is sent, the client's end of the stream is awaited this long, because closing
/// a socket with unread input makes the peer lose what it has not yet read (or see an error).
const LINGER: Duration = Duration::from_secs(1);

/// What a client sent.
pub(super) enum Read {
    Bytes(usize),
    Nothing,
    /// Its side is closed.
    End,
}

/// How far the closing of a stream has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    No,
    /// Everything in the queue goes out first.
    Flushing,
    /// Our side is shut down; the client's is awaited until then.
    Lingering(Instant),
    Done,
}

/// See the module's text.
pub(super) struct Client {
    stream: OwnedFd,
    attach: Attach,
    framed: bool,
    registration: Registration,
    queue: ByteQueue,
    input_ended: bool,
    progress_at: Instant,
    closing: Closing,
}

impl Client {
    pub(super) fn new(
        stream: OwnedFd,
        attach: Attach,
        framed: bool,
        token: u64,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            attach,
            framed,
            registration: Registration::new(token),
            queue: ByteQueue::default(),
            input_ended: !attach.stdin,
            progress_at: now,
            closing: Closing::No,
        }
    }

    pub(super) fn feeds_stdin(&self) -> bool {
        self.attach.stdin
    }

    fn gets(&self, stream: Stream) -> bool {
        self.closing == Closing::No
            && match stream {
                Stream::Stdout => self.attach.stdout,
                Stream::Stderr => self.attach.stderr,
            }
    }

    /// The client gets this stream and has no room for more of it.
    pub(super) fn blocks(&self, stream: Stream) -> bool {
        self.gets(stream) && self.queue.len() >= BUFFER_BYTES
    }

    /// Sends or queues output.
    pub(super) fn send(&mut self, stream: Stream, chunk: &[u8], now: Instant) {
        if !self.gets(stream) {
            return;
        }
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes();
        let [a, b, c, d] = length;
        let header = [stream.number(), 0, 0, 0, a, b, c, d];
        let header = if self.framed { &header[..] } else { &[] };
        let mut sent = 0;
        if self.queue.is_empty() {
            match io::write_two(self.stream.as_fd(), header, chunk) {
                Ok(count) => {
                    sent = count;
                    self.progress_at = now;
                }
                Err(error) if io::would_block(&error) => {}
                Err(_) => return self.stop_output(),
            }
        }
        if let Some(rest @ [_, ..]) = header.get(sent..) {
            self.queue.push(rest);
            self.queue.push(chunk);
        } else if let Some(rest @ [_, ..]) = chunk.get(sent - header.len()..) {
            self.queue.push(rest);
        }
    }

    /// Writes what is queued.
    pub(super) fn flush(&mut self, now: Instant) {
        while !self.queue.is_empty() {
            match io::write(self.stream.as_fd(), self.queue.front()) {
                Ok(count) if count > 0 => {
                    self.queue.consume(count);
                    self.progress_at = now;
                }
                Err(error) if io::would_block(&error) => return,
                _ => return self.stop_output(),
            }
        }
    }

    /// The client takes no more output. Input that it has sent before is still read.
    pub(super) fn stop_output(&mut self) {
        self.queue.clear();
        self.attach.stdout = false;
        self.attach.stderr = false;
        if self.input_ended || self.closing != Closing::No {
            self.closing = Closing::Done;
        }
    }

    pub(super) fn wants_to_read(&self, room: usize) -> bool {
        match self.closing {
            Closing::No => !self.input_ended && room > 0,
            Closing::Lingering(_) => true,
            Closing::Flushing | Closing::Done => false,
        }
    }

    /// Reads input, at most `room` bytes.
    pub(super) fn read(&mut self, buffer: &mut [u8], room: usize) -> Read {
        let lingering = self.closing != Closing::No;
        let window = buffer.len().min(if lingering { usize::MAX } else { room });
        let Some(window) = buffer.get_mut(..window) else {
            return Read::Nothing;
        };
        match io::read(self.stream.as_fd(), window) {
            Ok(count) if count > 0 => {
                if lingering {
                    Read::Nothing
                } else {
                    Read::Bytes(count)
                }
            }
            Err(error) if io::would_block(&error) => Read::Nothing,
            Ok(_) | Err(_) => {
                let first = !self.input_ended;
                self.input_ended = true;
                if lingering || !(self.attach.stdout || self.attach.stderr) {
                    self.closing = Closing::Done;
                }
                if first { Read::End } else { Read::Nothing }
            }
        }
    }

    pub(super) fn close_when_flushed(&mut self, now: Instant) {
        if self.closing == Closing::No {
            self.closing = Closing::Flushing;
            self.progress_at = now;
        }
    }

    /// Moves the closing on; true if nothing is left to do for this client.
    pub(super) fn is_done(&mut self, now: Instant) -> bool {
        if self.closing == Closing::Flushing && self.queue.is_empty() {
            io::shutdown_write(self.stream.as_fd());
            self.closing = if self.input_ended {
                Closing::Done
            } else {
                Closing::Lingering(now + LINGER)
            };
        }
        self.closing == Closing::Done
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.closing {
            Closing::Flushing => Some(self.progress_at + STALL),
            Closing::Lingering(until) => Some(until),
            Closing::No | Closing::Done => None,
        }
    }

    pub(super) fn refresh(&mut self, epoll: &Epoll, room: usize) -> std::io::Result<()> {
        let mut wanted = 0;
        if self.wants_to_read(room) {
            wanted |= epoll::IN;
        }
        if !self.queue.is_empty() {
            wanted |= epoll::OUT;
        }
        // A client that has hung up is only kept for its input; while that has no room, not even
        // the hang-up may be reported, again and again.
        let takes_output = self.attach.stdout || self.attach.stderr;
        let wanted = (wanted != 0 || takes_output || !self.attach.stdin).then_some(wanted);
        self.registration.set(epoll, self.stream.as_fd(), wanted)
    }

    pub(super) fn close(&mut self, epoll: &Epoll) {
        // It is registered or not; either way it is not afterwards.
        let _ = self.registration.set(epoll, self.stream.as_fd(), None);
        // Somebody else may hold a duplicate: the end must reach the peer all the same.
        io::shutdown_write(self.stream.as_fd());
    }
}

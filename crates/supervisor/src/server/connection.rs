//! One control connection: frames in, frames out, never blocking.

use crate::hub::ByteQueue;
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::{descriptors, io};
use gamut_abi::control::Request;
use gamut_abi::wire::{self, HEADER_BYTES};
use std::os::fd::{AsFd, OwnedFd};

/// Replies and events that wait for a peer; one that lets more pile up is disconnected.
const BUFFER_BYTES: usize = 1 << 20;

/// What came of reading.
pub(super) enum Input {
    /// A whole request and its descriptors.
    Request(Box<Request>, Vec<OwnedFd>),
    /// Not yet.
    Incomplete,
    /// The peer has closed its side.
    End,
    /// The peer does not speak the protocol; the text says why.
    Broken(String),
}

/// See the module's text.
pub(super) struct Connection {
    socket: OwnedFd,
    registration: Registration,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// The frame's body, as long as the header says, and how much of it is there.
    body: Option<(Vec<u8>, usize)>,
    descriptors: Vec<OwnedFd>,
    queue: ByteQueue,
    /// A reply is owed; nothing further is read until then.
    pub(super) busy: bool,
    /// Only events go out from now on.
    pub(super) watcher: bool,
    overflowed: bool,
}

impl Connection {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// Those of fcntl(2) and epoll_ctl(2).
    pub(super) fn new(socket: OwnedFd, token: u64, epoll: &Epoll) -> std::io::Result<Self> {
        io::set_nonblocking(socket.as_fd())?;
        let mut connection = Self {
            socket,
            registration: Registration::new(token),
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            body: None,
            descriptors: Vec::new(),
            queue: ByteQueue::default(),
            busy: false,
            watcher: false,
            overflowed: false,
        };
        connection.refresh(epoll)?;
        Ok(connection)
    }

    /// Reads on towards one request. Reads never go beyond the end of a frame, so that
    /// descriptors are known to belong to the frame during which they arrive.
    pub(super) fn read(&mut self) -> Input {
        if self.watcher {
            return self.read_from_watcher();
        }
        loop {
            let window = match &mut self.body {
                None => self.header.get_mut(self.header_bytes..),
                Some((body, filled)) => body.get_mut(*filled..),
            };
            let Some(window @ [_, ..]) = window else {
                return Input::Incomplete;
            };
            let before = self.descriptors.len();
            let count =
                match descriptors::receive(self.socket.as_fd(), window, &mut self.descriptors) {
                    Ok(0) => return Input::End,
                    Ok(count) => count,
                    Err(error) if io::would_block(&error) => return Input::Incomplete,
                    Err(error) => return Input::Broken(error.to_string()),
                };
            let at_start = self.body.is_none() && self.header_bytes == 0;
            if self.descriptors.len() > before && !at_start {
                return Input::Broken("descriptors within a frame".to_owned());
            }
            match &mut self.body {
                Some((_, filled)) => *filled += count,
                None => {
                    self.header_bytes += count;
                    if self.header_bytes < HEADER_BYTES {
                        continue;
                    }
                    match wire::body_length(&self.header) {
                        Ok(length) => self.body = Some((vec![0; length], 0)),
                        Err(error) => return Input::Broken(error.to_string()),
                    }
                }
            }
            if let Some((body, _)) = self.body.take_if(|(body, filled)| *filled == body.len()) {
                self.header_bytes = 0;
                let descriptors = std::mem::take(&mut self.descriptors);
                return match wire::decode_body(&body) {
                    Ok(request) => Input::Request(Box::new(request), descriptors),
                    Err(error) => Input::Broken(error.to_string()),
                };
            }
        }
    }

    /// A watcher has nothing to say but that it leaves.
    fn read_from_watcher(&self) -> Input {
        match io::read(self.socket.as_fd(), &mut [0; 64]) {
            Ok(0) => Input::End,
            Ok(_) => Input::Broken("a watcher sent something".to_owned()),
            Err(error) if io::would_block(&error) => Input::Incomplete,
            Err(error) => Input::Broken(error.to_string()),
        }
    }

    /// Sends a frame, or queues what cannot be sent at once.
    pub(super) fn send(&mut self, frame: &[u8]) {
        if self.queue.len() + frame.len() > BUFFER_BYTES {
            self.overflowed = true;
            return;
        }
        self.queue.push(frame);
        self.flush();
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) {
        while !self.queue.is_empty() {
            match descriptors::send(self.socket.as_fd(), self.queue.front(), &[]) {
                Ok(count) if count > 0 => self.queue.consume(count),
                Err(error) if io::would_block(&error) => return,
                _ => {
                    self.queue.clear();
                    self.overflowed = true;
                }
            }
        }
    }

    /// Everything is sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty()
    }

    /// The peer cannot be told everything any more: it must go.
    pub(super) fn is_lost(&self) -> bool {
        self.overflowed
    }

    /// Tells epoll what is awaited now.
    pub(super) fn refresh(&mut self, epoll: &Epoll) -> std::io::Result<()> {
        let mut wanted = if self.busy { 0 } else { epoll::IN };
        if !self.queue.is_empty() {
            wanted |= epoll::OUT;
        }
        self.registration
            .set(epoll, self.socket.as_fd(), Some(wanted))
    }

    pub(super) fn close(&mut self, epoll: &Epoll) {
        // It is registered or not; either way it is not afterwards.
        let _ = self.registration.set(epoll, self.socket.as_fd(), None);
    }
}

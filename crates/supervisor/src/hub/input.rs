//! The stdin of a process.

use super::ByteQueue;
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::io;
use std::os::fd::{AsFd, OwnedFd};

/// Input that waits for the process to read it.
const BUFFER_BYTES: usize = 64 << 10;

/// See the module's text.
pub(super) struct Input {
    end: Option<OwnedFd>,
    terminal: bool,
    registration: Registration,
    queue: ByteQueue,
    closing: bool,
}

impl Input {
    pub(super) fn new(end: Option<OwnedFd>, terminal: bool, token: u64) -> Self {
        Self {
            end,
            terminal,
            registration: Registration::new(token),
            queue: ByteQueue::default(),
            closing: false,
        }
    }

    /// How many bytes may be pushed. Input that nobody will read is welcome and dropped.
    pub(super) fn room(&self) -> usize {
        BUFFER_BYTES.saturating_sub(self.queue.len())
    }

    pub(super) fn push(&mut self, epoll: &Epoll, bytes: &[u8]) {
        if self.end.is_some() && !self.closing {
            self.queue.push(bytes);
            self.flush(epoll);
        }
    }

    /// Ends stdin once everything is written.
    pub(super) fn close_when_flushed(&mut self, epoll: &Epoll) {
        self.closing = true;
        self.flush(epoll);
    }

    pub(super) fn ready(&mut self, epoll: &Epoll, events: u32) {
        if events & (epoll::ERR | epoll::HUP) == 0 {
            self.flush(epoll);
        } else if self.terminal {
            // Nobody has the terminal open: typed input goes nowhere.
            self.queue.clear();
        } else {
            self.close(epoll);
        }
    }

    fn flush(&mut self, epoll: &Epoll) {
        while let (Some(end), false) = (&self.end, self.queue.is_empty()) {
            match io::write(end.as_fd(), self.queue.front()) {
                Ok(count) if count > 0 => self.queue.consume(count),
                Err(error) if io::would_block(&error) => return,
                _ if self.terminal => self.queue.clear(),
                _ => return self.close(epoll),
            }
        }
        if self.closing {
            self.close(epoll);
        }
    }

    /// A pipe is watched even when nothing waits, to notice that the process has closed it. A
    /// terminal is not: without a process it would report that for ever.
    pub(super) fn refresh(&mut self, epoll: &Epoll) -> std::io::Result<()> {
        let Some(end) = &self.end else { return Ok(()) };
        let wanted = match (self.queue.is_empty(), self.terminal) {
            (false, _) => Some(epoll::OUT),
            (true, false) => Some(0),
            (true, true) => None,
        };
        self.registration.set(epoll, end.as_fd(), wanted)
    }

    pub(super) fn close(&mut self, epoll: &Epoll) {
        self.queue.clear();
        if let Some(end) = self.end.take() {
            // It is registered or not; either way it is not afterwards.
            let _ = self.registration.set(epoll, end.as_fd(), None);
        }
    }
}

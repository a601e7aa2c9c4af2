//! One output stream of a process.

use super::Tools;
use crate::log::{LineSplitter, Stream};
use crate::sys::epoll::{self, Epoll, Registration};
use crate::sys::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A terminal that nobody has open at the moment is looked at this often: a process may close
/// its terminal and open it again.
const TERMINAL_RETRY: Duration = Duration::from_millis(200);

/// What reading an output came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something was read.
    More,
    /// Nothing to read now.
    Idle,
    /// It has just ended.
    Closed,
}

/// See the module's text.
pub(super) struct Output {
    pub(super) stream: Stream,
    pub(super) lines: LineSplitter,
    end: Option<OwnedFd>,
    registration: Registration,
    /// A closed terminal is looked at again then.
    retry_at: Option<Instant>,
    /// The process is gone; what others write is awaited until then.
    quiet_at: Option<Instant>,
    /// The process is gone, and may have left this much behind.
    left_behind_bytes: usize,
}

impl Output {
    pub(super) fn new(end: Option<OwnedFd>, stream: Stream, token: u64) -> Self {
        Self {
            stream,
            lines: LineSplitter::default(),
            end,
            registration: Registration::new(token),
            retry_at: None,
            quiet_at: None,
            left_behind_bytes: 0,
        }
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn process_gone(&mut self, quiet_at: Instant) {
        self.quiet_at = Some(quiet_at);
        self.retry_at = None;
        self.left_behind_bytes = self.descriptor().map_or(0, io::pipe_capacity);
    }

    /// Reads one chunk into the scratch buffer; says how it went and how long the chunk is.
    pub(super) fn read(
        &mut self,
        tools: &mut Tools<'_>,
        terminal: bool,
        gone: bool,
    ) -> (Progress, usize) {
        let Some(end) = &self.end else {
            return (Progress::Idle, 0);
        };
        match io::read(end.as_fd(), tools.scratch) {
            Ok(count) if count > 0 => {
                if !gone {
                    return (Progress::More, count);
                }
                // Whatever the process itself wrote has been read when a full pipe's worth has.
                self.left_behind_bytes = self.left_behind_bytes.saturating_sub(count);
                if self.left_behind_bytes == 0 {
                    self.close(tools.epoll);
                    return (Progress::Closed, count);
                }
                (Progress::More, count)
            }
            Err(error) if io::would_block(&error) => (Progress::Idle, 0),
            Err(_) if terminal && !gone => {
                self.retry_at = Some(tools.now + TERMINAL_RETRY);
                (Progress::Idle, 0)
            }
            Ok(_) | Err(_) => {
                self.close(tools.epoll);
                (Progress::Closed, 0)
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.end.as_ref()?;
        [self.retry_at, self.quiet_at].into_iter().flatten().min()
    }

    /// Does what has become due; true if the output has ended thereby.
    pub(super) fn tick(&mut self, epoll: &Epoll, now: Instant) -> bool {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
        }
        let ended = self.end.is_some() && self.quiet_at.is_some_and(|due| due <= now);
        if ended {
            self.close(epoll);
        }
        ended
    }

    pub(super) fn refresh(&mut self, epoll: &Epoll, blocked: bool) -> std::io::Result<()> {
        let Some(end) = &self.end else { return Ok(()) };
        let wanted = (!blocked && self.retry_at.is_none()).then_some(epoll::IN);
        self.registration.set(epoll, end.as_fd(), wanted)
    }

    pub(super) fn close(&mut self, epoll: &Epoll) {
        if let Some(end) = self.end.take() {
            // It is registered or not; either way it is not afterwards.
            let _ = self.registration.set(epoll, end.as_fd(), None);
        }
    }
}

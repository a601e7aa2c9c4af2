//! Standard output and error as targets of a container's streams.

use std::io;
use std::time::Duration;

use crate::error::Error;
use crate::output::print::closed;

/// What a pipe takes at once if it takes anything (PIPE_BUF, pipe(7)).
const PIECE_BYTES: usize = 4096;

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Sink {
    fn descriptor(self) -> i32 {
        match self {
            Self::Stdout => libc::STDOUT_FILENO,
            Self::Stderr => libc::STDERR_FILENO,
        }
    }

    /// Writes all bytes. A reader that is slow (or a terminal stopped by Ctrl-S) is waited for
    /// on another thread, so that signals and input still get through.
    ///
    /// # Errors
    /// [`Error::OutputClosed`] if nobody reads any more.
    pub async fn write(self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if !is_writable(self.descriptor(), Duration::ZERO) {
                let descriptor = self.descriptor();
                let wait = move || while !is_writable(descriptor, Duration::from_secs(3600)) {};
                // The wait cannot panic, and is not cancelled.
                let _ = tokio::task::spawn_blocking(wait).await;
            }
            let piece = bytes.get(..bytes.len().min(PIECE_BYTES)).unwrap_or(bytes);
            // SAFETY: the pointer and length are those of a live slice.
            let written =
                unsafe { libc::write(self.descriptor(), piece.as_ptr().cast(), piece.len()) };
            match usize::try_from(written) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                        _ => return Err(closed(error)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a write would not block; errors count as writable, the write will tell.
fn is_writable(descriptor: i32, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: descriptor,
        events: libc::POLLOUT,
        revents: 0,
    };
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: poll(2) reads and writes the one structure it is given.
    let ready = unsafe { libc::poll(&raw mut poll, 1, limit_ms) };
    ready > 0
}

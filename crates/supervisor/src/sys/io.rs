//! Reading, writing, pipes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Turns a system call's result into a length.
fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// read(2), repeated when interrupted.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length describe a live, writable slice.
        let result =
            length(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// write(2), repeated when interrupted.
pub(crate) fn write(fd: BorrowedFd<'_>, buffer: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length describe a live slice.
        let result =
            length(unsafe { libc::write(fd.as_raw_fd(), buffer.as_ptr().cast(), buffer.len()) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// writev(2) of two pieces, repeated when interrupted.
pub(crate) fn write_two(fd: BorrowedFd<'_>, first: &[u8], second: &[u8]) -> io::Result<usize> {
    let pieces = [
        libc::iovec {
            iov_base: first.as_ptr().cast_mut().cast(),
            iov_len: first.len(),
        },
        libc::iovec {
            iov_base: second.as_ptr().cast_mut().cast(),
            iov_len: second.len(),
        },
    ];
    loop {
        // SAFETY: both pieces describe live slices, which writev only reads.
        let result = length(unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr(), 2) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// True if an operation on a non-blocking descriptor would have blocked.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Sets `O_NONBLOCK` on the open file (shared with every duplicate of the descriptor).
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        if flags < 0 {
            flags
        } else {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
        }
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A pipe, both ends close-on-exec: read end, write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for two descriptors, which on success nobody else owns.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        let [read, write] = ends;
        Ok((OwnedFd::from_raw_fd(read), OwnedFd::from_raw_fd(write)))
    }
}

/// How many bytes a pipe holds; 64 KiB if it will not say (a terminal holds less).
pub(crate) fn pipe_capacity(fd: BorrowedFd<'_>) -> usize {
    // SAFETY: no pointers.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) };
    usize::try_from(result).unwrap_or(64 << 10)
}

/// shutdown(2) of the sending side. Whatever is not a socket is left alone.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) {
    // SAFETY: no pointers. Failure means it is no socket or already shut down.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// True if something can be read, or the other side is gone. Never waits.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(fd, libc::POLLIN, 0)
}

/// True if something can be written without waiting.
/// Waits until there is something to read, an end included; false after `timeout_ms`.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> bool {
    poll(fd, libc::POLLIN, timeout_ms)
}

pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    poll(fd, libc::POLLOUT, 0)
}

fn poll(fd: BorrowedFd<'_>, events: i16, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: one live entry.
    unsafe { libc::poll(&raw mut entry, 1, timeout_ms) > 0 }
}

/// Sets the size of a terminal in characters (tty_ioctl(4)).
pub(crate) fn set_window_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

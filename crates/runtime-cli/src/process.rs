//! A process that is somebody else's child, known by id and start time.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A live process, held by a pidfd: its id cannot come to mean another one.
pub struct Process {
    /// Its id.
    pub pid: u32,
    descriptor: OwnedFd,
}

impl Process {
    /// Finds the process `pid` that was started at `start_time` (proc_pid_stat(5), field 22);
    /// `None` if it has ended.
    ///
    /// # Errors
    /// Those of pidfd_open(2) and of reading `/proc`, but for "no such process".
    pub fn find(pid: u32, start_time: u64) -> io::Result<Option<Self>> {
        // SAFETY: no pointers; a result that is no error is a new descriptor of ours.
        let descriptor = unsafe {
            let raw = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            match i32::try_from(raw) {
                Ok(raw @ 0..) => OwnedFd::from_raw_fd(raw),
                _ => return gone(io::Error::last_os_error()),
            }
        };
        // The descriptor is that of whoever has the id now; so is what /proc says.
        let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            Err(error) => return gone(error),
        };
        let fields: Vec<&str> = text
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').collect())
            .unwrap_or_default();
        let same = fields.get(19).and_then(|field| field.parse().ok()) == Some(start_time);
        let ended = matches!(fields.first(), Some(&("Z" | "X")));
        Ok((same && !ended).then_some(Self { pid, descriptor }))
    }

    /// Its pidfd.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Sends a signal. A process that has ended meanwhile is fine.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2).
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: no info is passed; the descriptor is open.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.descriptor.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result < 0 {
            gone(io::Error::last_os_error()).map(|_: Option<()>| ())
        } else {
            Ok(())
        }
    }

    /// Waits until it has ended, at most so long; false if it has not.
    pub fn wait(&self, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd {
            fd: self.descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd that lives over the call.
        unsafe { libc::poll(&raw mut poll, 1, timeout_ms) > 0 }
    }
}

fn gone<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.raw_os_error() {
        Some(libc::ESRCH | libc::ENOENT) => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_start_time_is_another_process() {
        let pid = std::process::id();
        let text = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, rest) = text.rsplit_once(") ").unwrap();
        let start_time: u64 = rest.split(' ').nth(19).unwrap().parse().unwrap();
        assert!(Process::find(pid, start_time).unwrap().is_some());
        assert!(Process::find(pid, start_time + 1).unwrap().is_none());
    }
}

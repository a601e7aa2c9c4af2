//! Looking at a process by its id without ever looking at another that got the same id later.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// A process, held by a pidfd.
pub(super) struct PinnedProcess {
    pid: u32,
    pidfd: OwnedFd,
}

impl PinnedProcess {
    /// Holds the process with this id, whichever it is.
    ///
    /// # Errors
    /// Those of pidfd_open(2).
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a new descriptor.
        let pidfd = unsafe {
            let raw = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            match i32::try_from(raw) {
                Ok(raw) if raw >= 0 => OwnedFd::from_raw_fd(raw),
                _ => return Err(io::Error::last_os_error()),
            }
        };
        Ok(Self { pid, pidfd })
    }

    /// Holds the process with this id if it is a child of `parent`: then it is a process of the
    /// sandbox whose supervisor that is, even if the first one has gone meanwhile.
    ///
    /// # Errors
    /// Those of pidfd_open(2), and `NotFound` if it is another's child.
    pub(super) fn open_child(pid: u32, parent: u32) -> io::Result<Self> {
        let process = Self::open(pid)?;
        let found = parent_of(pid)?;
        if found != parent || !process.is_alive() {
            return Err(io::Error::new(
                ErrorKind::NotFound,
                format!("process {pid} is gone"),
            ));
        }
        Ok(process)
    }

    /// It has not been reaped yet, so that its id is still its own.
    fn is_alive(&self) -> bool {
        // SAFETY: no pointers but the null signal information that pidfd_send_signal(2) allows.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                0,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        result == 0
    }

    /// Kills it. That it is gone is no error.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2).
    pub(super) fn kill(&self) -> io::Result<()> {
        // SAFETY: as above.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        let error = io::Error::last_os_error();
        if result == 0 || error.raw_os_error() == Some(libc::ESRCH) {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Opens a file of its `/proc` directory, as `root` or `ns/net`.
    ///
    /// # Errors
    /// Those of open(2), and `NotFound` if the process is gone.
    pub(super) fn open_file(&self, name: &str, flags: i32) -> io::Result<OwnedFd> {
        let path = CString::new(format!("/proc/{}/{name}", self.pid))?;
        // SAFETY: `path` is a C string; a non-negative result is a new descriptor.
        let file = unsafe {
            let raw = libc::open(path.as_ptr(), flags | libc::O_CLOEXEC);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        // If it still has its id now, it had it when the path was looked up.
        if self.is_alive() {
            Ok(file)
        } else {
            Err(io::Error::new(
                ErrorKind::NotFound,
                format!("process {} is gone", self.pid),
            ))
        }
    }
}

/// Parent of a process (proc_pid_stat(5), field 4).
fn parent_of(pid: u32) -> io::Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    fields
        .split_whitespace()
        .nth(1)
        .and_then(|parent| parent.parse().ok())
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat}")))
}

/// The user namespace that a network namespace was made in (ioctl_ns(2)).
///
/// # Errors
/// Those of ioctl(2).
pub(super) fn owner(namespace: &OwnedFd) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the request takes no argument; a non-negative result is a new descriptor.
    unsafe {
        let raw = libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// Whether a user namespace is this process's own.
///
/// # Errors
/// Those of stat(2).
pub(super) fn is_own_user(namespace: &OwnedFd) -> io::Result<bool> {
    let theirs = fs::File::from(namespace.try_clone()?).metadata()?;
    let ours = fs::metadata("/proc/self/ns/user")?;
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

/// Whether a network namespace is this process's own.
///
/// # Errors
/// Those of stat(2).
pub(super) fn is_own_network(namespace: &OwnedFd) -> io::Result<bool> {
    let theirs = fs::File::from(namespace.try_clone()?).metadata()?;
    let ours = fs::metadata("/proc/self/ns/net")?;
    Ok((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_children_of_the_right_parent_are_held() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let process = PinnedProcess::open_child(child.id(), std::process::id()).unwrap();
        assert!(PinnedProcess::open_child(child.id(), 1).is_err());
        assert!(PinnedProcess::open_child(1, std::process::id()).is_err());
        let network = process.open_file("ns/net", libc::O_RDONLY).unwrap();
        assert!(is_own_network(&network).unwrap());
        process.kill().unwrap();
        child.wait().unwrap();
        assert!(process.open_file("root", libc::O_PATH).is_err());
        process.kill().unwrap();
    }
}

//! A network namespace that only descriptors and processes keep alive.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use crate::error::{Error, Result};

/// A network namespace. It is mounted nowhere: it lives as long as a descriptor or a process
/// holds it, so a crash leaks none. The descriptor is closed on exec.
#[derive(Debug)]
pub struct NetworkNamespace {
    fd: OwnedFd,
}

impl NetworkNamespace {
    /// The calling thread's namespace.
    ///
    /// # Errors
    /// The kernel's, if /proc is not mounted.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace of process `pid`, for a workload that joins another one's network. The
    /// caller makes sure that the process is the one it means (a pidfd that is still open).
    ///
    /// # Errors
    /// `NotFound` if there is no such process; the kernel's otherwise.
    pub fn of_process(pid: libc::pid_t) -> Result<Self> {
        Self::open(&format!("/proc/{pid}/ns/net")).map_err(|error| match error.errno() {
            Some(libc::ENOENT | libc::ESRCH) => Error::NotFound(format!(
                "process {pid} has no network namespace: it has ended"
            )),
            _ => error,
        })
    }

    fn open(path: &str) -> Result<Self> {
        let file = File::open(path)
            .map_err(|source| Error::system(format!("open network namespace {path}"), source))?;
        Ok(Self { fd: file.into() })
    }

    /// A new namespace in a new user namespace, whose ids from 0 on are those from `first` on
    /// here: who is root there has all rights over the network, and none here.
    ///
    /// # Errors
    /// The kernel's; `Forbidden` without CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID.
    pub(crate) fn owned_by(first: u32, count: u32) -> Result<Self> {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()
            .map_err(|source| Error::system("make a pair of sockets", source))?;
        let (end, other_end) = (theirs.as_raw_fd(), ours.as_raw_fd());
        // Without a signal at its end, it is nobody's business but ours.
        let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
        // SAFETY: as fork(2). The child, whose other threads do not exist, makes two system calls
        // and ends; it waits for the end of the stream, once it has closed its copy of our side.
        let pid = unsafe {
            let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
            if pid == 0 {
                let mut byte = 0_u8;
                libc::close(other_end);
                libc::read(end, (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
            pid
        };
        if pid < 0 {
            return Err(Error::last_os("make a network namespace for other ids"));
        }
        drop(theirs);
        let map = format!("0 {first} {count}\n");
        let write = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::write(&path, &map)
                .map_err(|source| Error::system(format!("write {map:?} to {path}"), source))
        };
        let made = write("uid_map")
            .and_then(|()| write("gid_map"))
            .and_then(|()| Self::open(&format!("/proc/{pid}/ns/net")));
        let _ = std::io::Write::write_all(&mut ours, b"x");
        let pid = libc::pid_t::try_from(pid).unwrap_or(0);
        // SAFETY: no status is asked for; the process is our child, and ends now.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        made
    }

    /// Runs `work` on a thread inside the namespace and waits for it; the calling thread stays
    /// where it is.
    ///
    /// # Errors
    /// The kernel's, and those of `work`.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("network-inside".to_owned())
                .spawn_scoped(scope, || {
                    self.enter()?;
                    work()
                })
                .map_err(|source| Error::system("start a thread for a namespace", source))?;
            thread.join().unwrap_or_else(|_| {
                Err(Error::system(
                    "work inside a network namespace",
                    std::io::Error::other("the thread panicked"),
                ))
            })
        })
    }

    /// Whether two descriptors are of the same namespace.
    ///
    /// # Errors
    /// fstat(2)'s.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        let identity = |fd: &OwnedFd| {
            let file = fd.try_clone().map(File::from);
            file.and_then(|file| file.metadata())
                .map(|facts| (facts.dev(), facts.ino()))
                .map_err(|source| Error::system("look at a network namespace", source))
        };
        Ok(identity(&self.fd)? == identity(&other.fd)?)
    }

    /// Moves the calling thread, and no other, into the namespace.
    pub(crate) fn enter(&self) -> Result<()> {
        // SAFETY: setns(2) reads no memory of ours; the descriptor is open.
        if unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
            Ok(())
        } else {
            Err(Error::last_os("enter a network namespace"))
        }
    }

    /// Moves the calling thread, and no other, into a new namespace and returns that.
    pub(crate) fn unshare() -> Result<Self> {
        // SAFETY: unshare(2) takes no pointers; it changes the calling thread's namespace only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
            Self::current()
        } else {
            Err(Error::last_os("make a network namespace"))
        }
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<NetworkNamespace> for OwnedFd {
    fn from(namespace: NetworkNamespace) -> Self {
        namespace.fd
    }
}

impl From<OwnedFd> for NetworkNamespace {
    /// Takes a descriptor of a network namespace, such as one received over a socket.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

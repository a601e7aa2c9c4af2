//! Making the namespaces, by a process that does nothing else.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::error::{Error, Result};
use crate::mapping::Mappings;
use crate::namespaces::{self, Namespaces};
use crate::sys::check;

/// Makes user, mount and network namespace with these ids. The caller has one thread.
///
/// # Errors
/// The kernel's, with what to change where it is known, and those of newuidmap(1).
pub(super) fn make(mappings: &Mappings) -> Result<Namespaces> {
    let (mut here, there) =
        UnixStream::pair().map_err(|source| Error::system("make a pair of sockets", source))?;
    // SAFETY: fork(2) in a process with one thread; the child goes on in `inside` and ends there.
    let pid = check(unsafe { libc::fork() }).map_err(|source| Error::system("fork", source))?;
    if pid == 0 {
        drop(here);
        inside(there);
    }
    drop(there);
    let pid = u32::try_from(pid).unwrap_or(0);
    let made = conduct(&mut here, pid, mappings);
    drop(here);
    let mut status = 0;
    // SAFETY: `status` is writable; the process is our child and ends now that its socket is shut.
    unsafe { libc::waitpid(i32::try_from(pid).unwrap_or(0), &raw mut status, 0) };
    made
}

fn conduct(stream: &mut UnixStream, pid: u32, mappings: &Mappings) -> Result<Namespaces> {
    expect(stream, "make a user namespace")?;
    mappings.write(pid)?;
    let broken = |source| Error::system("speak with the process that makes the namespaces", source);
    stream.write_all(b"m").map_err(broken)?;
    expect(stream, "make a mount and a network namespace")?;
    Namespaces::of(pid)
}

/// Waits for the word that a step is done.
fn expect(stream: &mut UnixStream, operation: &str) -> Result<()> {
    let mut word = [0; 4];
    stream
        .read_exact(&mut word)
        .map_err(|source| Error::system(operation, source))?;
    match i32::from_ne_bytes(word) {
        0 => Ok(()),
        errno => {
            let source = std::io::Error::from_raw_os_error(errno);
            let hint = match errno {
                libc::EPERM | libc::EACCES => {
                    " (the machine forbids it to ordinary users: sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for gamut)"
                }
                libc::ENOSPC | libc::EUSERS => {
                    " (sysctl user.max_user_namespaces, user.max_net_namespaces and user.max_mnt_namespaces have to be above 0)"
                }
                _ => "",
            };
            Err(Error::system(format!("{operation}{hint}"), source))
        }
    }
}

fn inside(mut stream: UnixStream) -> ! {
    let mut tell = |result: std::io::Result<()>| {
        let errno = result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
        let told = stream.write_all(&errno.to_ne_bytes());
        if errno != 0 || told.is_err() {
            end();
        }
        // The go, or the end of the stream.
        let mut word = [0; 1];
        if !matches!(stream.read(&mut word), Ok(1)) {
            end();
        }
    };
    tell(namespaces::make_user());
    tell(namespaces::make_others());
    end();
}

fn end() -> ! {
    // SAFETY: _exit(2) takes no pointers; nothing of the parent's is flushed or run.
    unsafe { libc::_exit(0) }
}

/// A descriptor by which the end of a process can be waited for.
pub(super) fn pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open(2) takes no pointers; a non-negative result is a new descriptor.
    unsafe {
        let raw = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let raw = i32::try_from(raw).ok().filter(|raw| *raw >= 0)?;
        Some(OwnedFd::from_raw_fd(raw))
    }
}

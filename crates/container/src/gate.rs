//! A gate: a created container waits at it for a start that comes from another process.
//!
//! It is a listening unix socket in a directory that only the owner of the container may enter.
//! Whoever starts the container connects, says go, and hears over the same connection why the
//! program could not be executed; a connection that closes without a word means that it was.
//! Connecting and leaving again only shows that somebody still waits.

use crate::channel::Channel;
use crate::conversation::Conversation;
use crate::error::{Context, Error};
use crate::sys::{self, Errno, SysResult};
use gamut_abi::control::FailureKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The waiting side, made before the container and handed down to its first process.
#[derive(Debug)]
pub struct Gate(OwnedFd);

impl Gate {
    /// Makes the socket `name` in `directory`, whatever the length of its path.
    ///
    /// # Errors
    /// Those of open(2), socket(2), bind(2) and listen(2).
    pub fn make(directory: &str, name: &str) -> Result<Self, Error> {
        let made = || -> SysResult<OwnedFd> {
            let (_directory, address) = address(directory, name)?;
            let socket = socket()?;
            // SAFETY: the address is valid for its size.
            let bound = unsafe {
                libc::bind(
                    socket.as_raw_fd(),
                    (&raw const address).cast(),
                    address_bytes(),
                )
            };
            // SAFETY: plain call.
            if bound < 0 || unsafe { libc::listen(socket.as_raw_fd(), 8) } < 0 {
                return Err(Errno::last());
            }
            Ok(socket)
        };
        made().map(Self).doing("make the gate in", directory)
    }

    /// Whether a container waits at the gate.
    ///
    /// # Errors
    /// Those of connect(2) but for "nobody listens".
    pub fn is_waited_at(directory: &str, name: &str) -> Result<bool, Error> {
        match connect(directory, name) {
            Ok(_) => Ok(true),
            Err(Errno(libc::ECONNREFUSED | libc::ENOENT)) => Ok(false),
            Err(errno) => Err(Error::system(
                &["look at the gate in ", directory].concat(),
                errno,
            )),
        }
    }

    /// Lets the container that waits at a gate become its program, and waits until it has.
    ///
    /// # Errors
    /// `State` if nobody waits there; as [`crate::Created::start`] if the program cannot be
    /// executed.
    pub fn open(directory: &str, name: &str) -> Result<(), Error> {
        let connection = match connect(directory, name) {
            Err(Errno(libc::ECONNREFUSED | libc::ENOENT)) => {
                return Err(Error::invalid(
                    "the container does not wait for a start: it has been started or has ended",
                )
                .of_kind(FailureKind::State));
            }
            other => other.doing("open the gate in", directory)?,
        };
        let mut conversation = Conversation::new(Channel::over(connection));
        // If the process is gone, the conversation ends at once.
        let _ = conversation.channel.go();
        conversation.until_closed()
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A container that waits can be ended like any other: the first process of a PID namespace gets
/// only the signals that it has handlers for. The program gets the default actions back.
pub(crate) fn heed_signals() {
    extern "C" fn end(signal: i32) {
        // SAFETY: async-signal-safe.
        unsafe { libc::_exit(128 + signal) };
    }
    let handler = end as extern "C" fn(i32) as libc::sighandler_t;
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        // SAFETY: a handler that only ends the process.
        unsafe { libc::signal(signal, handler) };
    }
    // SAFETY: the set is made valid; nothing is written back. Whatever the caller had blocked.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Waits until somebody connects and says go. Nothing can go wrong that another connection could
/// not make good, so only a gate that is beyond use ends the process.
pub(crate) fn wait(gate: BorrowedFd<'_>) -> Channel {
    loop {
        // SAFETY: the address of the other side is not asked for; a result that is no error is a
        // new descriptor of ours.
        let accepted = unsafe {
            let raw = libc::accept4(
                gate.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            );
            if raw < 0 {
                Err(Errno::last())
            } else {
                Ok(Channel::over(OwnedFd::from_raw_fd(raw)))
            }
        };
        match accepted {
            Ok(channel) if channel.wait() => return channel,
            Ok(_) | Err(Errno(libc::EINTR | libc::ECONNABORTED)) => {}
            Err(_) => sys::exit(1),
        }
    }
}

fn connect(directory: &str, name: &str) -> SysResult<OwnedFd> {
    let (_directory, address) = address(directory, name)?;
    let socket = socket()?;
    // SAFETY: the address is valid for its size.
    let connected = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            address_bytes(),
        )
    };
    if connected < 0 {
        return Err(Errno::last());
    }
    Ok(socket)
}

fn socket() -> SysResult<OwnedFd> {
    // SAFETY: a result that is no error is a new descriptor of ours.
    unsafe {
        let raw = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(Errno::last());
        }
        Ok(OwnedFd::from_raw_fd(raw))
    }
}

/// The socket's address by way of the directory's descriptor, which has to stay open: addresses
/// are at most 107 bytes long (unix(7)), paths are not.
fn address(directory: &str, name: &str) -> SysResult<(OwnedFd, libc::sockaddr_un)> {
    let path = sys::c_string(directory)?;
    let descriptor = sys::open(sys::cwd(), &path, libc::O_PATH | libc::O_DIRECTORY)?;
    let number = descriptor.as_raw_fd().to_string();
    let path = ["/proc/self/fd/", &number, "/", name].concat();
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    if path.len() >= address.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok((descriptor, address))
}

fn address_bytes() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Message;
    use std::path::PathBuf;

    /// A directory whose path is far longer than a socket's address may be.
    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir()
            .join(format!("gamut-gate-{}-{name}", std::process::id()))
            .join("long".repeat(40));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn remove(directory: &std::path::Path) {
        std::fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_gate_is_looked_at_often_and_opened_once() {
        let directory = directory("once");
        let text = directory.to_str().unwrap();
        assert!(!Gate::is_waited_at(text, "gate").unwrap());
        let gate = Gate::make(text, "gate").unwrap();
        let waiting = std::thread::spawn(move || drop(wait(gate.descriptor())));
        assert!(Gate::is_waited_at(text, "gate").unwrap());
        assert!(Gate::is_waited_at(text, "gate").unwrap());
        Gate::open(text, "gate").unwrap();
        waiting.join().unwrap();
        assert!(!Gate::is_waited_at(text, "gate").unwrap());
        assert_eq!(
            Gate::open(text, "gate").unwrap_err().kind,
            FailureKind::State
        );
        remove(&directory);
    }

    #[test]
    fn why_the_program_did_not_start_comes_through_the_gate() {
        let directory = directory("failure");
        let text = directory.to_str().unwrap();
        let gate = Gate::make(text, "gate").unwrap();
        let waiting = std::thread::spawn(move || {
            let error = Error::invalid("exec: no").of_kind(FailureKind::ExecutableNotFound);
            wait(gate.descriptor()).say(&Message::Failed(error));
        });
        let error = Gate::open(text, "gate").unwrap_err();
        assert_eq!(error.kind, FailureKind::ExecutableNotFound);
        assert_eq!(error.message, "exec: no");
        waiting.join().unwrap();
        remove(&directory);
    }
}

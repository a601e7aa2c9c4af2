//! A process in the foreground: signals go to it, its terminal to the caller's.

use super::terminal::Relay;
use crate::sys::process;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Signals that say something about this process itself and are not forwarded.
const OWN_SIGNALS: [i32; 7] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// Signals that are blocked, to be fetched by [`wait`].
pub(super) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them. A program gets an empty mask again before its execve.
    pub(super) fn block() -> Self {
        // SAFETY: the set is valid once filled; nothing is written back by sigprocmask.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            for signal in OWN_SIGNALS {
                libc::sigdelset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    /// The signals as a descriptor (signalfd(2)).
    fn descriptor(&self) -> io::Result<OwnedFd> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the set is live; a non-negative result is a new descriptor.
        unsafe {
            let raw = libc::signalfd(-1, &raw const self.0, flags);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(raw))
        }
    }
}

/// Makes this process the parent of what its descendants leave behind (prctl(2)).
pub(super) fn adopt_orphans() {
    // SAFETY: plain call; without it orphans go to init, as ever.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Forwards signals until the process ends; answers its exit code, 128 + signal if one killed it.
pub(super) fn wait(pid: u32, terminal: Option<OwnedFd>, signals: &Signals) -> io::Result<u8> {
    match terminal {
        None => wait_alone(pid, signals),
        Some(master) => wait_with_terminal(pid, Relay::new(master)?, signals),
    }
}

fn wait_alone(pid: u32, signals: &Signals) -> io::Result<u8> {
    loop {
        // SAFETY: the set is valid; no information about the signal is asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const signals.0, std::ptr::null_mut()) };
        if signal < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        } else if let Some(code) = handle(pid, signal) {
            return Ok(code);
        }
    }
}

fn wait_with_terminal(pid: u32, mut relay: Relay, signals: &Signals) -> io::Result<u8> {
    let descriptor = signals.descriptor()?;
    loop {
        relay.copy_until_readable(descriptor.as_raw_fd())?;
        while let Some(signal) = next_signal(&descriptor) {
            if signal == libc::SIGWINCH {
                relay.resize();
            } else if let Some(code) = handle(pid, signal) {
                relay.drain();
                return Ok(code);
            }
        }
    }
}

fn next_signal(descriptor: &OwnedFd) -> Option<i32> {
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is writable for its size.
    let got = unsafe { libc::read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    if usize::try_from(got).ok() != Some(size) {
        return None;
    }
    // SAFETY: zeroed, then filled whole by the kernel.
    let info = unsafe { info.assume_init() };
    i32::try_from(info.ssi_signo).ok()
}

/// Forwards a signal, or reaps if it says that a child has ended; the exit code if that was the
/// process waited for.
fn handle(pid: u32, signal: i32) -> Option<u8> {
    if signal != libc::SIGCHLD {
        // It has not been waited for, so the id is its own; it may have just ended.
        let _ = process::kill(pid, signal);
        return None;
    }
    while let Some(reaped) = process::reap() {
        if reaped.pid == pid {
            return Some(u8::try_from(reaped.code & 0xff).unwrap_or(u8::MAX));
        }
    }
    None
}

//! Children: reaping, signals, and what a supervisor makes of itself.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How a child ended, as waitid(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) pid: u32,
    /// Exit code; 128 + signal for a killed process.
    pub(crate) code: i32,
    /// Signal that killed it, 0 if none.
    pub(crate) signal: i32,
}

/// Reaps one child that has ended, whichever; `None` if there is none. Never waits.
pub(crate) fn reap() -> Option<Reaped> {
    // SAFETY: an all-zero siginfo_t is valid, and outlives the call that fills it.
    let (result, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG);
        (result, info)
    };
    // SAFETY: waitid fills the SIGCHLD fields, or leaves the pid zero if no child has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let pid = u32::try_from(pid).unwrap_or(0);
    if result < 0 || pid == 0 {
        return None;
    }
    Some(if info.si_code == libc::CLD_EXITED {
        Reaped {
            pid,
            code: status,
            signal: 0,
        }
    } else {
        Reaped {
            pid,
            code: status.saturating_add(128),
            signal: status,
        }
    })
}

/// Sends a signal (0 only checks) to the process behind a pidfd (pidfd_send_signal(2)).
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no info is passed; the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends a signal to a process by id (kill(2)); one that is gone already is no error.
pub(crate) fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let Ok(pid @ 1..) = i32::try_from(pid) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    // SAFETY: no pointers; the id is positive, so exactly one process is meant.
    if unsafe { libc::kill(pid, signal) } < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ESRCH) {
            return Err(error);
        }
    }
    Ok(())
}

/// Makes ended children wait for their parent, whatever was inherited (`SIG_IGN` would lose them).
pub(crate) fn reset_child_signal() {
    // SAFETY: plain call; the default action needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

extern "C" fn nothing(_signal: i32) {}

/// Makes this process independent of whoever started it: session and process group of its own,
/// cwd `/`, umask 022, no inherited descriptor but 0-2 and `keep`, stdin and stdout `/dev/null`,
/// reaper of orphans, deaf to the signals of terminals and service managers.
///
/// Signals are caught by an empty handler instead of being ignored, because execve(2) resets a
/// handler: no workload inherits an ignored signal.
pub(crate) fn detach(keep: u32) {
    // SAFETY: plain system calls on constants; the sigaction structs are live and the handler is
    // async-signal-safe because it does nothing. Descriptors above `keep` belong to nobody: this
    // runs first in main, before anything is opened. Failures leave the process as it was, which
    // is the best that can be done.
    unsafe {
        libc::syscall(libc::SYS_close_range, keep.saturating_add(1), u32::MAX, 0);
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        libc::umask(0o022);
        libc::prctl(libc::PR_SET_NAME, c"gamut-superv".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null >= 0 {
            libc::dup2(null, 0);
            libc::dup2(null, 1);
            if libc::fcntl(2, libc::F_GETFD) < 0 {
                libc::dup2(null, 2);
            }
            if null > 2 {
                libc::close(null);
            }
        }
        // A signal that was ignored by whoever came before would stay so for ever. The C library
        // hides two signals of its own, hence the system call; all zeros is SIG_DFL without flags.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                0_usize,
                8_usize,
            );
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        for signal in [
            libc::SIGPIPE,
            libc::SIGHUP,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGTSTP,
            libc::SIGXFSZ,
        ] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        // The launching thread blocks every signal around its clone.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// SIGCHLD as a descriptor (signalfd(2)).
pub(crate) struct ChildSignal {
    descriptor: OwnedFd,
}

impl ChildSignal {
    /// Blocks SIGCHLD and opens the descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the set is live; a non-negative result is a new descriptor.
        let descriptor = unsafe {
            let set = child_set();
            let raw = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        mask_children(libc::SIG_BLOCK);
        Ok(Self { descriptor })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.descriptor)
    }

    /// Forgets what was signalled so far.
    pub(crate) fn clear(&self) {
        let mut sink = [0; 512];
        while super::io::read(self.descriptor(), &mut sink).is_ok_and(|count| count > 0) {}
    }

    /// Runs `make` with SIGCHLD unblocked, so that what it forks does not inherit a blocked
    /// signal. Children that end meanwhile must be looked for afterwards.
    pub(crate) fn unblocked<T>(&self, make: impl FnOnce() -> T) -> T {
        mask_children(libc::SIG_UNBLOCK);
        let result = make();
        mask_children(libc::SIG_BLOCK);
        result
    }
}

fn child_set() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid, outlives the calls and SIGCHLD is a signal.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

fn mask_children(how: i32) {
    let set = child_set();
    // SAFETY: the set is live; nothing is written back.
    unsafe { libc::sigprocmask(how, &raw const set, std::ptr::null_mut()) };
}

/// Sets `FD_CLOEXEC`.
pub(crate) fn set_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

//! A process that does nothing but be there.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A child that sleeps until it is dropped. It ends with its parent.
#[derive(Debug)]
pub(super) struct Placeholder {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl Placeholder {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the child makes only system calls and does not return, so that it does not
        // matter which locks other threads held.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pid == 0 {
            sleep_for_ever();
        }
        // SAFETY: plain call; the child has not been waited for, so its id is its own. A result
        // that is no error is a new descriptor of ours.
        let pidfd = unsafe {
            let raw = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            match i32::try_from(raw) {
                Ok(raw @ 0..) => OwnedFd::from_raw_fd(raw),
                _ => {
                    let error = io::Error::last_os_error();
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, std::ptr::null_mut(), 0);
                    return Err(error);
                }
            }
        };
        Ok(Self { pid, pidfd })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }
}

/// The child: keeps nothing of its parent open and is killed with it.
fn sleep_for_ever() -> ! {
    // SAFETY: system calls with plain arguments; action and mask are valid for those that read
    // them.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        // The parent's handlers and mask are none of its: systemd ends it by SIGTERM. All zeros
        // is the default action in the kernel's sigaction.
        let default = [0_u64; 4];
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8,
            );
        }
        let none = [0_u64];
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            none.as_ptr(),
            std::ptr::null_mut::<u64>(),
            8,
        );
        loop {
            libc::pause();
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // SAFETY: plain calls. The descriptor means our child even if somebody else in this
        // process has waited for it by now.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<u8>(),
                0,
            );
            let mut information: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(
                libc::P_PIDFD,
                self.pidfd.as_raw_fd().unsigned_abs(),
                &raw mut information,
                libc::WEXITED,
            );
        }
    }
}

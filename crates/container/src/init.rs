//! A minimal init: PID 1 that starts the program, forwards signals to it and reaps what is
//! orphaned (as tini and catatonit do).

use crate::channel::{Channel, Message};
use crate::error::{Context, Error};
use crate::execute::{self, Program};
use crate::sys::{self, Errno, Side};

/// Signals that are about this process itself and are not forwarded.
const OWN_SIGNALS: [i32; 9] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Starts the program as a child and stays until it ends. Answers its exit code, 128 + signal if
/// a signal killed it.
pub(crate) fn run(program: &Program, channel: Channel, terminal: bool) -> Result<i32, Error> {
    let forwarded = forwarded_signals();
    // Elsewhere than as PID 1 (a shared PID namespace), orphans would go past us.
    // SAFETY: plain call.
    if unsafe { libc::getpid() } != 1 {
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).doing("become", "the reaper of orphans")?;
    }
    // SAFETY: the set is valid; blocked signals are fetched by sigwaitinfo below.
    unsafe {
        libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const forwarded,
            std::ptr::null_mut(),
        );
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
    // SAFETY: the stage has one thread; the child ends by execve or _exit.
    let side = unsafe { sys::clone_process(0, libc::SIGCHLD, None) };
    match side.doing("start", "the program")? {
        Side::Child => {
            own_process_group(terminal);
            channel.say(&Message::Failed(execute::execute(program, &channel)));
            sys::exit(127);
        }
        Side::Parent { pid, pidfd } => {
            drop(pidfd);
            // Only the program holds it now: its execve tells the caller.
            drop(channel);
            let _ = sys::close_from(3, 0);
            execute::drop_privileges(program)?;
            Ok(watch(sys::pid_t(pid), &forwarded))
        }
    }
}

fn forwarded_signals() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset makes the set valid.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for signal in OWN_SIGNALS {
            libc::sigdelset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// The program gets a process group of its own, in the foreground of the terminal.
fn own_process_group(terminal: bool) {
    // SAFETY: plain calls; SIGTTOU is ignored here, so tcsetpgrp does not stop us.
    unsafe {
        libc::setpgid(0, 0);
        if terminal {
            libc::tcsetpgrp(0, libc::getpid());
        }
    }
}

fn watch(program: libc::pid_t, forwarded: &libc::sigset_t) -> i32 {
    loop {
        // SAFETY: the set is valid; no information about the signal is asked for.
        let signal = unsafe { libc::sigwaitinfo(forwarded, std::ptr::null_mut()) };
        if signal == libc::SIGCHLD {
            if let Some(code) = reap_all(program) {
                return code;
            }
        } else if signal > 0 {
            // SAFETY: plain call; the program has not been waited for, so its id is its own.
            unsafe { libc::kill(program, signal) };
        }
    }
}

/// Reaps every child that has ended; the program's exit code if it is among them.
fn reap_all(program: libc::pid_t) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: status is writable.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
        if pid == program {
            code = Some(if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            });
        } else if pid == 0 || (pid < 0 && Errno::last() != Errno(libc::EINTR)) {
            return code;
        }
    }
}

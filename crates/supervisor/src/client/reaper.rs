//! Reaping supervisors that have ended, and what a killed one has left behind.
//!
//! A supervisor is nobody's child on purpose: it outlives the daemon that started it. While that
//! daemon lives it adopts its orphans (prctl(2), `PR_SET_CHILD_SUBREAPER`) and reaps them, so that
//! none stays a zombie where process 1 is slow to reap, or is the daemon itself. The processes of a
//! supervisor that was killed become its orphans, too.

use std::fs;
use std::io;
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

/// First and longest pause while a child of somebody else's has ended and is not reaped yet.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

static START: Once = Once::new();
static LAUNCHES: Mutex<u64> = Mutex::new(0);
static LAUNCHED: Condvar = Condvar::new();

/// Makes this process adopt and reap the supervisors that it launches, once and for all. Other
/// children are left to whoever waits for them.
///
/// # Errors
/// If the kernel refuses, or no thread can be started.
pub fn adopt_supervisors() -> io::Result<()> {
    let mut outcome = Ok(());
    START.call_once(|| {
        // SAFETY: this option of prctl(2) takes a number.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
            outcome = Err(io::Error::last_os_error());
            return;
        }
        outcome = std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(reap_for_ever)
            .map(drop);
    });
    outcome
}

/// Tells the reaper that there is a supervisor more.
pub(super) fn launched() {
    *LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    LAUNCHED.notify_one();
}

fn reap_for_ever() {
    let mut seen = 0;
    loop {
        {
            let launches = LAUNCHES.lock().unwrap_or_else(PoisonError::into_inner);
            let launches = LAUNCHED
                .wait_while(launches, |launches| *launches == seen)
                .unwrap_or_else(PoisonError::into_inner);
            seen = *launches;
        }
        // Without children there is nothing to do until the next launch.
        let mut pause = PAUSES.0;
        while let Ok(pid) = next_ended() {
            if is_adopted(pid) {
                reap(pid);
                pause = PAUSES.0;
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

/// Waits for a child to end, and leaves it.
fn next_ended() -> io::Result<libc::pid_t> {
    loop {
        // SAFETY: `siginfo_t` is plain data, for which zeros are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is valid for writing.
        let result =
            unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            // SAFETY: waitid(2) has filled in the fields of an ended child.
            return Ok(unsafe { info.si_pid() });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a child was made by a supervisor, or is one. Each supervisor leads a session, which what
/// it starts never shares with this process; what this process starts itself does, and somebody
/// waits for it.
fn is_adopted(pid: libc::pid_t) -> bool {
    let own = session_of("self");
    let theirs = session_of(&pid.to_string());
    own.is_some() && theirs.is_some() && own != theirs
}

/// Session of a process, ended ones included (proc_pid_stat(5), field 6; getsid(2) does not tell
/// of those).
fn session_of(process: &str) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(3)?.parse().ok()
}

fn reap(pid: libc::pid_t) {
    // SAFETY: without a place for the status, waitpid(2) writes nothing.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn only_those_of_other_sessions_are_adopted_dead_or_alive() {
        let mut own = Command::new("sleep").arg("100").spawn().unwrap();
        let mut command = Command::new("sleep");
        command.arg("100");
        // SAFETY: setsid(2) is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            });
        }
        let mut other = command.spawn().unwrap();
        let pids = [&own, &other].map(|child| i32::try_from(child.id()).unwrap());
        assert_eq!(pids.map(is_adopted), [false, true]);
        own.kill().unwrap();
        other.kill().unwrap();
        // Not reaped yet.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(pids.map(is_adopted), [false, true]);
        own.wait().unwrap();
        other.wait().unwrap();
    }
}

//! Signals that ask the guest to stop.

use std::io;

use crate::error::{Error, Result};

/// SIGTERM and SIGINT, blocked in this thread and those it starts.
pub struct StopSignals(libc::sigset_t);

/// Blocks them, so that they can be waited for.
///
/// # Errors
/// What the system answered.
pub fn block() -> Result<StopSignals> {
    // SAFETY: the set is initialized by sigemptyset before it is used.
    let (set, code) = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        let code = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        (set, code)
    };
    if code != 0 {
        let error = io::Error::from_raw_os_error(code);
        return Err(Error::system(
            "block the signals that stop the guest",
            error,
        ));
    }
    Ok(StopSignals(set))
}

impl StopSignals {
    /// Waits for one of them.
    pub fn wait(&self) {
        // SAFETY: the set is valid; no details are asked for. An interruption counts as well: it
        // cannot happen without somebody who wants something.
        while unsafe { libc::sigwaitinfo(&raw const self.0, std::ptr::null_mut()) } < 0 {}
    }
}

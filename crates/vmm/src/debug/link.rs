//! Who debugs: the socket at which debuggers connect, and the thread that watches them while the
//! guest runs.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::control::Control;
use crate::error::{Error, Result};

/// Opens the socket, in the place of one that an earlier monitor has left.
///
/// # Errors
/// What the system answered.
pub(crate) fn listen(path: &str) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::system(
                format!("remove the old debug socket {path}"),
                error,
            ));
        }
    }
    UnixListener::bind(path)
        .map_err(|error| Error::system(format!("listen on the debug socket {path}"), error))
}

#[derive(Debug, Default)]
enum Debugger {
    /// There is none.
    #[default]
    Nobody,
    /// One has connected, and the guest is about to stop for it.
    Waits(Arc<UnixStream>),
    /// The processor's thread speaks with it.
    Stopped,
    /// The guest runs, and the debugger may want something.
    Running(Arc<UnixStream>),
}

/// What the two threads tell each other.
#[derive(Debug, Default)]
pub(crate) struct Link {
    debugger: Mutex<Debugger>,
    changed: Condvar,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Debugger> {
        self.debugger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, debugger: Debugger) {
        *self.lock() = debugger;
        self.changed.notify_all();
    }

    /// The debugger that waits for the guest to stop, if there is one.
    pub(super) fn take(&self) -> Option<Arc<UnixStream>> {
        let mut debugger = self.lock();
        match std::mem::take(&mut *debugger) {
            Debugger::Waits(stream) => {
                *debugger = Debugger::Stopped;
                Some(stream)
            }
            other => {
                *debugger = other;
                None
            }
        }
    }

    /// The guest runs: what the debugger says is to pause it.
    pub(super) fn guest_runs(&self, stream: &Arc<UnixStream>) {
        self.set(Debugger::Running(Arc::clone(stream)));
    }

    /// The guest stands.
    pub(super) fn guest_stands(&self) {
        self.set(Debugger::Stopped);
    }

    /// The debugger has gone.
    pub(super) fn end(&self, stream: &UnixStream) {
        // Whoever watches it wakes up by this.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        self.set(Debugger::Nobody);
    }

    /// Takes debuggers one by one, and pauses the guest when they want something. Ends with the
    /// process.
    pub(crate) fn watch(&self, listener: &UnixListener, control: &Control) {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                // Out of descriptors, or it went at once: there is nothing to tell it.
                std::thread::yield_now();
                continue;
            };
            self.set(Debugger::Waits(Arc::new(stream)));
            control.pause();
            while let Some(stream) = self.running() {
                wait_for_input(&stream);
                if matches!(*self.lock(), Debugger::Running(_)) {
                    control.pause();
                }
                self.wait_until_noticed();
            }
        }
    }

    /// Waits until the guest runs: the stream to watch. `None`: the debugger has gone.
    fn running(&self) -> Option<Arc<UnixStream>> {
        let mut debugger = self.lock();
        loop {
            match &*debugger {
                Debugger::Running(stream) => return Some(Arc::clone(stream)),
                Debugger::Nobody => return None,
                Debugger::Waits(_) | Debugger::Stopped => {}
            }
            debugger = self
                .changed
                .wait(debugger)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the guest does not run any more.
    fn wait_until_noticed(&self) {
        let debugger = self.lock();
        let _noticed = self
            .changed
            .wait_while(debugger, |one| matches!(one, Debugger::Running(_)))
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// Waits until there is something to read, or nobody to say it.
fn wait_for_input(stream: &UnixStream) {
    poll(stream, None);
}

/// Whether there is something to read by now.
pub(super) fn has_input(stream: &UnixStream) -> bool {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(stream, Some(now))
}

fn poll(stream: &UnixStream, timeout: Option<libc::timespec>) -> bool {
    let mut descriptor = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: one valid descriptor, for reads and writes; the time is valid for reads.
    let ready = unsafe { libc::ppoll(&raw mut descriptor, 1, timeout, std::ptr::null()) };
    ready > 0
}

//! The process that keeps the helper up.

use crate::error::{Error, Result};
use crate::worker::{self, End, open_process};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Before a worker that was killed is started again.
const PAUSE: Duration = Duration::from_millis(50);
const FAILED: libc::c_int = 1;
/// The name of both processes (`comm`).
const NAME: &std::ffi::CStr = c"gamut-dns";

/// Becomes the helper of the engine with this run directory, beside this process: that returns as
/// soon as the socket listens. To be called with one thread, early in `main`, whose end is to
/// follow. Does nothing if there is a helper already.
///
/// # Errors
/// If the socket cannot be had.
pub fn run(run_root: &Path) -> Result<()> {
    let Some(lock) = lock(run_root)? else {
        return Ok(());
    };
    let path = crate::socket_path(run_root);
    let _ = fs::remove_file(&path);
    let failed = |source| Error::system(format!("listen at {}", path.display()), source);
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    match fork()? {
        Some(_) => Ok(()),
        None => {
            // SAFETY: setsid(2) takes no pointers; prctl(2) reads a C string that outlives it.
            unsafe {
                libc::setsid();
                libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
            }
            let ended = keep(run_root, &listener);
            let _ = fs::remove_file(&path);
            drop(lock);
            if let Err(error) = ended {
                tracing::error!(error = %gamut_spec::error::chain(&error), "the resolver cannot be kept up");
            }
            std::process::exit(0)
        }
    }
}

/// The lock that the one helper of a run directory holds; `None` if there is one.
fn lock(run_root: &Path) -> Result<Option<File>> {
    let path = crate::directory(run_root).join("lock");
    let failed = |source| Error::system(format!("lock {}", path.display()), source);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Starts a worker, and another one whenever it is killed.
fn keep(run_root: &Path, listener: &UnixListener) -> Result<()> {
    loop {
        let own = std::process::id();
        let Some(worker) = fork()? else {
            let ended = open_process(own)
                .ok_or_else(|| Error::system("look after the keeper", io::Error::last_os_error()))
                .and_then(|keeper| worker::run(run_root, listener, keeper));
            match ended {
                Ok(End::Idle) => std::process::exit(0),
                // Beginning anew is the simplest way to have a keeper and a worker again.
                Ok(End::Orphaned) => {
                    let error = Command::new("/proc/self/exe")
                        .arg0("gamut")
                        .arg(crate::HELPER)
                        .arg(run_root)
                        .exec();
                    tracing::error!(%error, "the resolver cannot begin anew");
                }
                Err(error) => {
                    tracing::error!(error = %gamut_spec::error::chain(&error), "the resolver fails");
                }
            }
            std::process::exit(FAILED)
        };
        if wait(worker)? {
            return Ok(());
        }
        tracing::warn!("the resolver was killed and starts again");
        std::thread::sleep(PAUSE);
    }
}

/// Waits for a child; whether it has ended by itself, with nothing left to do.
fn wait(child: libc::pid_t) -> Result<bool> {
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Error::system("wait for the resolver", error));
        }
    }
}

/// The child's id in the parent, `None` in the child.
fn fork() -> Result<Option<libc::pid_t>> {
    // SAFETY: the process has one thread, so that the child may go on as the parent would.
    match unsafe { libc::fork() } {
        -1 => Err(Error::system("start a process", io::Error::last_os_error())),
        0 => Ok(None),
        child => Ok(Some(child)),
    }
}

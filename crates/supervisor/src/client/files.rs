//! What a supervisor leaves in its run directory.

use gamut_abi::status::Status;
use gamut_abi::wire;
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Reads the status file; `None` if the supervisor has not written one (yet).
///
/// # Errors
/// Those of open(2) and read(2), and `InvalidData` if the file is damaged or of another version.
pub fn read_status(run_directory: &Path) -> io::Result<Option<Status>> {
    let path = run_directory.join("status");
    match fs::read(&path) {
        Ok(frame) => wire::decode(&frame).map(Some).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {error}", path.display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if a supervisor holds the lock of the run directory: it lives.
///
/// # Errors
/// Those of open(2) and flock(2).
pub fn is_alive(run_directory: &Path) -> io::Result<bool> {
    // A shared lock, so that two who ask do not take each other for a supervisor.
    let lock = match OpenOptions::new()
        .read(true)
        .open(run_directory.join("lock"))
    {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

//! The supervisor's directory: `lock`, `control.sock`, `status`.

use gamut_abi::status::Status;
use gamut_abi::wire;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The directory, locked for as long as this lives.
pub(super) struct RunDirectory {
    path: PathBuf,
    _lock: File,
    listener: UnixListener,
}

impl RunDirectory {
    /// Locks the directory and listens on its control socket.
    ///
    /// # Errors
    /// Those of the system, and `ResourceBusy` if another supervisor has it.
    pub(super) fn open(path: &str) -> io::Result<Self> {
        let path = PathBuf::from(path);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another supervisor has it")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        let socket = path.join("control.sock");
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // By way of /proc, because the path of a socket is short (unix(7)).
        let directory = File::open(&path)?;
        let listener = UnixListener::bind(format!(
            "/proc/self/fd/{}/control.sock",
            directory.as_raw_fd()
        ))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            path,
            _lock: lock,
            listener,
        })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Accepts one connection; `None` if there is none (any more).
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) fn accept(&self) -> io::Result<Option<std::os::unix::net::UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if is_no_connection(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the status file.
    ///
    /// # Errors
    /// Those of open(2), write(2) and rename(2).
    pub(super) fn write_status(&self, status: &Status) -> io::Result<()> {
        let frame = wire::encode(status)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let temporary = self.path.join("status.new");
        let result = write_file(&temporary, &frame)
            .and_then(|()| fs::rename(&temporary, self.path.join("status")));
        if result.is_err() {
            // A torn temporary file only wastes space.
            let _ = fs::remove_file(&temporary);
        }
        result
    }
}

impl Drop for RunDirectory {
    /// Nobody shall connect any more.
    fn drop(&mut self) {
        // It may be gone together with the directory.
        let _ = fs::remove_file(self.path.join("control.sock"));
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, bytes)
}

/// Errors of accept(2) that concern the connection, not the listener.
fn is_no_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

//! Telling whoever called: the terminal, the pidfd, the process id.

use super::{failure, state};
use crate::sys::descriptors;
use gamut_abi::control::Failure;
use gamut_abi::oci::OciCallers;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Sends the terminal and the pidfd, then writes the process id: whoever reads it may expect the
/// others to be there.
pub(super) fn tell(
    callers: &OciCallers,
    pid: u32,
    pidfd: BorrowedFd<'_>,
    terminal: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    if let (Some(path), Some(master)) = (&callers.console_socket, terminal) {
        send(path, b"/dev/ptmx", master)
            .map_err(|error| failure(&["send the terminal to ", path].concat(), &error))?;
    }
    if let Some(path) = &callers.pidfd_socket {
        send(path, b"pidfd", pidfd)
            .map_err(|error| failure(&["send the pidfd to ", path].concat(), &error))?;
    }
    if let Some(path) = &callers.pid_file {
        state::write_pid_file(path, pid)
            .map_err(|error| failure(&["write ", path].concat(), &error))?;
    }
    Ok(())
}

/// Sends a descriptor with its name, as runc's `--console-socket` has it.
fn send(path: &str, name: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let socket = UnixStream::connect(path)?;
    descriptors::send(socket.as_fd(), name, &[descriptor]).map(drop)
}

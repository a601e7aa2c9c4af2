//! Pipes for a process's stdio.

use crate::hub::Ends;
use crate::sys::io::pipe;
use gamut_container::Stdio;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;

/// Which streams get a pipe; the others are `/dev/null`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// Makes both sides of a process's stdio: the process's, and the supervisor's.
///
/// # Errors
/// Those of pipe2(2) and open(2).
pub(super) fn make(wanted: Wanted) -> io::Result<(Stdio, Ends)> {
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Ok((Stdio::Null, Ends::default()));
    }
    let mut ends = Ends::default();
    let stdin = if wanted.stdin {
        let (read, write) = pipe()?;
        ends.stdin = Some(write);
        read
    } else {
        null()?
    };
    let output = |wanted: bool, end: &mut Option<OwnedFd>| {
        if !wanted {
            return null();
        }
        let (read, write) = pipe()?;
        *end = Some(read);
        Ok(write)
    };
    let stdout = output(wanted.stdout, &mut ends.stdout)?;
    let stderr = output(wanted.stderr, &mut ends.stderr)?;
    Ok((
        Stdio::Descriptors {
            stdin,
            stdout,
            stderr,
        },
        ends,
    ))
}

fn null() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into())
}

/// The supervisor's side of a terminal: output, and input if it is wanted.
///
/// # Errors
/// Those of fcntl(2).
pub(super) fn terminal(master: OwnedFd, input: bool) -> io::Result<Ends> {
    let stdin = if input {
        Some(master.try_clone()?)
    } else {
        None
    };
    Ok(Ends {
        stdin,
        stdout: Some(master),
        stderr: None,
    })
}

//! Signals of the command itself: passed on to the container, or ending the command.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::error::Error;

/// Signals that a user may mean for the workload. Not among them: SIGCHLD, SIGPIPE and SIGURG,
/// which are about this process, and those that cannot be caught.
const FORWARDED: [i32; 15] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Signals that end a command which does not pass them on.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Catches the signals that `--sig-proxy` passes on.
///
/// # Errors
/// When a handler cannot be installed.
pub fn forwarded() -> Result<mpsc::Receiver<i32>, Error> {
    caught(&FORWARDED)
}

/// Catches the signals that end the command, so that it can restore the terminal first.
///
/// # Errors
/// When a handler cannot be installed.
pub fn ending() -> Result<mpsc::Receiver<i32>, Error> {
    caught(&ENDING)
}

/// Catches changes of the terminal's size.
///
/// # Errors
/// When the handler cannot be installed.
pub fn resized() -> Result<mpsc::Receiver<i32>, Error> {
    caught(&[libc::SIGWINCH])
}

fn caught(numbers: &[i32]) -> Result<mpsc::Receiver<i32>, Error> {
    let (sender, receiver) = mpsc::channel(16);
    for &number in numbers {
        let failed = |error: io::Error| Error::io(format!("catch signal {number}"))(error);
        let mut arrivals = signal(SignalKind::from_raw(number)).map_err(failed)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                if sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

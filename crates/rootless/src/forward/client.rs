//! The engine's side of the forwarder.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Answer, Forward, Request, socket};
use crate::error::{Error, Result};
use crate::{message, sys};

/// How long a forwarder that was killed may take to be there again.
const RESTART_LIMIT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The published ports on the host of one engine.
#[derive(Debug, Clone)]
pub struct Forwards {
    run: PathBuf,
}

/// Process id of the forwarder if one answers.
pub(crate) fn pid(run: &Path) -> Option<u32> {
    let stream = UnixStream::connect(socket(run)).ok()?;
    let credentials = sys::peer(&stream).ok()?;
    u32::try_from(credentials.pid).ok().filter(|pid| *pid > 0)
}

/// Waits until a forwarder that was just started answers, or has had enough time to.
pub(crate) fn await_running(run: &Path) {
    let due = Instant::now() + RESTART_LIMIT;
    while pid(run).is_none() && Instant::now() < due {
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Forwards {
    /// Those of the engine with this run directory.
    #[must_use]
    pub fn new(run: &Path) -> Self {
        Self {
            run: run.to_owned(),
        }
    }

    /// Makes exactly these the published ports; connections of those that stay are not touched.
    ///
    /// # Errors
    /// [`Error::Port`] if one cannot be had: then nothing has changed. [`Error::System`] if the
    /// forwarder does not answer.
    pub fn replace(&self, forwards: Vec<Forward>) -> Result<()> {
        match self.ask(forwards, false)?.refused.into_iter().next() {
            None => Ok(()),
            Some(refused) => Err(Error::Port {
                message: refused.message,
                kind: refused.kind.into(),
            }),
        }
    }

    /// As [`Forwards::replace`], but leaves out what cannot be had, and says what that is.
    ///
    /// # Errors
    /// [`Error::System`] if the forwarder does not answer.
    pub fn restore(&self, forwards: Vec<Forward>) -> Result<Vec<String>> {
        let answer = self.ask(forwards, true)?;
        Ok(answer
            .refused
            .into_iter()
            .map(|refused| refused.message)
            .collect())
    }

    fn ask(&self, forwards: Vec<Forward>, lenient: bool) -> Result<Answer> {
        let request = serde_json::to_vec(&Request { forwards, lenient })
            .map_err(|error| Error::system("write the list of published ports", error.into()))?;
        let due = Instant::now() + RESTART_LIMIT;
        loop {
            match exchange(&self.run, &request) {
                Ok(answer) => return Ok(answer),
                Err(error) if is_gone(&error) && Instant::now() < due => {
                    std::thread::sleep(RETRY_PAUSE);
                }
                Err(source) => {
                    return Err(Error::system(
                        format!(
                            "reach the forwarder of published ports at {} (restarting the daemon starts it; its log is rootless.log)",
                            socket(&self.run).display()
                        ),
                        source,
                    ));
                }
            }
        }
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ECONNREFUSED | libc::ECONNRESET | libc::EPIPE)
    )
}

fn exchange(run: &Path, request: &[u8]) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(socket(run))?;
    stream.set_read_timeout(Some(message::PATIENCE))?;
    stream.set_write_timeout(Some(message::PATIENCE))?;
    sys::send(&stream, request, &[])?;
    stream.shutdown(Shutdown::Write)?;
    let (bytes, _) = sys::receive(&stream)?;
    if bytes.is_empty() {
        return Err(std::io::Error::from_raw_os_error(libc::ECONNRESET));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

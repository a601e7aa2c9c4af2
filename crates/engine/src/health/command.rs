//! Probes that execute a command in the container.

use super::probe::{Outcome, exceeded};
use crate::container::exec::ExecRequest;
use crate::container::live::Container;
use crate::container::oci;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_abi::control::Attach;
use gamut_abi::status::ExitStatus;
use gamut_isolation::contract::ExecSpec;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Bytes of a command's output that are kept.
const MAX_OUTPUT_BYTES: usize = 4096;
/// Begins the ids of exec sessions that are probes.
const PREFIX: &str = "health-";
/// How long a killed probe is waited for, so that dying ones do not pile up.
const DYING: Duration = Duration::from_secs(5);
/// How long a supervisor may take to execute a command; the probe's own time begins then.
const STARTING: Duration = Duration::from_secs(30);

/// Exec sessions that are probes, and who waits for their end.
#[derive(Debug, Default)]
pub(crate) struct Probes(Mutex<BTreeMap<String, oneshot::Sender<ExitStatus>>>);

impl Probes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, oneshot::Sender<ExitStatus>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, exec_id: &str) -> oneshot::Receiver<ExitStatus> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(exec_id.to_owned(), sender);
        receiver
    }

    /// An exec session has ended. True if it was a probe (also one of an earlier daemon), which
    /// concerns nobody else.
    pub(crate) fn ended(&self, exec_id: &str, exit: ExitStatus) -> bool {
        if let Some(waiting) = self.lock().remove(exec_id) {
            // Whoever waited may have given up.
            let _ = waiting.send(exit);
        }
        exec_id.starts_with(PREFIX)
    }
}

/// A command on its way. Dropped before its end, it is killed.
struct Session {
    engine: Arc<Engine>,
    container: Arc<Container>,
    exec_id: String,
    given_up: AtomicBool,
    ended: AtomicBool,
}

impl Session {
    /// Executes the command and returns its output, in Docker's multiplexed frames.
    fn start(&self, words: Vec<String>) -> Result<StdUnixStream> {
        let record = self.container.record();
        let request = ExecRequest {
            command: words,
            ..ExecRequest::default()
        };
        let links = self.engine.link_environment(&record).unwrap_or_default();
        let process = oci::exec_process(
            &record,
            &request,
            self.engine.held_capabilities,
            self.engine.apparmor,
            &links,
        )?;
        let pair = StdUnixStream::pair();
        let (ours, theirs) =
            pair.map_err(|source| Error::system("make a stream for a health check", source))?;
        ours.set_nonblocking(true)
            .map_err(|source| Error::system("make a stream for a health check", source))?;
        let spec = ExecSpec {
            id: self.exec_id.clone(),
            process,
            user: Some(record.process.user.clone()),
            attach: Some(Attach {
                stdin: false,
                stdout: true,
                stderr: true,
            }),
        };
        let context = Caller::engine("health check").context(Some(Instant::now() + STARTING));
        let level = self.engine.level_of(&self.container)?;
        level.exec(&context, &self.container.id, spec, Some(theirs.into()))?;
        // Given up while it was executed: nobody else knows of it yet.
        if self.given_up.load(Ordering::SeqCst) {
            self.kill();
        }
        Ok(ours)
    }

    fn kill(&self) {
        let context = Caller::engine("health check").context(Some(Instant::now() + DYING));
        let exec_id = Some(self.exec_id.as_str());
        let killed = self.engine.level_of(&self.container).and_then(|level| {
            Ok(level.signal(&context, &self.container.id, exec_id, libc::SIGKILL, false)?)
        });
        if let Err(error) = killed {
            // Usually it has just ended.
            tracing::debug!(container = %self.container.id, error = %error.full_message(), "cannot kill a health check");
        }
    }
}

/// Gives a session up when the task that waits for it is aborted.
struct Guard(Arc<Session>);

impl Drop for Guard {
    fn drop(&mut self) {
        let session = Arc::clone(&self.0);
        session.engine.probes.lock().remove(&session.exec_id);
        if !session.ended.load(Ordering::SeqCst) {
            session.given_up.store(true, Ordering::SeqCst);
            let runtime = session.engine.runtime.clone();
            runtime.spawn_blocking(move || session.kill());
        }
    }
}

/// Executes a command in the container; it may take `limit`.
pub(super) async fn run(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    words: Vec<String>,
    limit: Duration,
) -> Outcome {
    let random = match gamut_spec::id::random() {
        Ok(random) => random,
        Err(error) => return Outcome::impossible(format!("make an id: {error}")),
    };
    let session = Arc::new(Session {
        engine: Arc::clone(engine),
        container: Arc::clone(container),
        exec_id: format!("{PREFIX}{random}"),
        given_up: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    });
    let exit = engine.probes.expect(&session.exec_id);
    let guard = Guard(Arc::clone(&session));
    let starting = Arc::clone(&session);
    let started = tokio::task::spawn_blocking(move || starting.start(words)).await;
    let stream = match started {
        Ok(Ok(stream)) => UnixStream::from_std(stream),
        Ok(Err(error)) => {
            session.ended.store(true, Ordering::SeqCst);
            return Outcome::impossible(error.full_message());
        }
        Err(error) => return Outcome::impossible(error.to_string()),
    };
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return Outcome::impossible(format!("read its output: {error}")),
    };
    let mut output = Output::default();
    let ending = async {
        // The supervisor tells of the end, then closes the stream.
        output.read(&mut stream).await;
        exit.await
    };
    match tokio::time::timeout(limit, ending).await {
        Ok(Ok(exit)) => {
            session.ended.store(true, Ordering::SeqCst);
            Outcome {
                exit_code: exit.code,
                output: output.text(),
            }
        }
        Ok(Err(_)) => Outcome::impossible("the container ended meanwhile".to_owned()),
        Err(_) => {
            let text = output.text();
            drop(guard);
            let mut rest = Output::default();
            let _ = tokio::time::timeout(DYING, rest.read(&mut stream)).await;
            Outcome::impossible(exceeded(limit, &text))
        }
    }
}

/// What a command has written so far.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Output {
    fn take(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT_BYTES - self.bytes.len();
        let taken = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..taken]);
        self.is_cut |= taken < bytes.len();
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.is_cut {
            text.push_str("...");
        }
        text
    }

    /// Reads frames until the stream ends or breaks.
    async fn read(&mut self, stream: &mut UnixStream) {
        // A stream that breaks has said what it had to say.
        let _ = self.read_frames(stream).await;
    }

    async fn read_frames(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        let mut piece = [0; 1024];
        loop {
            let mut header = [0; 8];
            stream.read_exact(&mut header).await?;
            let [_, _, _, _, a, b, c, d] = header;
            let mut left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            while left > 0 {
                let wanted = left.min(piece.len());
                let got = stream.read(&mut piece[..wanted]).await?;
                if got == 0 {
                    return Ok(());
                }
                self.take(&piece[..got]);
                left -= got;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded() {
        let mut output = Output::default();
        output.take(&[b'a'; 4000]);
        output.take(&[b'b'; 96]);
        assert_eq!(output.text().len(), 4096);
        output.take(b"c");
        assert_eq!(output.text().len(), 4099);
        assert!(output.text().ends_with("bb..."));
    }
}

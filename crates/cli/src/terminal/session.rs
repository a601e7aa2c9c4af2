//! A container's streams joined with the caller's: until the container's output ends, or the
//! user detaches.

use std::io;

use gamut_spec::detach_keys::KeySequence;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::raw::RawMode;
use super::sink::Sink;
use super::{signals, source};
use crate::client::Hijacked;
use crate::client::demux::{Demultiplexer, Stream};
use crate::error::Error;

/// Size of the buffer for output.
const BUFFER_BYTES: usize = 32 * 1024;

/// What to join.
#[derive(Debug)]
pub struct Session {
    /// Send standard input.
    pub has_stdin: bool,
    /// The container has a terminal: one raw stream, keys are watched.
    pub is_tty: bool,
    /// Which of the container's streams to show.
    pub shows_stdout: bool,
    /// Which of the container's streams to show.
    pub shows_stderr: bool,
    /// Keys that detach.
    pub detach_keys: KeySequence,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The container closed its streams.
    Closed,
    /// The user typed the detach keys; the container runs on.
    Detached,
    /// A signal ended this command.
    Signal(i32),
}

impl Session {
    /// Whether the caller's terminal becomes the container's.
    #[must_use]
    pub fn is_interactive_terminal(&self) -> bool {
        self.is_tty && self.has_stdin
    }

    /// Joins the streams. The terminal is in raw mode meanwhile, and restored in every case.
    ///
    /// # Errors
    /// When the terminal, standard output or the connection fails.
    pub async fn run(self, connection: Hijacked) -> Result<End, Error> {
        let _raw_mode = if self.is_interactive_terminal() {
            RawMode::enter()?
        } else {
            None
        };
        // In raw mode keys raise no signals; those that come from elsewhere end the command.
        let mut ending = if self.is_interactive_terminal() {
            Some(signals::ending()?)
        } else {
            None
        };
        let Hijacked {
            mut reader,
            mut writer,
            ..
        } = connection;
        let input = async {
            if !self.has_stdin {
                // The reading side alone decides when the session is over.
                return std::future::pending().await;
            }
            match send_input(&mut writer, &self).await {
                true => End::Detached,
                false => std::future::pending().await,
            }
        };
        let signal = async {
            match &mut ending {
                Some(ending) => match ending.recv().await {
                    Some(number) => End::Signal(number),
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            output = receive_output(&mut reader, &self) => output.map(|()| End::Closed),
            end = input => Ok(end),
            end = signal => Ok(end),
        }
    }
}

/// Sends standard input until its end, then closes the writing half. Returns whether the user
/// detached. A container that does not read any more is no error: its output tells the rest.
async fn send_input<W: tokio::io::AsyncWrite + Unpin>(writer: &mut W, session: &Session) -> bool {
    let mut input: mpsc::Receiver<Vec<u8>> = source::stdin();
    let mut keys = session.detach_keys.watch();
    while let Some(bytes) = input.recv().await {
        let (bytes, is_detached) = if session.is_tty {
            keys.filter(&bytes)
        } else {
            (bytes, false)
        };
        if writer.write_all(&bytes).await.is_err() {
            return false;
        }
        if is_detached {
            return true;
        }
    }
    let _ = writer.write_all(&keys.finish()).await;
    let _ = writer.shutdown().await;
    false
}

async fn receive_output<R: tokio::io::AsyncRead + Unpin>(
    reader: &mut R,
    session: &Session,
) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut output = Output::new(session.is_tty, session.shows_stdout, session.shows_stderr);
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(length) => length,
            // The engine may reset the connection of a container that has ended.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(Error::io("read the container's output")(error)),
        };
        if length == 0 {
            return Ok(());
        }
        output
            .take(buffer.get(..length).unwrap_or_default())
            .await?;
    }
}

/// Takes a container's output apart and writes it where it belongs.
#[derive(Debug)]
pub struct Output {
    demultiplexer: Option<Demultiplexer>,
    shows_stdout: bool,
    shows_stderr: bool,
}

impl Output {
    /// For the raw stream of a terminal, or a multiplexed one.
    #[must_use]
    pub fn new(is_tty: bool, shows_stdout: bool, shows_stderr: bool) -> Self {
        Self {
            demultiplexer: (!is_tty).then(Demultiplexer::default),
            shows_stdout,
            shows_stderr,
        }
    }

    /// Writes the next bytes of the stream.
    ///
    /// # Errors
    /// A broken stream, an error of the engine in it, or a closed output.
    pub async fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let Some(demultiplexer) = &mut self.demultiplexer else {
            return Sink::Stdout.write(bytes).await;
        };
        loop {
            let frame = demultiplexer
                .next(&mut bytes)
                .map_err(|error| Error::Message(error.to_string()))?;
            match frame {
                None => return Ok(()),
                Some((Stream::Stdout, payload)) if self.shows_stdout => {
                    Sink::Stdout.write(payload).await?;
                }
                Some((Stream::Stderr, payload)) if self.shows_stderr => {
                    Sink::Stderr.write(payload).await?;
                }
                Some((Stream::SystemError, payload)) => {
                    return Err(Error::Message(format!(
                        "error from daemon in stream: {}",
                        String::from_utf8_lossy(payload).trim_end()
                    )));
                }
                Some(_) => {}
            }
        }
    }
}

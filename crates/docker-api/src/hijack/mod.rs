//! Connections that leave HTTP: the client's raw bytes to a supervisor's stream, and back.

mod plain;
mod unread;

use self::unread::Unread;
use crate::body::Reply;
use crate::error::ApiError;
use crate::reply::Response;
use crate::request::Request;
use gamut_spec::detach_keys::{InvalidKeys, KeySequence, Watch};
use hyper::StatusCode;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper_util::rt::TokioIo;
use std::borrow::Cow;
use std::future::Future;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// In which form the output reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A terminal's, as it is.
    Raw,
    /// In frames that tell stdout and stderr apart, as the supervisor has made them.
    Multiplexed,
    /// A terminal's, for a client that expects frames: all of it is stdout.
    Framed,
}

impl Output {
    /// That of a stream whose client knows whether it is a terminal's.
    #[must_use]
    pub fn of(terminal: bool) -> Self {
        if terminal {
            Self::Raw
        } else {
            Self::Multiplexed
        }
    }
}

/// A process's stdio, as a client is to have it.
#[derive(Debug)]
pub struct Stdio {
    /// Output out of, and raw input into a supervisor.
    pub stream: std::os::unix::net::UnixStream,
    /// In which form the output goes on.
    pub form: Output,
    /// Keys in the input on which the client is let go; only for terminals.
    pub detach_keys: Option<KeySequence>,
}

/// Why a client is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There is no more output.
    Output,
    /// It has sent the keys that detach; the process runs on.
    Detached,
}

/// The keys that let a client of a terminal go: those asked for, or the default. Of no use are
/// they without a terminal.
///
/// # Errors
/// For unknown keys.
pub fn detach_keys(terminal: bool, asked: &str) -> Result<Option<KeySequence>, ApiError> {
    let keys = match asked {
        "" => Ok(KeySequence::default()),
        asked => asked.parse(),
    };
    let keys = keys.map_err(|error: InvalidKeys| ApiError::invalid(error.to_string()))?;
    Ok(terminal.then_some(keys))
}

/// Connects the client with `stdio`. `finish` runs when the client is to be let go, before its
/// connection is closed.
///
/// Clients that ask for an upgrade get 101, and the connection is theirs for raw bytes both ways.
/// The others get 200 and the output as the answer's body.
#[must_use]
pub fn respond<F>(
    request: Request,
    stdio: Stdio,
    finish: impl FnOnce(End) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let media_type =
        if stdio.form == Output::Raw || request.version < crate::request::ApiVersion(1, 42) {
            RAW
        } else {
            MULTIPLEXED
        };
    let mut response = if request.headers.get(UPGRADE).is_some() {
        upgrade(request, stdio, finish)
    } else {
        plain::respond(request, stdio, finish)
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Switches to raw bytes.
fn upgrade<F>(
    request: Request,
    stdio: Stdio,
    finish: impl FnOnce(End) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let request_id = request.caller.request_id.clone();
    let upgraded = hyper::upgrade::on(request.http);
    tokio::spawn(async move {
        let outcome = async {
            let client = upgraded.await.map_err(io::Error::other)?;
            match client.downcast::<TokioIo<UnixStream>>() {
                Ok(parts) => {
                    let stream = parts.io.into_inner();
                    let unread = Unread::of(&stream);
                    let (read, write) = stream.into_split();
                    // What the client has sent after its request comes first.
                    let read = io::Cursor::new(parts.read_buf).chain(read);
                    relay((read, write), unread, stdio, finish).await
                }
                Err(client) => {
                    let halves = tokio::io::split(TokioIo::new(client));
                    relay(halves, None, stdio, finish).await
                }
            }
        };
        if let Err(error) = outcome.await {
            tracing::debug!(request_id, %error, "an attached client went away");
        }
    });
    let mut response = Response::new(Reply::Whole(None));
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
}

/// Copies both ways until the supervisor has nothing more to say, or the client has sent the keys
/// that detach. The client's end of input is passed on; it does not end the output.
async fn relay<R, W, F>(
    (client_read, mut client_write): (R, W),
    mut unread: Option<Unread>,
    stdio: Stdio,
    finish: impl FnOnce(End) -> F,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    stdio.stream.set_nonblocking(true)?;
    let supervisor = UnixStream::from_std(stdio.stream)?;
    let (mut output, input) = supervisor.into_split();
    let keys = stdio.detach_keys.map(|keys| keys.watch());
    let forward_output = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = output.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            // The head of the answer, by itself.
            if let Some(unread) = unread.take() {
                unread.none().await;
            }
            if stdio.form == Output::Framed {
                client_write.write_all(&stdout_header(bytes.len())).await?;
            }
            client_write.write_all(bytes).await?;
        }
        Ok::<_, io::Error>(())
    };
    let ended = {
        let forward_input = forward_input(client_read, input, keys);
        tokio::pin!(forward_input, forward_output);
        let mut input_open = true;
        loop {
            tokio::select! {
                biased;
                ended = &mut forward_output => break ended.map(|()| End::Output),
                ended = &mut forward_input, if input_open => match ended {
                    Ok(None) => input_open = false,
                    Ok(Some(end)) => break Ok(end),
                    // The client is gone for good.
                    Err(_) => return Ok(()),
                },
            }
        }
    };
    finish(*ended.as_ref().unwrap_or(&End::Output)).await;
    ended?;
    client_write.shutdown().await
}

/// Passes input on until it ends, or says that the client is to be let go.
async fn forward_input(
    mut client: impl AsyncRead + Unpin,
    mut process: OwnedWriteHalf,
    mut keys: Option<Watch>,
) -> io::Result<Option<End>> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = client.read(&mut buffer).await?;
        let read = buffer.get(..count).unwrap_or_default();
        let (passed, detached) = match &mut keys {
            None => (Cow::Borrowed(read), false),
            Some(keys) if read.is_empty() => (Cow::Owned(keys.finish()), false),
            Some(keys) => {
                let (passed, detached) = keys.filter(read);
                (Cow::Owned(passed), detached)
            }
        };
        // A process that no longer reads is not the client's fault.
        let written = process.write_all(&passed).await;
        if detached {
            return Ok(Some(End::Detached));
        }
        if count == 0 || written.is_err() {
            let _ = process.shutdown().await;
            return Ok(None);
        }
    }
}

/// The head of a frame of stdout (Docker Engine API, "Stream format" of attach).
fn stdout_header(length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [1, 0, 0, 0, a, b, c, d]
}

//! Connections that leave HTTP: the client's raw bytes to a supervisor's stream, and back.

use crate::body::Reply;
use crate::reply::Response;
use crate::request::Request;
use hyper::StatusCode;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// Answers with a switch to raw bytes and connects the client with `stream`. `finish` runs after
/// the output has ended and before the client's connection is closed.
///
/// Clients that ask for `Upgrade: tcp` get 101, old ones 200; both then speak raw bytes.
#[must_use]
pub fn respond<F>(
    request: &mut Request,
    stream: std::os::unix::net::UnixStream,
    terminal: bool,
    finish: impl FnOnce() -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let upgraded = hyper::upgrade::on(&mut request.http);
    let request_id = request.caller.request_id.clone();
    tokio::spawn(async move {
        let outcome = async {
            let client = upgraded.await.map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            let supervisor = UnixStream::from_std(stream)?;
            relay(TokioIo::new(client), supervisor, finish).await
        };
        if let Err(error) = outcome.await {
            tracing::debug!(request_id, %error, "an attached client went away");
        }
    });
    let mut response = Response::new(Reply::Whole(None));
    let headers = response.headers_mut();
    let asked = request.headers.get(UPGRADE).is_some();
    let media_type = if terminal || request.version < crate::request::ApiVersion(1, 42) {
        RAW
    } else {
        MULTIPLEXED
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    // hyper hands the connection over only after a 101 (or CONNECT), so old clients that did not
    // ask get one as well: they read past the headers without looking at the status.
    let _ = asked;
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
}

/// Copies both ways until the supervisor has nothing more to say. The client's end of input is
/// passed on; it does not end the output.
async fn relay<C, F>(
    client: C,
    supervisor: UnixStream,
    finish: impl FnOnce() -> F,
) -> io::Result<()>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut output, mut input) = supervisor.into_split();
    let forward_input = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = client_read.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            let Some(bytes) = buffer.get(..count) else {
                break;
            };
            if input.write_all(bytes).await.is_err() {
                // The process no longer reads: not the client's fault.
                break;
            }
        }
        let _ = input.shutdown().await;
        Ok::<(), io::Error>(())
    };
    let forward_output = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = output.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            client_write.write_all(bytes).await?;
        }
        Ok::<_, io::Error>(client_write)
    };
    tokio::pin!(forward_input, forward_output);
    let mut input_open = true;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut forward_output => break ended,
            ended = &mut forward_input, if input_open => {
                input_open = false;
                if ended.is_err() {
                    // The client is gone for good.
                    return Ok(());
                }
            }
        }
    };
    finish().await;
    ended?.shutdown().await
}

//! Clients that do not ask for an upgrade: output as the body of an answer, input out of that of
//! the request.

use super::{End, Stdio, relay};
use crate::body::{self, Sender};
use crate::reply::Response;
use crate::request::Request;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Version;
use hyper::body::{Body, Incoming};
use std::future::{Future, pending};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Bytes that may be on their way in each direction.
const BUFFER_BYTES: usize = 64 << 10;

/// Answers with the output, which ends with the connection: some of these clients read raw bytes
/// behind the head, others a body, and this is both (RFC 9112, section 6.3, item 8).
pub(super) fn respond<F>(
    request: Request,
    stdio: Stdio,
    finish: impl FnOnce(End) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let request_id = request.caller.request_id.clone();
    let (client, ours) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        if let Err(error) = relay(tokio::io::split(client), None, stdio, finish).await {
            tracing::debug!(request_id, %error, "an attached client went away");
        }
    });
    let (sender, reply) = body::stream();
    tokio::spawn(connect(request.http.into_body(), ours, sender));
    let mut response = Response::new(reply);
    *response.version_mut() = Version::HTTP_10;
    response
}

/// Carries input out of a request's body and output into that of the answer, until there is no
/// more output or nobody who reads it.
async fn connect(mut request: Incoming, ours: DuplexStream, answer: Sender) {
    let (mut output, mut input) = tokio::io::split(ours);
    let forward_input = async {
        // Without a body there is no end of input either: that would end the process.
        if !request.is_end_stream() {
            while let Some(Ok(frame)) = request.frame().await {
                if let Ok(bytes) = frame.into_data()
                    && input.write_all(&bytes).await.is_err()
                {
                    break;
                }
            }
            let _ = input.shutdown().await;
        }
        pending::<()>().await;
    };
    let forward_output = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = tokio::select! {
                read = output.read(&mut buffer) => read,
                () = answer.closed() => break,
            };
            let bytes = read.ok().and_then(|count| buffer.get(..count));
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            if answer
                .send(Ok(Bytes::copy_from_slice(bytes)))
                .await
                .is_err()
            {
                break;
            }
        }
    };
    tokio::select! {
        () = forward_input => {}
        () = forward_output => {}
    }
}

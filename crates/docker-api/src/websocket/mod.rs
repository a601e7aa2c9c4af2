//! WebSocket (RFC 6455), as far as `attach/ws` needs it: the handshake, frames, and a relay between
//! a client and the stream of a supervisor.

pub mod frame;
pub mod multiplexed;
mod relay;

use crate::body::Reply;
use crate::error::ApiError;
use crate::reply::Response;
use crate::request::{ApiVersion, Request};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frame::Opcode;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use std::io;
use tokio::net::UnixStream;

/// Section 1.3: what is put behind the client's key before it is hashed.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// Before this version, output is sent as text.
const BINARY_SINCE: ApiVersion = ApiVersion(1, 28);

/// Answers with a switch to WebSocket and connects the client with `stream`, which is multiplexed
/// unless it is a `terminal`'s: clients get its output as messages.
///
/// # Errors
/// If the request is no handshake.
pub fn respond(
    request: &mut Request,
    stream: std::os::unix::net::UnixStream,
    terminal: bool,
) -> Result<Response, ApiError> {
    let accept = accept(request)?;
    let upgraded = hyper::upgrade::on(&mut request.http);
    let request_id = request.caller.request_id.clone();
    let opcode = if request.version < BINARY_SINCE {
        Opcode::Text
    } else {
        Opcode::Binary
    };
    tokio::spawn(async move {
        let outcome = async {
            let client = upgraded.await.map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            let supervisor = UnixStream::from_std(stream)?;
            relay::relay(TokioIo::new(client), supervisor, terminal, opcode).await
        };
        if let Err(error) = outcome.await {
            tracing::debug!(request_id, %error, "an attached client went away");
        }
    });
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// Section 4.2: what the client must have sent, and the answer to its key.
fn accept(request: &Request) -> Result<HeaderValue, ApiError> {
    let text = |name: &str| {
        let value = request.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    let has_word = |name: &str, word: &str| {
        let mut words = text(name).split(',');
        words.any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    let key = text("sec-websocket-key").trim();
    let is_handshake = has_word("connection", "upgrade")
        && has_word("upgrade", "websocket")
        && text("sec-websocket-version").trim() == "13"
        && STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    if !is_handshake {
        return Err(ApiError::invalid(
            "this is no handshake of WebSocket version 13: Upgrade: websocket, Connection: Upgrade, \
             Sec-WebSocket-Version: 13 and Sec-WebSocket-Key are needed",
        ));
    }
    HeaderValue::try_from(accept_text(key)).map_err(|error| ApiError::invalid(error.to_string()))
}

fn accept_text(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{ACCEPT_SUFFIX}")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(
            super::accept_text("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}

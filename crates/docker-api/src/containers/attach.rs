//! `POST /containers/{id}/attach`, and the same by WebSocket.

use crate::error::ApiError;
use crate::hijack::{self, End, Output, Stdio};
use crate::reply::Response;
use crate::request::{ApiVersion, Request};
use gamut_abi::control::Attach;
use gamut_engine::logs::LogQuery;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Before this version, a WebSocket is attached to all streams.
const STREAMS_BY_WEBSOCKET_SINCE: ApiVersion = ApiVersion(1, 42);

/// Connects the client with a container's stdio; with `logs`, what was written before comes
/// first.
pub async fn attach(request: Request, name: &str) -> Result<Response, ApiError> {
    let attach = Attach {
        stdin: request.flag("stdin"),
        stdout: request.flag("stdout"),
        stderr: request.flag("stderr"),
    };
    let (id, stdio) = open(&request, name, attach).await?;
    let engine = Arc::clone(&request.engine);
    Ok(hijack::respond(request, stdio, move |end| async move {
        if end == End::Detached {
            engine.container_detached(&id);
        }
    }))
}

/// `GET /containers/{id}/attach/ws`
pub async fn websocket(mut request: Request, name: &str) -> Result<Response, ApiError> {
    let all = request.version < STREAMS_BY_WEBSOCKET_SINCE;
    let attach = Attach {
        stdin: all || request.flag("stdin"),
        stdout: all || request.flag("stdout"),
        stderr: all || request.flag("stderr"),
    };
    let (_, stdio) = open(&request, name, attach).await?;
    crate::websocket::respond(&mut request, stdio.stream, stdio.form == Output::Raw)
}

/// The container's id, and the stream of what is asked for.
async fn open(request: &Request, name: &str, attach: Attach) -> Result<(String, Stdio), ApiError> {
    let (logs, live) = (request.flag("logs"), request.flag("stream"));
    let record = request.engine.container(name)?;
    let terminal = record.spec.terminal;
    let detach_keys = request.text("detachKeys").unwrap_or_default();
    let detach_keys = hijack::detach_keys(terminal, detach_keys)?;
    let open_stdin = record.spec.open_stdin;
    let attach = Attach {
        stdin: attach.stdin && open_stdin,
        ..attach
    };
    let stream = if live {
        let id = record.id.clone();
        request
            .blocking(move |engine, caller| engine.attach_container(caller, &id, attach))
            .await?
    } else {
        // Only what was written so far: a stream that ends at once.
        let (ours, _) = UnixStream::pair().map_err(|error| ApiError::invalid(error.to_string()))?;
        ours
    };
    let stdio = |stream| Stdio {
        stream,
        form: Output::of(terminal),
        detach_keys,
    };
    if !logs {
        return Ok((record.id.clone(), stdio(stream)));
    }
    let query = LogQuery {
        stdout: attach.stdout,
        stderr: attach.stderr,
        ..LogQuery::default()
    };
    let mut lines = request.engine.logs(&record.id, query)?;
    let (front, back) = UnixStream::pair().map_err(|error| ApiError::invalid(error.to_string()))?;
    // Earlier output first, then the live stream, on one connection.
    tokio::task::spawn_blocking(move || {
        let copied = (|| {
            let mut back_writer = &back;
            while let Some(line) = lines.blocking_recv() {
                back_writer.write_all(&super::logs::frame(&line, terminal))?;
            }
            let input = (back.try_clone()?, stream.try_clone()?);
            let upstream = std::thread::spawn(move || {
                let copied = std::io::copy(&mut &input.0, &mut &input.1);
                let _ = input.1.shutdown(std::net::Shutdown::Write);
                copied
            });
            std::io::copy(&mut &stream, &mut back_writer)?;
            back.shutdown(std::net::Shutdown::Both)?;
            let _ = upstream.join();
            Ok::<(), std::io::Error>(())
        })();
        if let Err(error) = copied {
            tracing::debug!(%error, "an attached client went away");
        }
    });
    Ok((record.id.clone(), stdio(front)))
}

//! One probe, of whichever kind.

use super::check::{Healthcheck, Test};
use super::command;
use super::http::{MAX_LINE_BYTES, StatusLine, status_line};
use super::record::ProbeResult;
use crate::container::live::Container;
use crate::engine::{Caller, Engine};
use gamut_spec::time;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A probe that took too long or could not be made at all.
const IMPOSSIBLE: i32 = -1;
/// Docker's exit code for "unhealthy".
const UNHEALTHY: i32 = 1;
/// Bytes of an unhealthy answer that are kept.
const MAX_BODY_BYTES: usize = 4096;
/// How long the rest of an unhealthy answer is waited for.
const BODY_PATIENCE: Duration = Duration::from_millis(500);

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// 0 is healthy.
    pub(super) exit_code: i32,
    /// What it said.
    pub(super) output: String,
}

impl Outcome {
    pub(super) fn impossible(output: String) -> Self {
        Self {
            exit_code: IMPOSSIBLE,
            output,
        }
    }

    fn unhealthy(output: String) -> Self {
        Self {
            exit_code: UNHEALTHY,
            output,
        }
    }
}

/// Probes a container once.
pub(super) async fn run(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    check: &Healthcheck,
    test: &Test,
) -> ProbeResult {
    let start_ns = time::now_ns();
    let limit = check.timeout();
    let outcome = match test {
        Test::Command(words) => command::run(engine, container, words.clone(), limit).await,
        Test::Tcp { port } => within(limit, connect(engine, container, *port, limit))
            .await
            .map_or_else(
                |outcome| outcome,
                |_| Outcome {
                    exit_code: 0,
                    output: format!("connected to port {port}"),
                },
            ),
        Test::Http { port, path } => within(limit, get(engine, container, *port, path, limit))
            .await
            .unwrap_or_else(|outcome| outcome),
    };
    ProbeResult {
        start_ns,
        end_ns: time::now_ns(),
        exit_code: outcome.exit_code,
        output: outcome.output,
    }
}

async fn within<T>(
    limit: Duration,
    probe: impl Future<Output = Result<T, Outcome>>,
) -> Result<T, Outcome> {
    tokio::time::timeout(limit, probe)
        .await
        .unwrap_or_else(|_| Err(Outcome::impossible(exceeded(limit, ""))))
}

/// Connects from within the container's network.
async fn connect(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    port: u16,
    limit: Duration,
) -> Result<TcpStream, Outcome> {
    let (engine, container) = (Arc::clone(engine), Arc::clone(container));
    let dialling = tokio::task::spawn_blocking(move || {
        let context = Caller::engine("health check").context(Some(Instant::now() + limit));
        let level = engine.level_of(&container)?;
        let stream = level.dial(&context, &container.id, port)?;
        Ok::<_, crate::Error>(stream)
    });
    let failed = |reason: String| Outcome::unhealthy(format!("connect to port {port}: {reason}"));
    let stream = dialling
        .await
        .map_err(|error| Outcome::impossible(error.to_string()))?
        .map_err(|error| failed(cause(&error)))?;
    stream
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(stream))
        .map_err(|error| failed(error.to_string()))
}

/// The innermost cause, without the id of the container that everybody knows here.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

async fn get(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    port: u16,
    path: &str,
    limit: Duration,
) -> Result<Outcome, Outcome> {
    let mut stream = connect(engine, container, port, limit).await?;
    let failed = |reason: &dyn std::fmt::Display| {
        Outcome::unhealthy(format!("GET http://localhost:{port}{path}: {reason}"))
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: gamut-health/{}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| failed(&error))?;
    let mut got = Vec::new();
    let line = first_line(&mut stream, &mut got)
        .await
        .map_err(|error| failed(&error))?;
    if (200..400).contains(&line.status) {
        return Ok(Outcome {
            exit_code: 0,
            output: line.text,
        });
    }
    // The answer usually tells what is wrong.
    let _ = tokio::time::timeout(BODY_PATIENCE, rest(&mut stream, &mut got)).await;
    let text = String::from_utf8_lossy(&got[..got.len().min(MAX_BODY_BYTES)]).into_owned();
    Ok(Outcome::unhealthy(text))
}

async fn first_line(stream: &mut TcpStream, got: &mut Vec<u8>) -> io::Result<StatusLine> {
    loop {
        if let Some(line) = status_line(got).map_err(io::Error::other)? {
            return Ok(line);
        }
        let mut piece = [0; 512];
        let bytes = stream.read(&mut piece).await?;
        if bytes == 0 {
            return Err(io::Error::other("the connection ended without an answer"));
        }
        got.extend_from_slice(&piece[..bytes]);
        debug_assert!(got.len() < MAX_LINE_BYTES + piece.len());
    }
}

async fn rest(stream: &mut TcpStream, got: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 512];
    while got.len() < MAX_BODY_BYTES {
        let bytes = stream.read(&mut piece).await?;
        if bytes == 0 {
            break;
        }
        got.extend_from_slice(&piece[..bytes]);
    }
    Ok(())
}

/// dockerd's words for a probe that took too long.
pub(super) fn exceeded(limit: Duration, output: &str) -> String {
    let text = format!("Health check exceeded timeout ({})", go_duration(limit));
    if output.is_empty() {
        text
    } else {
        format!("{text}: {output}")
    }
}

/// A duration as Go prints it: `1m30s`, `500ms`, `1.5s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        return format!("{duration:?}");
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let below = duration - Duration::from_secs(seconds / 60 * 60);
    let below = format!("{}s", below.as_secs_f64());
    if hours == 0 {
        format!("{minutes}m{below}")
    } else {
        format!("{hours}h{minutes}m{below}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (ms, text) in [
            (500, "500ms"),
            (1, "1ms"),
            (1500, "1.5s"),
            (30_000, "30s"),
            (60_000, "1m0s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(
            exceeded(Duration::from_secs(2), "half"),
            "Health check exceeded timeout (2s): half"
        );
    }
}

//! `GET /containers/{id}/logs`

use crate::body;
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use bytes::Bytes;
use gamut_engine::logging;
use gamut_engine::logs::{LogLine, LogQuery, Stream};
use gamut_spec::time;

/// Bytes gathered before a chunk goes out.
const CHUNK_BYTES: usize = 32 << 10;

/// Streams a container's log.
pub fn logs(request: &Request, name: &str) -> Result<Response, ApiError> {
    let record = request.engine.container(name)?;
    let terminal = record.spec.terminal;
    let details = request.flag("details").then(|| logging::details(&record));
    let query = LogQuery {
        since_ns: timestamp(request.text("since"))?.unwrap_or(0),
        until_ns: timestamp(request.text("until"))?.filter(|until| *until != 0),
        tail: match request.text("tail") {
            None | Some("" | "all") => None,
            // Docker takes anything else that is no number as all.
            Some(text) => text.parse().ok(),
        },
        follow: request.flag("follow"),
        stdout: request.flag("stdout"),
        stderr: request.flag("stderr"),
    };
    let timestamps = request.flag("timestamps");
    let mut lines = request.engine.logs(&record.id, query)?;
    let (sender, reply) = body::stream();
    tokio::spawn(async move {
        let mut at_line_start = true;
        loop {
            let line = tokio::select! {
                // Who hangs up while the container is silent is not waited with.
                () = sender.closed() => return,
                line = lines.recv() => line,
            };
            let Some(line) = line else { return };
            let mut chunk = Vec::new();
            let mut next = Some(line);
            // What is there already goes out together.
            while let Some(mut line) = next {
                let begins = at_line_start;
                at_line_start = line.text.ends_with(b"\n");
                if begins && (timestamps || details.is_some()) {
                    let mut text = Vec::new();
                    if timestamps {
                        text.extend_from_slice(padded(line.time_ns).as_bytes());
                        text.push(b' ');
                    }
                    if let Some(details) = &details {
                        text.extend_from_slice(details.as_bytes());
                        text.push(b' ');
                    }
                    text.append(&mut line.text);
                    line.text = text;
                }
                chunk.extend_from_slice(&frame(&line, terminal));
                next = if chunk.len() < CHUNK_BYTES {
                    lines.try_recv().ok()
                } else {
                    None
                };
            }
            if sender.send(Ok(Bytes::from(chunk))).await.is_err() {
                return;
            }
        }
    });
    let media_type = if terminal || request.version < ApiVersion(1, 42) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    };
    Ok(reply::with_type(reply, media_type))
}

/// A line as Docker's multiplexed stream has it, or raw for a terminal.
pub fn frame(line: &LogLine, terminal: bool) -> Vec<u8> {
    if terminal {
        return line.text.clone();
    }
    let stream = match line.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let length = u32::try_from(line.text.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![stream, 0, 0, 0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&line.text);
    bytes
}

/// Times with all nine digits, so that lines align.
fn padded(time_ns: u64) -> String {
    let text = time::rfc3339(time_ns - time_ns % 1_000_000_000);
    let whole = text.strip_suffix('Z').unwrap_or(&text);
    format!("{whole}.{:09}Z", time_ns % 1_000_000_000)
}

/// Seconds since the epoch with an optional fraction, or RFC 3339.
pub fn timestamp(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if let Some(time_ns) = time::parse_rfc3339(text) {
        return Ok(Some(time_ns));
    }
    let bad = || {
        ApiError::invalid(format!(
            "invalid value for time {text:?}: expected seconds since the epoch or RFC 3339"
        ))
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse().map_err(|_| bad())?;
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(9)
        .collect();
    let nanoseconds: u64 = digits.parse().map_err(|_| bad())?;
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|time_ns| time_ns.checked_add(nanoseconds))
        .map(Some)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(timestamp(Some("12.5")).unwrap(), Some(12_500_000_000));
        assert_eq!(timestamp(Some("0")).unwrap(), Some(0));
        assert_eq!(timestamp(None).unwrap(), None);
        assert_eq!(
            timestamp(Some("1970-01-01T00:00:01Z")).unwrap(),
            Some(1_000_000_000)
        );
        assert!(timestamp(Some("soon")).is_err());
        assert!(timestamp(Some("99999999999999999999")).is_err());
        assert_eq!(padded(1_000_000_005), "1970-01-01T00:00:01.000000005Z");
    }
}

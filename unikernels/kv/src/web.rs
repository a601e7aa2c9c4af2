//! The store over HTTP.

use gamut_libos::http::{Request, Response, StatusCode};
use gamut_libos::metrics;
use gamut_libos::prelude::*;
use gamut_libos::store::{Store, StoreError};

use crate::{GENERATION, KEYS, READS, WRITES};

/// Keys of a list.
const MAX_LISTED: usize = 1000;

/// Answers requests from a store.
pub(super) fn handler(store: Store) -> impl AsyncFn(&Request<'_>) -> Response + 'static {
    async move |request: &Request<'_>| match answer(&store, request).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

fn failure(error: &StoreError) -> Response {
    let status = match error {
        StoreError::BadKey => StatusCode::BAD_REQUEST,
        StoreError::ValueTooLong => StatusCode::CONTENT_TOO_LARGE,
        StoreError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_ERROR,
    };
    Response::text(format!("{error}\n")).with_status(status)
}

async fn answer(store: &Store, request: &Request<'_>) -> Result<Response, StoreError> {
    let path = request.path();
    let is_read = matches!(request.method(), "GET" | "HEAD");
    if is_read && path == "/metrics" {
        let counters = store.counters().await;
        KEYS.set(counters.keys);
        GENERATION.set(counters.generation);
        return Ok(Response::text(metrics::text(&[
            &READS,
            &WRITES,
            &KEYS,
            &GENERATION,
        ])));
    }
    let key = decode(path.strip_prefix('/').unwrap_or_default());
    let Some(key) = key else {
        return Ok(Response::text("a % without two hexadecimal digits\n")
            .with_status(StatusCode::BAD_REQUEST));
    };
    if is_read && key.is_empty() {
        return Ok(list(store, request).await);
    }
    match request.method() {
        "GET" | "HEAD" => {
            READS.add(1);
            Ok(match store.get(&key).await? {
                Some(value) => Response::bytes(value),
                None => Response::text("no such key\n").with_status(StatusCode::NOT_FOUND),
            })
        }
        "PUT" => {
            store.put(&key, request.body.to_vec()).await?;
            WRITES.add(1);
            Ok(Response::new(StatusCode::NO_CONTENT))
        }
        "DELETE" => {
            let existed = store.delete(&key).await?;
            WRITES.add(1);
            Ok(if existed {
                Response::new(StatusCode::NO_CONTENT)
            } else {
                Response::text("no such key\n").with_status(StatusCode::NOT_FOUND)
            })
        }
        _ => Ok(Response::text("only GET, HEAD, PUT and DELETE\n")
            .with_status(StatusCode::METHOD_NOT_ALLOWED)
            .with_header("Allow", "GET, HEAD, PUT, DELETE")),
    }
}

async fn list(store: &Store, request: &Request<'_>) -> Response {
    let from = request
        .head
        .target
        .split_once("?from=")
        .and_then(|(_, from)| decode(from))
        .unwrap_or_default();
    let mut text = String::new();
    for key in store.keys(&from, MAX_LISTED).await {
        text.push_str(&String::from_utf8_lossy(&key));
        text.push('\n');
    }
    Response::text(text)
}

/// Text with `%41` for bytes.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

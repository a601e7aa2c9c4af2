//! Answers.

use crate::body::Reply;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

/// An answer.
pub type Response = hyper::Response<Reply>;

/// An answer with a status and nothing else.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = status;
    response
}

/// 204.
#[must_use]
pub fn no_content() -> Response {
    empty(StatusCode::NO_CONTENT)
}

/// JSON, as Go's encoder ends it: with a newline.
#[must_use]
pub fn json<T: Serialize>(value: &T) -> Response {
    let mut text = match serde_json::to_vec(value) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "cannot encode an answer");
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    text.push(b'\n');
    with_type(Reply::Whole(Some(Bytes::from(text))), "application/json")
}

/// JSON with status 201.
#[must_use]
pub fn created<T: Serialize>(value: &T) -> Response {
    let mut response = json(value);
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// A body of a media type.
#[must_use]
pub fn with_type(body: Reply, media_type: &'static str) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

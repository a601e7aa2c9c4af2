//! Errors as Docker's API tells them: a status and `{"message": …}`.

use crate::body::Reply;
use crate::reply::{self, Response};
use gamut_spec::error::ErrorKind;
use hyper::StatusCode;
use serde_json::json;

/// An error on its way to a client.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Status of the answer.
    pub status: StatusCode,
    /// For people.
    pub message: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let status = match kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self {
            status,
            message: message.into(),
        }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// The same with words before it, unless it has them already.
    #[must_use]
    pub fn after(mut self, prefix: &str) -> Self {
        if !self.message.starts_with(prefix) {
            self.message.insert_str(0, prefix);
        }
        self
    }

    /// The answer that tells of it.
    #[must_use]
    pub fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return reply::empty(self.status);
        }
        let mut response = reply::json(&json!({"message": self.message}));
        *response.status_mut() = self.status;
        response
    }

    /// As one JSON line of a progress stream that has already begun.
    #[must_use]
    pub fn progress_line(&self) -> String {
        json!({"errorDetail": {"message": self.message}, "error": self.message}).to_string()
    }
}

impl From<gamut_engine::Error> for ApiError {
    fn from(error: gamut_engine::Error) -> Self {
        Self::new(error.kind(), error.full_message())
    }
}

impl From<gamut_image::Error> for ApiError {
    fn from(error: gamut_image::Error) -> Self {
        Self::new(error.kind(), gamut_spec::error::chain(&error))
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self::Whole(Some(error.progress_line().into()))
    }
}

//! What a node that is no swarm manager and has no plugins answers.

use crate::error::ApiError;
use crate::reply::{self, Response};
use gamut_spec::error::ErrorKind;
use serde_json::json;

/// 503, as dockerd answers outside a swarm.
#[must_use]
pub fn not_a_manager() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    )
}

/// `GET /plugins`
#[must_use]
pub fn no_plugins() -> Response {
    reply::json(&json!([]))
}

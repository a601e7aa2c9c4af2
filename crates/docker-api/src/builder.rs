//! Building images, which this engine does not do yet, and the other requests that answer so.

use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use gamut_spec::error::ErrorKind;
use serde_json::{Value, json};

/// Before this version there is no such page.
const ATTESTATIONS_SINCE: ApiVersion = ApiVersion(1, 55);

/// The answer to a request of what is not supported yet. `None` if dockerd has no such page either.
pub fn answer(request: &Request, path: &[&str]) -> Option<Result<Response, ApiError>> {
    let what = match (request.method.as_str(), path) {
        // Nothing is cached, so nothing is left after it: `docker system prune` asks for this.
        ("POST", ["build", "prune"]) => {
            return Some(Ok(reply::json(
                &json!({"CachesDeleted": Value::Null, "SpaceReclaimed": 0}),
            )));
        }
        ("POST", ["build"] | ["build", "cancel"] | ["session" | "grpc"]) => {
            "building images is not supported yet by this engine: build elsewhere, then load or \
             pull the image"
        }
        ("GET" | "POST", ["containers", _, "checkpoints"])
        | ("DELETE", ["containers", _, "checkpoints", _]) => {
            "checkpoints are not supported yet by this engine"
        }
        ("GET", ["images", .., "attestations"]) if request.version >= ATTESTATIONS_SINCE => {
            "attestations of images are not supported yet by this engine"
        }
        _ => return None,
    };
    Some(Err(ApiError::new(ErrorKind::Unsupported, what)))
}

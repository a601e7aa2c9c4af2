//! Plugins: there are none, and none can be installed.

use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_spec::error::ErrorKind;
use serde_json::json;

/// The answer to a request below `/plugins`. `None` if dockerd has no such page either.
pub fn answer(request: &Request, path: &[&str]) -> Option<Result<Response, ApiError>> {
    let answer = match (request.method.as_str(), path) {
        ("GET", ["plugins"]) => list(request),
        ("GET", ["plugins", "privileges"]) | ("POST", ["plugins", "pull" | "create"]) => {
            Err(ApiError::new(
                ErrorKind::Unsupported,
                "plugins are not supported by this engine",
            ))
        }
        ("GET", ["plugins", name @ .., "json"])
        | (
            "POST",
            [
                "plugins",
                name @ ..,
                "enable" | "disable" | "push" | "upgrade" | "set",
            ],
        )
        | ("DELETE", ["plugins", name @ ..])
            if !name.is_empty() =>
        {
            Err(ApiError::new(
                ErrorKind::NotFound,
                format!("plugin \"{}\" not found", name.join("/")),
            ))
        }
        _ => return None,
    };
    Some(answer)
}

fn list(request: &Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(request)?;
    filters.check(&["enabled", "capability"])?;
    filters.flag("enabled")?;
    Ok(reply::json(&json!([])))
}

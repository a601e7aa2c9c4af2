//! Routes of swarm mode, as a node answers that is in no swarm.

use crate::error::ApiError;
use crate::request::ApiVersion;
use gamut_spec::error::ErrorKind;
use hyper::Method;

/// 503, as dockerd answers outside a swarm.
#[must_use]
pub fn not_a_manager() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    )
}

/// The answer to a request below `/swarm`, `/nodes`, `/services`, `/tasks`, `/secrets` and
/// `/configs`. `None` if dockerd has no such page either.
#[must_use]
pub fn answer(method: &Method, path: &[&str], version: ApiVersion) -> Option<ApiError> {
    let error = match (method.as_str(), path) {
        ("POST", ["swarm", "init" | "join"]) => ApiError::new(
            ErrorKind::Unsupported,
            "swarm mode is not supported by this engine: run dockerd for it",
        ),
        ("POST", ["swarm", "leave" | "unlock"]) => {
            ApiError::new(ErrorKind::Unavailable, "This node is not part of a swarm")
        }
        ("GET", ["swarm"] | ["swarm", "unlockkey"]) | ("POST", ["swarm", "update"]) => {
            not_a_manager()
        }
        (_, ["secrets", ..]) if version < ApiVersion(1, 25) => return None,
        (_, ["configs", ..]) if version < ApiVersion(1, 30) => return None,
        ("GET" | "HEAD", ["nodes" | "services" | "tasks" | "secrets" | "configs"])
        | ("GET" | "HEAD", ["nodes" | "services" | "tasks" | "secrets" | "configs", _])
        | ("GET", ["services" | "tasks", _, "logs"])
        | ("POST", ["services" | "secrets" | "configs", "create"])
        | ("POST", ["nodes" | "services" | "secrets" | "configs", _, "update"])
        | ("DELETE", ["nodes" | "services" | "secrets" | "configs", _]) => not_a_manager(),
        _ => return None,
    };
    Some(error)
}

/// 503 to `PUT /volumes/{name}`: only volumes of a cluster can be changed.
#[must_use]
pub fn no_cluster_volumes() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    #[test]
    fn an_inactive_node() {
        let status = |method: Method, path: &[&str]| {
            answer(&method, path, ApiVersion(1, 41)).map(|error| error.status.as_u16())
        };
        for (method, path) in [
            (Method::GET, &["swarm"][..]),
            (Method::GET, &["nodes", "x"]),
            (Method::DELETE, &["secrets", "x"]),
            (Method::POST, &["services", "create"]),
            (Method::POST, &["swarm", "leave"]),
        ] {
            assert_eq!(status(method, path), Some(503), "{path:?}");
        }
        assert_eq!(status(Method::POST, &["swarm", "init"]), Some(501));
        assert_eq!(status(Method::POST, &["swarm", "what"]), None);
        assert_eq!(status(Method::GET, &["services", "x", "what"]), None);
        let early = answer(&Method::GET, &["configs"], ApiVersion(1, 29));
        assert!(early.is_none());
        assert_eq!(no_cluster_volumes().status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

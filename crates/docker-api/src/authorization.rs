//! Which requests of users other than root are let through, where the engine tells them apart. What
//! a container may be made of is the engine's own to check.

use crate::error::ApiError;
use crate::request::Request;
use gamut_engine::Engine;
use hyper::Method;

/// Lets a request through.
///
/// # Errors
/// 404 for containers of others, 403 for what is root's alone.
pub fn check(request: &Request, path: &[&str]) -> Result<(), ApiError> {
    let (engine, caller) = (&request.engine, &request.caller);
    if engine.is_trusted(caller) {
        return Ok(());
    }
    let denied = |what: &str| Err(ApiError::from(Engine::denied(caller, what)));
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    match path {
        ["_ping" | "version" | "info" | "auth" | "events"] => Ok(()),
        // Lists and prunes see what is the caller's own.
        ["containers", "json" | "create" | "prune"] => Ok(()),
        ["volumes", "create" | "prune"] | ["volumes"] => Ok(()),
        ["containers", name, ..] => Ok(engine.authorize_use(caller, name)?),
        ["exec", id, ..] => {
            let container = engine.exec(id)?.container_id;
            Ok(engine.authorize_use(caller, &container)?)
        }
        ["volumes", name] => Ok(engine.authorize_volume(caller, name)?),
        ["networks"] | ["networks", "create"] => Ok(()),
        ["networks", _] if reads => Ok(()),
        ["networks", name] => Ok(engine.authorize_network(caller, name)?),
        ["images", ..] | ["distribution", ..] if reads => Ok(()),
        ["images", "create"] if request.text("fromSrc").is_none_or(str::is_empty) => Ok(()),
        ["images", .., "push"] => Ok(()),
        _ => denied(&format!("{} /{}", request.method, path.join("/"))),
    }
}

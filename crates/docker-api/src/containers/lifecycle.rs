//! Starting, stopping, changing, waiting and removing.

use super::create::{WireResources, WireRestartPolicy};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request, blocking};
use gamut_engine::container::record::ContainerRecord;
use gamut_spec::signal;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// `POST /containers/{id}/start`
pub async fn start(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.start_container(caller, &name))
        .await?;
    Ok(reply::no_content())
}

/// Before this version, `stop` and `restart` take no signal.
const STOP_SIGNAL_SINCE: ApiVersion = ApiVersion(1, 42);

/// The signal that `stop` and `restart` begin with, instead of the container's own.
fn stop_signal_of(request: &Request) -> Result<Option<i32>, ApiError> {
    if request.version < STOP_SIGNAL_SINCE {
        return Ok(None);
    }
    signal_of(request)
}

fn signal_of(request: &Request) -> Result<Option<i32>, ApiError> {
    match request.text("signal") {
        None | Some("") => Ok(None),
        Some(text) => signal::parse(text)
            .map(Some)
            .ok_or_else(|| ApiError::invalid(format!("invalid signal: {text}"))),
    }
}

/// `POST /containers/{id}/stop`
pub async fn stop(request: Request, name: &str) -> Result<Response, ApiError> {
    let (signal, timeout) = (stop_signal_of(&request)?, request.number("t")?);
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.stop_container(caller, &name, signal, timeout))
        .await?;
    Ok(reply::no_content())
}

/// `POST /containers/{id}/restart`
pub async fn restart(request: Request, name: &str) -> Result<Response, ApiError> {
    let (signal, timeout) = (stop_signal_of(&request)?, request.number("t")?);
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.restart_container(caller, &name, signal, timeout))
        .await?;
    Ok(reply::no_content())
}

/// `POST /containers/{id}/kill`
pub async fn kill(request: Request, name: &str) -> Result<Response, ApiError> {
    let prefix = format!("cannot kill container: {name}: ");
    let signal = signal_of(&request)
        .map_err(|error| error.after(&prefix))?
        .unwrap_or(signal::KILL);
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.kill_container(caller, &name, signal))
        .await
        .map_err(|error| error.after(&prefix))?;
    Ok(reply::no_content())
}

/// `POST /containers/{id}/pause`
pub async fn pause(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.pause_container(caller, &name))
        .await?;
    Ok(reply::no_content())
}

/// `POST /containers/{id}/unpause`
pub async fn unpause(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.unpause_container(caller, &name))
        .await?;
    Ok(reply::no_content())
}

/// `POST /containers/{id}/rename`
pub async fn rename(request: Request, name: &str) -> Result<Response, ApiError> {
    let new_name = request.text("name").unwrap_or_default().to_owned();
    if new_name.is_empty() {
        return Err(ApiError::invalid("Neither old nor new names may be empty"));
    }
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.rename_container(caller, &name, &new_name))
        .await?;
    Ok(reply::no_content())
}

/// `POST /containers/{id}/resize`
pub async fn resize(request: Request, name: &str) -> Result<Response, ApiError> {
    let (rows, columns) = terminal_size(&request)?;
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.resize_container(caller, &name, rows, columns))
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// The parameters `h` and `w`.
pub fn terminal_size(request: &Request) -> Result<(u16, u16), ApiError> {
    let rows = request.number("h")?.unwrap_or(0);
    let columns = request.number("w")?.unwrap_or(0);
    Ok((rows, columns))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UpdateBody {
    #[serde(flatten)]
    resources: WireResources,
    restart_policy: Option<WireRestartPolicy>,
}

/// `POST /containers/{id}/update`
pub async fn update(mut request: Request, name: &str) -> Result<Response, ApiError> {
    let body: UpdateBody = request.json().await?.unwrap_or_default();
    let resources = body.resources.into_domain()?;
    let restart = match body.restart_policy {
        Some(policy) if !policy.name.is_empty() => Some(policy.into_domain()?),
        _ => None,
    };
    let name = name.to_owned();
    let warnings = request
        .blocking(move |engine, caller| engine.update_container(caller, &name, &resources, restart))
        .await?;
    Ok(reply::json(&json!({"Warnings": warnings})))
}

/// `DELETE /containers/{id}`
pub async fn remove(request: Request, name: &str) -> Result<Response, ApiError> {
    if request.flag("link") {
        let name = name.to_owned();
        request
            .blocking(move |engine, caller| engine.remove_link(caller, &name))
            .await?;
        return Ok(reply::no_content());
    }
    let (force, volumes) = (request.flag("force"), request.flag("v"));
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.remove_container(caller, &name, force, volumes))
        .await?;
    Ok(reply::no_content())
}

/// `POST /containers/prune`
pub async fn prune(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&["until", "label", "label!"])?;
    let until_ns = filters.until_ns()?;
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let pruned = blocking(&engine, &caller, move |engine, caller| {
        let wanted = |record: &ContainerRecord| {
            until_ns.is_none_or(|until| record.created_ns < until)
                && filters.match_labels(&record.spec.labels)
        };
        engine.prune_containers(caller, &wanted)
    })
    .await?;
    Ok(reply::json(&json!({
        "ContainersDeleted": pruned.removed,
        "SpaceReclaimed": pruned.reclaimed_bytes,
    })))
}

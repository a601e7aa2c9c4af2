//! Which handler answers which request.

use crate::containers::{
    archive, attach, changes, create, exec, inspect, lifecycle, list, logs, observe, wait,
};
use crate::error::ApiError;
use crate::reply::Response;
use crate::request::Request;
use crate::{
    builder, disk_usage, events, gamut, images, networks, plugins, registry, swarm, system, volumes,
};
use gamut_spec::error::ErrorKind;
use hyper::Method;

/// Finds the handler for a request and runs it.
///
/// # Errors
/// What the handler says; 404 for an unknown page.
pub async fn answer(request: Request) -> Result<Response, ApiError> {
    let method = request.method.clone();
    let owned = request.segments.clone();
    let path: Vec<&str> = owned.iter().map(String::as_str).collect();
    crate::authorization::check(&request, &path)?;
    if let Some(answer) = elsewhere(&request, &path) {
        return answer;
    }
    match method {
        Method::GET | Method::HEAD => get(request, &path).await,
        Method::POST => post(request, &path).await,
        Method::PUT => put(request, &path).await,
        Method::DELETE => delete(request, &path).await,
        Method::OPTIONS => Ok(crate::reply::empty(hyper::StatusCode::OK)),
        _ => Err(unknown()),
    }
}

/// The answers of what this engine is not, or does not do yet.
fn elsewhere(request: &Request, path: &[&str]) -> Option<Result<Response, ApiError>> {
    match path {
        ["build" | "session" | "grpc", ..]
        | ["containers", _, "checkpoints", ..]
        | ["images", .., "attestations"] => builder::answer(request, path),
        ["plugins", ..] => plugins::answer(request, path),
        [
            "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
            ..,
        ] => swarm::answer(&request.method, path, request.version).map(Err),
        _ => None,
    }
}

fn unknown() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "page not found")
}

async fn get(request: Request, path: &[&str]) -> Result<Response, ApiError> {
    match path {
        ["_ping"] => Ok(system::ping(&request)),
        ["version"] => system::version(&request).await,
        ["info"] => system::info(request).await,
        ["events"] => events::stream(&request),
        ["system", "df"] => disk_usage::disk_usage(request).await,
        ["containers", "json"] => list::list(request).await,
        ["containers", name, "json"] => inspect::inspect(request, name).await,
        // By the name of a link.
        ["containers", parent, alias, "json"] => {
            inspect::inspect(request, &format!("{parent}/{alias}")).await
        }
        ["containers", name, "logs"] => logs::logs(&request, name),
        ["containers", name, "top"] => observe::top(request, name).await,
        ["containers", name, "stats"] => observe::stats(request, name).await,
        ["containers", name, "attach", "ws"] => attach::websocket(request, name).await,
        ["containers", name, "archive"] if request.method == Method::HEAD => {
            archive::stat(request, name).await
        }
        ["containers", name, "archive"] => archive::get(request, name).await,
        ["containers", name, "changes"] => changes::changes(request, name).await,
        ["containers", name, "export"] => changes::export(&request, name),
        ["exec", id, "json"] => exec::inspect(&request, id),
        ["distribution", name @ .., "json"] => {
            registry::distribution(request, &name.join("/")).await
        }
        ["images", "search"] => registry::search(request).await,
        ["images", "json"] => images::list(request).await,
        ["images", "get"] => images::save(request, Vec::new()).await,
        ["images", name @ .., "json"] => images::inspect(request, &name.join("/")).await,
        ["images", name @ .., "history"] => images::history(request, &name.join("/")).await,
        ["images", name @ .., "get"] => images::save(request, vec![name.join("/")]).await,
        ["volumes"] => volumes::list(request).await,
        ["volumes", name] => volumes::inspect(request, name).await,
        ["networks"] => networks::list(&request),
        ["networks", name] => networks::inspect(&request, name),
        ["gamut", "v1", "dump"] => gamut::dump(request).await,
        ["gamut", "v1", "containers", name, "fingerprints"] => {
            gamut::fingerprints(request, name).await
        }
        ["gamut", "v1", "refusals"] => Ok(gamut::refusals(&request)),
        _ => Err(unknown()),
    }
}

async fn post(request: Request, path: &[&str]) -> Result<Response, ApiError> {
    match path {
        ["containers", "create"] => create::create(request).await,
        ["containers", "prune"] => lifecycle::prune(request).await,
        ["containers", name, "start"] => lifecycle::start(request, name).await,
        ["containers", name, "stop"] => lifecycle::stop(request, name).await,
        ["containers", name, "restart"] => lifecycle::restart(request, name).await,
        ["containers", name, "kill"] => lifecycle::kill(request, name).await,
        ["containers", name, "pause"] => lifecycle::pause(request, name).await,
        ["containers", name, "unpause"] => lifecycle::unpause(request, name).await,
        ["containers", name, "rename"] => lifecycle::rename(request, name).await,
        ["containers", name, "update"] => lifecycle::update(request, name).await,
        ["containers", name, "resize"] => lifecycle::resize(request, name).await,
        ["containers", name, "wait"] => wait::wait(request, name).await,
        ["containers", name, "attach"] => attach::attach(request, name).await,
        ["containers", name, "exec"] => exec::create(request, name).await,
        ["exec", id, "start"] => exec::start(request, id).await,
        ["exec", id, "resize"] => exec::resize(request, id).await,
        ["commit"] => changes::commit(request).await,
        ["images", "create"] => images::create(request).await,
        ["images", "load"] => images::load(request),
        ["images", "prune"] => images::prune(request).await,
        ["images", name @ .., "push"] => registry::push(request, &name.join("/")).await,
        ["images", name @ .., "tag"] => images::tag(request, &name.join("/")).await,
        ["volumes", "create"] => volumes::create(request).await,
        ["volumes", "prune"] => volumes::prune(request).await,
        ["networks", "create"] => networks::create(request).await,
        ["networks", "prune"] => networks::prune(request).await,
        ["networks", name, "connect"] => networks::connect(request, name).await,
        ["networks", name, "disconnect"] => networks::disconnect(request, name).await,
        ["auth"] => registry::login(request).await,
        ["gamut", "v1", "fsck"] => gamut::fsck(request).await,
        ["gamut", "v1", "unikernels"] => gamut::pack(request).await,
        ["gamut", "v1", "containers", name, "debug"] => gamut::debug(request, name).await,
        _ => Err(unknown()),
    }
}

async fn put(request: Request, path: &[&str]) -> Result<Response, ApiError> {
    match path {
        ["containers", name, "archive"] => archive::put(request, name).await,
        ["volumes", _] => Err(swarm::no_cluster_volumes()),
        _ => Err(unknown()),
    }
}

async fn delete(request: Request, path: &[&str]) -> Result<Response, ApiError> {
    match path {
        ["containers", name] => lifecycle::remove(request, name).await,
        ["containers", parent, alias] if request.flag("link") => {
            lifecycle::remove(request, &format!("{parent}/{alias}")).await
        }
        ["images", name @ ..] if !name.is_empty() => images::remove(request, &name.join("/")).await,
        ["volumes", name] => volumes::remove(request, name).await,
        ["networks", name] => networks::remove(request, name).await,
        _ => Err(unknown()),
    }
}

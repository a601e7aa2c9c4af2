//! Volumes.

use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_engine::Engine;
use gamut_engine::volume::VolumeRecord;
use gamut_spec::error::ErrorKind;
use gamut_spec::time;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A volume, as all answers tell of it.
pub fn describe(engine: &Engine, record: &VolumeRecord) -> Value {
    json!({
        "CreatedAt": time::rfc3339(record.created_ns - record.created_ns % 1_000_000_000),
        "Driver": "local",
        "Labels": record.labels,
        "Mountpoint": engine.volume_path(&record.name),
        "Name": record.name,
        "Options": record.options,
        "Scope": "local",
    })
}

/// `GET /volumes`
pub async fn list(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.flag("dangling")?;
    let volumes = request
        .blocking(move |engine, caller| {
            let wanted = |record: &VolumeRecord| {
                engine.may_use(caller, record.provenance.uid)
                    && filters.match_labels(&record.labels)
                    && filters.any("name", |name| record.name.contains(name.as_str()))
                    && filters.any("driver", |driver| driver == "local")
                    && dangling.is_none_or(|dangling| {
                        engine.volume_users(&record.name).is_empty() == dangling
                    })
            };
            let records = engine.volumes();
            Ok(records
                .iter()
                .filter(|record| wanted(record))
                .map(|record| describe(engine, record))
                .collect::<Vec<_>>())
        })
        .await?;
    Ok(reply::json(&json!({"Volumes": volumes, "Warnings": []})))
}

/// `GET /volumes/{name}`
pub async fn inspect(request: Request, name: &str) -> Result<Response, ApiError> {
    let record = request
        .engine
        .volume(name)
        .map_err(|_| ApiError::new(ErrorKind::NotFound, format!("get {name}: no such volume")))?;
    Ok(reply::json(&describe(&request.engine, &record)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateBody {
    #[serde(deserialize_with = "crate::containers::create::null_as_default")]
    name: String,
    #[serde(deserialize_with = "crate::containers::create::null_as_default")]
    driver: String,
    #[serde(deserialize_with = "crate::containers::create::null_as_default")]
    driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "crate::containers::create::null_as_default")]
    labels: BTreeMap<String, String>,
}

/// `POST /volumes/create`
pub async fn create(mut request: Request) -> Result<Response, ApiError> {
    let body: CreateBody = request.json().await?.unwrap_or_default();
    if !matches!(body.driver.as_str(), "" | "local") {
        return Err(ApiError::new(
            ErrorKind::NotFound,
            format!(
                "create {}: error looking up volume plugin {driver}: plugin \"{driver}\" not found",
                body.name,
                driver = body.driver
            ),
        ));
    }
    let value = request
        .blocking(move |engine, caller| {
            let name = Some(body.name.as_str()).filter(|name| !name.is_empty());
            let record = engine.create_volume(caller, name, body.driver_opts, body.labels)?;
            Ok(describe(engine, &record))
        })
        .await?;
    Ok(reply::created(&value))
}

/// `DELETE /volumes/{name}`
pub async fn remove(request: Request, name: &str) -> Result<Response, ApiError> {
    let force = request.flag("force");
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.remove_volume(caller, &name, force))
        .await?;
    Ok(reply::no_content())
}

/// `POST /volumes/prune`: anonymous ones; with the filter `all`, named ones too. Clients before
/// 1.42 mean all.
pub async fn prune(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&["label", "label!", "all"])?;
    let all = filters.flag("all")?.unwrap_or(false)
        || request.version < crate::request::ApiVersion(1, 42);
    let pruned = request
        .blocking(move |engine, caller| {
            engine.prune_volumes(caller, all, &|record| filters.match_labels(&record.labels))
        })
        .await?;
    Ok(reply::json(&json!({
        "VolumesDeleted": pruned.removed,
        "SpaceReclaimed": pruned.reclaimed_bytes,
    })))
}

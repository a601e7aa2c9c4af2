//! Diff, export and commit of containers.

use crate::body::{self, BodyWriter};
use crate::error::ApiError;
use crate::images::joined_reference;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_engine::files::changes::ChangeKind;
use gamut_engine::files::commit::CommitRequest;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;

/// `GET /containers/{id}/changes`
pub async fn changes(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    let changes = request
        .blocking(move |engine, _| engine.container_changes(&name))
        .await?;
    let list: Vec<Value> = changes
        .iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::Modified => 0,
                ChangeKind::Added => 1,
                ChangeKind::Deleted => 2,
            };
            json!({"Path": format!("/{}", String::from_utf8_lossy(&change.path)), "Kind": kind})
        })
        .collect();
    Ok(reply::json(&list))
}

/// `GET /containers/{id}/export`: a tar of all files.
pub fn export(request: &Request, name: &str) -> Result<Response, ApiError> {
    // Before the answer has begun, so that a missing container is a proper error.
    let id = request.engine.container(name)?.id;
    let engine = Arc::clone(&request.engine);
    let (sender, reply) = body::stream();
    tokio::task::spawn_blocking(move || {
        let mut writer = BodyWriter::new(sender);
        let sent = engine
            .export_container(&id, &mut writer)
            .map_err(|error| std::io::Error::other(error.full_message()))
            .and_then(|()| writer.flush());
        if let Err(error) = sent {
            tracing::warn!(%error, "an archive could not be sent");
            writer.fail(error);
        }
    });
    Ok(reply::with_type(reply, "application/octet-stream"))
}

/// `POST /commit`
pub async fn commit(mut request: Request) -> Result<Response, ApiError> {
    let text = |name: &str| request.text(name).unwrap_or_default().to_owned();
    let (container, repository, tag) = (text("container"), text("repo"), text("tag"));
    if container.is_empty() {
        return Err(ApiError::invalid(
            "the container to be committed is missing",
        ));
    }
    let reference = if repository.is_empty() {
        None
    } else {
        Some(joined_reference(&repository, &tag)?)
    };
    let mut wanted = CommitRequest {
        reference,
        author: text("author"),
        message: text("comment"),
        changes: request
            .texts("changes")
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect(),
        config: None,
        pause: request.flag_or("pause", true),
    };
    wanted.config = request.json::<Option<_>>().await?.flatten();
    let id = request
        .blocking(move |engine, caller| engine.commit_container(caller, &container, &wanted))
        .await?;
    Ok(reply::created(&json!({"Id": id})))
}

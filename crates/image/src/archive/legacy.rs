//! Archives of Docker before 1.10: `repositories`, and a directory with `json` and `layer.tar`
//! per layer. The configuration is put together from the layers'.
//!
//! Source: Docker's "Image Specification v1.0".

use std::collections::BTreeMap;

use gamut_spec::reference::Reference;
use serde::Deserialize;
use serde_json::{Value, json};

use super::load::Load;
use crate::error::{Error, Result};
use crate::manifest::{MAX_LAYERS, or_default};
use crate::store::incoming::Naming;

const OBJECT: &str = "image archive: repositories";

#[derive(Deserialize)]
struct LayerDocument {
    parent: Option<String>,
    created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    author: String,
    #[serde(default, deserialize_with = "or_default")]
    comment: String,
    architecture: Option<String>,
    os: Option<String>,
    config: Option<Value>,
    container_config: Option<ContainerConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfig {
    #[serde(default, deserialize_with = "or_default")]
    cmd: Vec<String>,
}

pub(super) fn load(load: &mut Load<'_>, repositories: &[u8]) -> Result<()> {
    let repositories: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(repositories)
            .map_err(|error| Error::malformed(OBJECT, error.to_string()))?;
    let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (repository, tags) in &repositories {
        for (tag, layer) in tags {
            let name = Reference::parse(&format!("{repository}:{tag}"))?;
            let names = images.entry(layer.clone()).or_default();
            names.push(crate::store::tag_name(&name)?);
        }
    }
    for (top, names) in images {
        image(load, &top, names)?;
    }
    Ok(())
}

fn image(load: &mut Load<'_>, top: &str, names: Vec<String>) -> Result<()> {
    let mut stack: Vec<(String, LayerDocument)> = Vec::new();
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        if stack.len() >= MAX_LAYERS {
            return Err(Error::TooLarge {
                object: format!("{OBJECT}: {top}"),
                limit: format!("{MAX_LAYERS} layers"),
            });
        }
        let path = format!("{id}/json");
        let document: LayerDocument = serde_json::from_slice(load.members.required(&path)?)
            .map_err(|error| {
                Error::malformed(format!("image archive: {path}"), error.to_string())
            })?;
        next = document.parent.clone().filter(|parent| !parent.is_empty());
        stack.push((id, document));
    }
    stack.reverse();
    let mut diff_ids = Vec::new();
    let mut history = Vec::new();
    for (id, document) in &stack {
        let taken =
            load.members
                .take_layer(load.store, &mut load.incoming, &format!("{id}/layer.tar"))?;
        diff_ids.push(taken.diff_id.to_string());
        let created_by = document
            .container_config
            .as_ref()
            .map(|config| config.cmd.join(" "))
            .unwrap_or_default();
        history.push(json!({
            "created": document.created,
            "created_by": created_by,
            "author": document.author,
            "comment": document.comment,
        }));
    }
    let Some((_, last)) = stack.last() else {
        return Err(Error::malformed(OBJECT, "an image has no layers"));
    };
    let config = json!({
        "architecture": last.architecture.as_deref().unwrap_or("amd64"),
        "os": last.os.as_deref().unwrap_or("linux"),
        "created": last.created,
        "author": last.author,
        "config": last.config.clone().unwrap_or_else(|| json!({})),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    let bytes = serde_json::to_vec(&config).unwrap_or_default();
    let naming = Naming {
        names,
        ..Naming::default()
    };
    load.add(&bytes, naming).map(|_| ())
}

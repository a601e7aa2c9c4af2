//! Image archives made in memory out of single programs: the same bytes for the same content.
//!
//! Such an archive is an OCI image layout that is also a docker-archive, as `docker save` writes
//! them. Of several forms under one name, clients that know no forms see the first.

use std::io;

use gamut_spec::form::ImageForm;
use serde_json::{Value, json};

use crate::config::ExecutionConfig;
use crate::digest::Digest;
use crate::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use crate::platform::Platform;
use crate::tar::{Entry, Kind, Writer};

/// The moment of everything in such images: reproducible builds have no other.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// One form of an image.
#[derive(Debug)]
pub(crate) struct Form {
    platform: Platform,
    configuration: Vec<u8>,
    layer: Vec<u8>,
    manifest: Vec<u8>,
}

impl Form {
    /// An image of one layer, a plain tar; `steps` say how it was made, the first one made the
    /// layer.
    pub(crate) fn new(
        form: ImageForm,
        config: &ExecutionConfig,
        layer: Vec<u8>,
        steps: &[String],
        comment: &str,
    ) -> io::Result<Self> {
        let platform = Platform::host_of(form);
        let mut history: Vec<Value> = steps
            .iter()
            .map(|step| json!({ "created": CREATED, "created_by": step, "empty_layer": true }))
            .collect();
        if let Some(Value::Object(first)) = history.first_mut() {
            first.remove("empty_layer");
            first.insert("comment".to_owned(), json!(comment));
        }
        let mut document = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "created": CREATED,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
            "history": history,
        });
        if let Some(fields) = document.as_object_mut() {
            if let Some(variant) = &platform.variant {
                fields.insert("variant".to_owned(), json!(variant));
            }
            if !platform.features.is_empty() {
                fields.insert("os.features".to_owned(), json!(platform.features));
            }
        }
        let configuration = to_bytes(&document)?;
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": Digest::of(&configuration),
                "size": configuration.len(),
            },
            "layers": [{
                "mediaType": OCI_LAYER,
                "digest": Digest::of(&layer),
                "size": layer.len(),
            }],
        }))?;
        Ok(Self {
            platform,
            configuration,
            layer,
            manifest,
        })
    }
}

/// The archive of forms under one name (canonical, with a tag), or without one.
pub(crate) fn archive(name: Option<(&str, &str)>, forms: &[Form]) -> io::Result<Vec<u8>> {
    let manifests: Vec<Value> = forms
        .iter()
        .map(|form| {
            let mut entry = json!({
                "mediaType": OCI_MANIFEST,
                "digest": Digest::of(&form.manifest),
                "size": form.manifest.len(),
                "platform": form.platform,
            });
            if let (Some((canonical, _)), Some(fields)) = (name, entry.as_object_mut()) {
                let tag = canonical.rsplit(':').next().unwrap_or_default();
                fields.insert(
                    "annotations".to_owned(),
                    json!({
                        crate::archive::CONTAINERD_NAME: canonical,
                        crate::archive::REF_NAME: tag,
                    }),
                );
            }
            entry
        })
        .collect();
    let index = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": manifests,
    }))?;
    let docker_manifest: Vec<Value> = forms
        .iter()
        .take(1)
        .map(|form| {
            json!({
                "Config": blob_name(&form.configuration),
                "RepoTags": name.map(|(_, familiar)| familiar).into_iter().collect::<Vec<_>>(),
                "Layers": [blob_name(&form.layer)],
            })
        })
        .collect();
    let mut writer = Writer::new(Vec::new());
    for directory in ["blobs/", "blobs/sha256/"] {
        writer.append(&Entry::new(directory, Kind::Directory, 0o755), &[])?;
    }
    for form in forms {
        for blob in [&form.configuration, &form.layer, &form.manifest] {
            writer.append(&Entry::new(blob_name(blob), Kind::File, 0o644), blob)?;
        }
    }
    for (name, content) in [
        ("index.json", index),
        ("manifest.json", to_bytes(&json!(docker_manifest))?),
        (
            "oci-layout",
            to_bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?,
        ),
    ] {
        writer.append(&Entry::new(name, Kind::File, 0o644), &content)?;
    }
    writer.finish()
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes).hex())
}

fn to_bytes(value: &Value) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

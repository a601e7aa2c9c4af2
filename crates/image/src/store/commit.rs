//! Images made of an image and what a container changed.

use std::io::{self, Write};

use gamut_spec::reference::Reference;
use gamut_spec::time;
use serde_json::{Value, json};

use super::make::NewImage;
use super::{Image, ImageStore};
use crate::config::{ExecutionConfig, History};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pipeline::LayerWriter;

/// What a new image says of itself.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// How it is run: the container's own configuration.
    pub config: ExecutionConfig,
    /// Edits of that as Dockerfile instructions, in order.
    pub changes: Vec<String>,
    /// Who made it; the base's author if empty.
    pub author: String,
    /// Why.
    pub message: String,
    /// The command that made the changes.
    pub created_by: String,
}

impl ImageStore {
    /// Makes an image of `base` and a layer that `write_layer` writes as a tar archive of changes
    /// (with whiteouts), saying whether there are any; without, the image has `base`'s layers.
    /// Returns its id.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a wrong change, before anything is written; [`Error::Read`] if
    /// `write_layer` fails; [`Error::Layer`], [`Error::Io`]. Nothing is kept then.
    pub fn commit(
        &self,
        base: &Image,
        name: Option<&Reference>,
        options: &CommitOptions,
        write_layer: &mut dyn FnMut(&mut dyn Write) -> io::Result<bool>,
    ) -> Result<String> {
        let config = options.config.clone();
        let mut image = NewImage::begin(self, "commit", name, config, &options.changes)?;
        image.incoming.parent = Some(base.digest);
        for layer in &base.record.layers {
            if !image.incoming.reuse_layer(&layer.diff_id) {
                return Err(Error::malformed(
                    format!("image {}", base.id),
                    format!(
                        "blob {} of a layer is missing; pull or load the image again",
                        layer.blob
                    ),
                ));
            }
        }
        let mut target = Target {
            writer: LayerWriter::new(&self.layout, "changes of the container"),
            failure: None,
        };
        let written = write_layer(&mut target);
        if let Some(failure) = target.failure {
            return Err(failure);
        }
        let has_changes = written.map_err(|source| Error::Read {
            what: "the changes of the container".to_owned(),
            source,
        })?;
        // Without changes the writer is given up, and with it what it wrote.
        let diff_id = if has_changes {
            Some(image.add_layer(target.writer)?)
        } else {
            None
        };
        let document = document(base, &image.config, options, diff_id.as_ref())?;
        image.keep(&document)
    }
}

/// The new configuration: the base's, unknown fields included, with a further step.
fn document(
    base: &Image,
    config: &ExecutionConfig,
    options: &CommitOptions,
    diff_id: Option<&Digest>,
) -> Result<Vec<u8>> {
    let created = time::rfc3339(time::now_ns());
    let author = if options.author.is_empty() {
        &base.config.author
    } else {
        &options.author
    };
    let step = History {
        created: Some(created.clone()),
        created_by: options.created_by.clone(),
        author: options.author.clone(),
        comment: options.message.clone(),
        empty_layer: diff_id.is_none(),
    };
    let diff_ids: Vec<&Digest> = base.config.diff_ids.iter().chain(diff_id).collect();
    let history: Vec<&History> = base.config.history.iter().chain([&step]).collect();
    let mut document = base.config.raw.clone();
    let fields = document.as_object_mut().ok_or_else(|| {
        Error::malformed(
            format!("image {}", base.id),
            "its configuration is no object",
        )
    })?;
    for (name, value) in [
        ("architecture", json!(base.config.platform.architecture)),
        ("os", json!(base.config.platform.os)),
        ("created", json!(created)),
        ("config", json!(config)),
        ("rootfs", json!({ "type": "layers", "diff_ids": diff_ids })),
        ("history", json!(history)),
    ] {
        fields.insert(name.to_owned(), value);
    }
    if author.is_empty() {
        fields.remove("author");
    } else {
        fields.insert("author".to_owned(), json!(author));
    }
    // What the base's own making left behind.
    for stale in [
        "container",
        "container_config",
        "docker_version",
        "id",
        "parent",
    ] {
        fields.remove(stale);
    }
    serde_json::to_vec(&Value::Object(fields.clone()))
        .map_err(|error| Error::malformed("configuration", error.to_string()))
}

/// Passes a tar archive on, and keeps why that failed.
struct Target {
    writer: LayerWriter,
    failure: Option<Error>,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the layer cannot be stored"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

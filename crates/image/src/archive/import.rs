//! `import`: a file system archive becomes an image of one layer.

use std::io::{BufReader, Read};

use gamut_spec::reference::Reference;
use gamut_spec::time;
use serde_json::json;

use crate::config::ExecutionConfig;
use crate::error::Result;
use crate::pipeline::LayerWriter;
use crate::platform::Platform;
use crate::store::ImageStore;
use crate::store::make::NewImage;

const BUFFER_BYTES: usize = 256 << 10;

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Dockerfile instructions that edit the configuration: `CMD ["sh"]`, `ENV A=b`, ...
    pub changes: Vec<String>,
    /// The comment of the image's only step; `Imported from -` if empty.
    pub message: String,
    /// What the file system is for; the host's platform by default.
    pub platform: Platform,
}

impl ImageStore {
    /// Makes an image of one layer out of a tar archive of a file system (plain, gzip or zstd).
    /// Returns its id.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] for a wrong change, before anything is read;
    /// [`crate::Error::Layer`], [`crate::Error::Read`], [`crate::Error::Io`].
    pub fn import(
        &self,
        reader: impl Read,
        name: Option<&Reference>,
        options: &ImportOptions,
    ) -> Result<String> {
        let config = ExecutionConfig::default();
        let mut image = NewImage::begin(self, "import", name, config, &options.changes)?;
        let mut writer = LayerWriter::new(&self.layout, "imported archive");
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        writer.copy_from(&mut reader, &mut |_| Ok(()))?;
        let diff_id = image.add_layer(writer)?;
        let created = time::rfc3339(time::now_ns());
        let comment = if options.message.is_empty() {
            "Imported from -"
        } else {
            &options.message
        };
        let mut document = json!({
            "architecture": options.platform.architecture,
            "os": options.platform.os,
            "created": created,
            "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created": created, "comment": comment }],
        });
        if let (Some(variant), Some(fields)) = (&options.platform.variant, document.as_object_mut())
        {
            fields.insert("variant".to_owned(), json!(variant));
        }
        let bytes = serde_json::to_vec(&document).unwrap_or_default();
        image.keep(&bytes)
    }
}

//! What a registry says of an image, without pulling it.

use gamut_spec::reference::Reference;

use super::{PullOptions, sources::Sources};
use crate::config::ImageConfiguration;
use crate::error::Result;
use crate::manifest::{Descriptor, ManifestDocument, parse_manifest_document};
use crate::platform::Platform;
use crate::progress::NoProgress;

/// What a registry says of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Points to the manifest or index.
    pub descriptor: Descriptor,
    /// What it runs on; of an index, every choice.
    pub platforms: Vec<Platform>,
}

impl Distribution {
    /// Asks the registry (or a mirror of it) of the reference.
    ///
    /// # Errors
    /// Those of [`crate::ImageStore::pull`].
    pub fn inspect(reference: &Reference, options: &PullOptions) -> Result<Self> {
        let sources = Sources::new(reference, options)?;
        let object = reference.familiar();
        let wanted = reference.digest().or(reference.tag()).unwrap_or("latest");
        let raw = sources.manifest(wanted, &NoProgress)?;
        let document = parse_manifest_document(&raw.bytes, &raw.media_type, &object)?;
        let (told, platforms) = match document {
            ManifestDocument::Index(index) => {
                let platforms = index
                    .manifests
                    .iter()
                    .filter_map(|entry| entry.platform.clone())
                    .collect();
                (index.media_type, platforms)
            }
            ManifestDocument::Manifest(manifest) => {
                let (digest, size_bytes) = (manifest.config.digest, manifest.config.size_bytes);
                let config =
                    sources.small_blob(&digest, size_bytes, "configuration", &NoProgress)?;
                let platform = ImageConfiguration::parse(&config, &object)?.platform;
                (manifest.media_type, vec![platform])
            }
        };
        let media_type = if told.is_empty() {
            raw.media_type.split(';').next().unwrap_or_default().trim()
        } else {
            &told
        };
        let size_bytes = raw.bytes.len() as u64;
        Ok(Self {
            descriptor: Descriptor::new(media_type, raw.digest, size_bytes),
            platforms,
        })
    }
}

//! Images in archives: `load`, `save`, `import`.

pub(crate) mod import;
mod legacy;
mod load;
mod members;
mod save;

use serde::{Deserialize, Serialize};

use crate::manifest::or_default;
pub(crate) use load::{CONTAINERD_NAME, REF_NAME};

/// An entry of `manifest.json` in a `docker save` archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

//! `references.json`: which images there are, and what they are called.

use std::collections::{BTreeMap, BTreeSet};

use gamut_spec::reference::Reference;
use serde::{Deserialize, Serialize};

use crate::compression::Compression;
use crate::digest::{Digest, chain_ids};
use crate::error::{Error, Result};

/// The version of the file's format. 2 has recipes of layers, which older builds would take for
/// archives, and names with two forms.
const VERSION: u32 = 2;
/// The oldest version that is read; it is written anew with the next change.
const OLDEST_VERSION: u32 = 1;

/// The content of `references.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Records {
    version: u32,
    /// Image id (digest of the configuration) → image.
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    /// Canonical name with tag → image id.
    pub(crate) names: BTreeMap<String, Digest>,
    /// Canonical name with the digest of a manifest or index → image id.
    pub(crate) digests: BTreeMap<String, Digest>,
    /// Name or digest that means an image for Linux → the image that is its unikernel form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unikernels: BTreeMap<String, Digest>,
}

/// What the store knows of an image beyond its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// The layers, bottom first.
    pub(crate) layers: Vec<LayerRecord>,
    /// The manifest it was pulled or loaded by; kept as a blob.
    pub(crate) manifest: Option<Digest>,
    /// Documents kept with it: the indexes it was chosen from, manifests that refer to it (OCI
    /// referrers) and the blobs that those name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) further: Vec<Digest>,
    /// When it came, ns since the epoch.
    pub(crate) added_ns: u64,
    /// When it got its latest name, ns since the epoch; 0 for never.
    #[serde(default)]
    pub(crate) last_tagged_ns: u64,
    /// How it came: `pull`, `load`, `import`, `built-in`.
    pub(crate) origin: String,
    /// The image it was made from here by a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Digest>,
}

/// One layer of an image, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Digest of the plain tar.
    pub(crate) diff_id: Digest,
    /// Length of the plain tar in bytes.
    pub(crate) diff_bytes: u64,
    /// Digest of the blob as stored.
    pub(crate) blob: Digest,
    /// Length of the blob as stored.
    pub(crate) blob_bytes: u64,
    /// How the blob is compressed.
    pub(crate) compression: Compression,
    /// The blob is not the archive but a recipe: how to put it together from the unpacked files
    /// ([`crate::assembly`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_recipe: bool,
    /// Bytes of the files unpacked.
    pub(crate) unpacked_bytes: u64,
    /// The blob was damaged and has been removed; the image still runs from the unpacked layer.
    /// Pulling or loading the image again brings the blob back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lost: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            version: VERSION,
            images: BTreeMap::new(),
            names: BTreeMap::new(),
            digests: BTreeMap::new(),
            unikernels: BTreeMap::new(),
        }
    }
}

impl LayerRecord {
    /// Whether the archive with that digest is to be had without changing how it is compressed:
    /// plain, or as it is stored.
    pub(crate) fn gives(&self, digest: &Digest) -> bool {
        *digest == self.diff_id || (*digest == self.blob && !self.is_recipe)
    }
}

impl ImageRecord {
    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    pub(crate) fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.diff_ids())
    }

    pub(crate) fn unpacked_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked_bytes).sum()
    }

    /// Every blob the image needs; `id` is its own.
    pub(crate) fn blobs(&self, id: Digest) -> impl Iterator<Item = Digest> + '_ {
        [Some(id), self.manifest]
            .into_iter()
            .flatten()
            .chain(self.further.iter().copied())
            .chain(self.layers.iter().map(|layer| layer.blob))
    }
}

impl Records {
    /// Parses the file.
    pub(crate) fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        let mut records: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::malformed(object, format!("damaged: {error}")))?;
        if !(OLDEST_VERSION..=VERSION).contains(&records.version) {
            return Err(Error::Unsupported {
                object: object.to_owned(),
                reason: format!(
                    "its version is {}, this build reads up to version {VERSION}; use the build that wrote it",
                    records.version
                ),
            });
        }
        records.version = VERSION;
        Ok(records)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Every blob that an image needs.
    pub(crate) fn live_blobs(&self) -> BTreeSet<Digest> {
        self.images
            .iter()
            .flat_map(|(id, image)| image.blobs(*id))
            .collect()
    }

    /// Every layer (by chain id) that an image needs.
    pub(crate) fn live_chains(&self) -> BTreeSet<Digest> {
        self.images
            .values()
            .flat_map(ImageRecord::chain_ids)
            .collect()
    }

    /// A layer with that diff id, however stored; rather one that needs no unpacked files.
    pub(crate) fn layer_by_diff_id(&self, diff_id: &Digest) -> Option<&LayerRecord> {
        self.all_layers()
            .filter(|layer| !layer.lost && layer.diff_id == *diff_id)
            .min_by_key(|layer| layer.is_recipe)
    }

    /// A layer stored as that archive.
    pub(crate) fn layer_by_blob(&self, blob: &Digest) -> Option<&LayerRecord> {
        self.all_layers()
            .find(|layer| !layer.lost && !layer.is_recipe && layer.blob == *blob)
    }

    /// Where (by chain id) the layer with that diff id is unpacked, as far as images tell.
    pub(crate) fn chains_of(&self, diff_id: &Digest) -> BTreeSet<Digest> {
        self.images
            .values()
            .flat_map(|image| image.layers.iter().zip(image.chain_ids()))
            .filter(|(layer, _)| layer.diff_id == *diff_id)
            .map(|(_, chain)| chain)
            .collect()
    }

    fn all_layers(&self) -> impl Iterator<Item = &LayerRecord> {
        self.images.values().flat_map(|image| &image.layers)
    }

    /// Gives an image, and its unikernel form if it has one, a name with a tag, taking it from
    /// another image where need be.
    pub(crate) fn set_name(
        &mut self,
        name: String,
        id: Digest,
        unikernel: Option<Digest>,
        now_ns: u64,
    ) {
        self.set_unikernel(&name, unikernel);
        self.names.insert(name, id);
        for id in [Some(id), unikernel].into_iter().flatten() {
            if let Some(image) = self.images.get_mut(&id) {
                image.last_tagged_ns = now_ns;
            }
        }
    }

    /// Makes a digest of a manifest or index mean an image, and its unikernel form if it has one.
    pub(crate) fn set_digest(&mut self, name: String, id: Digest, unikernel: Option<Digest>) {
        self.set_unikernel(&name, unikernel);
        self.digests.insert(name, id);
    }

    fn set_unikernel(&mut self, name: &str, unikernel: Option<Digest>) {
        match unikernel {
            Some(unikernel) => {
                self.unikernels.insert(name.to_owned(), unikernel);
            }
            None => {
                self.unikernels.remove(name);
            }
        }
    }

    /// The image that one was made from, if it is there.
    pub(crate) fn parent_of(&self, image: &ImageRecord) -> Option<Digest> {
        image
            .parent
            .filter(|parent| self.images.contains_key(parent))
    }

    /// Names and digests of another image whose unikernel form this one is, canonical, sorted.
    pub(crate) fn unikernel_names_of(&self, id: &Digest) -> Vec<String> {
        keys_of(&self.unikernels, id)
    }

    /// Whether any name or digest leads to an image.
    pub(crate) fn is_named(&self, id: &Digest) -> bool {
        let mut named = self.names.values().chain(self.unikernels.values());
        named.any(|named| named == id)
    }

    /// The names of an image, canonical, sorted.
    pub(crate) fn names_of(&self, id: &Digest) -> Vec<String> {
        keys_of(&self.names, id)
    }

    /// The digests by which an image is known, canonical, sorted.
    pub(crate) fn digests_of(&self, id: &Digest) -> Vec<String> {
        keys_of(&self.digests, id)
    }

    /// Removes names and digests of images that are not there. Tells which.
    pub(crate) fn drop_dangling(&mut self) -> Vec<String> {
        let Self {
            images,
            names,
            digests,
            unikernels,
            ..
        } = self;
        let mut dropped = Vec::new();
        for map in [&mut *names, &mut *digests] {
            map.retain(|name, id| {
                let keep = images.contains_key(id);
                if !keep {
                    dropped.push(name.clone());
                }
                keep
            });
        }
        unikernels.retain(|name, id| {
            images.contains_key(id) && (names.contains_key(name) || digests.contains_key(name))
        });
        dropped
    }
}

fn keys_of(map: &BTreeMap<String, Digest>, id: &Digest) -> Vec<String> {
    map.iter()
        .filter(|(_, target)| *target == id)
        .map(|(name, _)| name.clone())
        .collect()
}

/// The way people write a canonical name.
pub(crate) fn familiar(canonical: &str) -> String {
    Reference::parse(canonical).map_or_else(|_| canonical.to_owned(), |name| name.familiar())
}

/// Registry and repository of a canonical name.
pub(crate) fn repository_of(canonical: &str) -> String {
    Reference::parse(canonical).map_or_else(
        |_| canonical.to_owned(),
        |name| format!("{}/{}", name.registry(), name.repository()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip() {
        let id = Digest::of(b"config");
        let mut records = Records::default();
        records.images.insert(
            id,
            ImageRecord {
                layers: vec![LayerRecord {
                    diff_id: Digest::of(b"diff"),
                    diff_bytes: 4,
                    blob: Digest::of(b"blob"),
                    blob_bytes: 4,
                    compression: Compression::Gzip,
                    is_recipe: true,
                    unpacked_bytes: 9,
                    lost: false,
                }],
                manifest: None,
                further: vec![Digest::of(b"index")],
                added_ns: 1,
                last_tagged_ns: 0,
                origin: "load".to_owned(),
                parent: Some(Digest::of(b"parent")),
            },
        );
        records.set_name("docker.io/library/a:latest".to_owned(), id, None, 5);
        let again = Records::parse(&records.to_bytes(), "x").unwrap();
        assert_eq!(again, records);
        records.set_name("docker.io/library/b:latest".to_owned(), id, Some(id), 5);
        let again = Records::parse(&records.to_bytes(), "x").unwrap();
        assert_eq!(again, records);
        assert_eq!(again.images[&id].last_tagged_ns, 5);
        assert_eq!(again.live_blobs().len(), 3);
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        let future = br#"{"version":3,"images":{},"names":{},"digests":{}}"#;
        assert!(
            Records::parse(future, "x")
                .unwrap_err()
                .to_string()
                .contains("version is 3")
        );
        // The version before is read, and written as this one.
        let before = br#"{"version":1,"images":{},"names":{},"digests":{}}"#;
        assert_eq!(Records::parse(before, "x").unwrap(), Records::default());
        assert!(
            Records::parse(b"{", "x")
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }

    #[test]
    fn names_without_image_are_dropped() {
        let mut records = Records::default();
        records
            .names
            .insert("docker.io/library/a:1".to_owned(), Digest::of(b"gone"));
        assert_eq!(records.drop_dangling(), ["docker.io/library/a:1"]);
        assert!(records.names.is_empty());
    }
}

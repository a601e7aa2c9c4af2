//! Manifests and indexes: parsing and choosing, without I/O.
//!
//! Sources: OCI image-spec 1.1 (manifest.md, image-index.md), Docker's "Image Manifest V2,
//! Schema 2".

use std::collections::BTreeMap;

use gamut_spec::form::ImageForm;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// Manifests and indexes beyond this are refused, as the distribution-spec recommends.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// Configurations beyond this are refused.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;
/// More layers than this are refused; overlayfs stacks up to 500.
pub(crate) const MAX_LAYERS: usize = 500;
/// A single layer blob beyond this is refused.
pub(crate) const MAX_LAYER_BLOB_BYTES: u64 = 256 * 1024 * 1024 * 1024;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Points to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The format of the blob.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// The platform, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What sort of artifact it is, if it is no image (OCI image-spec 1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes of the one who made it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Points to a blob; nothing more is said of it.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size_bytes: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size_bytes,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A manifest: one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type.
    #[serde(default)]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
}

/// An index (Docker: manifest list): one image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own media type.
    #[serde(default)]
    pub media_type: String,
    /// The manifests (or further indexes).
    #[serde(deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
}

/// What a manifest request can bring.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one of each is made per request, and taken apart at once"
)]
pub enum ManifestDocument {
    /// One image.
    Manifest(Manifest),
    /// A choice of images.
    Index(Index),
}

/// Takes an explicit `null` for the default value, as Go does.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Parses a manifest or index. `object` names it in errors; `media_type` is what the registry or
/// descriptor says it is, or empty. A document that contradicts its media type, or could be read
/// as both, is refused (CVE-2021-41190).
///
/// # Errors
/// [`Error::Malformed`], [`Error::TooLarge`], or [`Error::Unsupported`] for schema 1 and
/// non-images.
pub fn parse_manifest_document(
    bytes: &[u8],
    media_type: &str,
    object: &str,
) -> Result<ManifestDocument> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        schema_version: Option<u32>,
        media_type: Option<String>,
        config: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
        fs_layers: Option<serde::de::IgnoredAny>,
    }
    let malformed = |reason: String| Error::malformed(object, reason);
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(Error::TooLarge {
            object: object.to_owned(),
            limit: "4 MiB for a manifest".to_owned(),
        });
    }
    let outline: Outline = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("not a manifest: {error}")))?;
    if outline.schema_version == Some(1) || outline.fs_layers.is_some() {
        return Err(Error::Unsupported {
            object: object.to_owned(),
            reason: "it is a Docker schema 1 manifest, a format retired in 2017; push the image \
                     again with a current tool (for example: skopeo copy --format v2s2)"
                .to_owned(),
        });
    }
    if outline.schema_version != Some(2) {
        return Err(malformed(
            "not a manifest: schemaVersion is not 2".to_owned(),
        ));
    }
    let has_image = outline.config.is_some() || outline.layers.is_some();
    let is_index = match (has_image, outline.manifests.is_some()) {
        (true, false) => false,
        (false, true) => true,
        (true, true) => {
            return Err(malformed(
                "ambiguous: it has both layers and manifests".to_owned(),
            ));
        }
        (false, false) => return Err(malformed("neither a manifest nor an index".to_owned())),
    };
    for said in [Some(media_type), outline.media_type.as_deref()]
        .into_iter()
        .flatten()
    {
        let contradicts = match said.split(';').next().unwrap_or_default().trim() {
            OCI_INDEX | DOCKER_LIST => !is_index,
            OCI_MANIFEST | DOCKER_MANIFEST => is_index,
            _ => false,
        };
        if contradicts {
            return Err(malformed(format!(
                "its content contradicts its media type {said:?}"
            )));
        }
    }
    if is_index {
        return serde_json::from_slice(bytes)
            .map(ManifestDocument::Index)
            .map_err(|error| malformed(format!("not an index: {error}")));
    }
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| malformed(format!("not a manifest: {error}")))?;
    check(&manifest, object)?;
    Ok(ManifestDocument::Manifest(manifest))
}

fn check(manifest: &Manifest, object: &str) -> Result<()> {
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Error::TooLarge {
            object: format!("{object} ({} layers)", manifest.layers.len()),
            limit: format!("{MAX_LAYERS} layers"),
        });
    }
    if manifest.config.size_bytes > MAX_CONFIG_BYTES {
        return Err(Error::TooLarge {
            object: format!("{object}: configuration"),
            limit: "8 MiB for a configuration".to_owned(),
        });
    }
    for layer in &manifest.layers {
        if layer.size_bytes > MAX_LAYER_BLOB_BYTES {
            return Err(Error::TooLarge {
                object: format!("{object}: layer {}", layer.digest),
                limit: "256 GiB for a layer".to_owned(),
            });
        }
        if layer.media_type.contains("encrypted") {
            return Err(Error::Unsupported {
                object: format!("{object}: layer {}", layer.digest),
                reason: "encrypted layers are not supported".to_owned(),
            });
        }
    }
    let kind = &manifest.config.media_type;
    let is_image = kind.is_empty()
        || kind.starts_with("application/vnd.oci.image.config.")
        || kind.starts_with("application/vnd.docker.container.image.")
        || kind == "application/octet-stream";
    if !is_image {
        return Err(Error::Unsupported {
            object: object.to_owned(),
            reason: format!("it is not an image: its configuration is of type {kind:?}"),
        });
    }
    Ok(())
}

impl Index {
    /// The entry with the unikernel form of the image for this machine, if there is one.
    #[must_use]
    pub fn unikernel(&self) -> Option<&Descriptor> {
        let wanted = Platform::host_unikernel();
        self.manifests.iter().find(|entry| {
            let offered = entry.platform.as_ref().map(Platform::normalized);
            offered.is_some_and(|offered| wanted.distance(&offered).is_some())
        })
    }

    /// The entry that fits `wanted` best, and that of the image's unikernel form where that is
    /// another. An index of nothing but unikernels has only the one.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn choose_forms(
        &self,
        wanted: &Platform,
        object: &str,
    ) -> Result<(&Descriptor, Option<&Descriptor>)> {
        let unikernel = self
            .unikernel()
            .filter(|_| wanted.form() == ImageForm::Linux);
        match (self.choose(wanted, object), unikernel) {
            (Ok(chosen), unikernel) => Ok((chosen, unikernel)),
            (Err(_), Some(unikernel)) if wanted.distance(&Platform::host()).is_some() => {
                Ok((unikernel, None))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The entry that fits `wanted` best.
    ///
    /// # Errors
    /// [`Error::NoMatchingPlatform`] with what there is.
    pub fn choose(&self, wanted: &Platform, object: &str) -> Result<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        let mut available = Vec::new();
        for entry in &self.manifests {
            let Some(raw) = &entry.platform else {
                continue;
            };
            let offered = raw.normalized();
            if raw.os == "unknown" {
                continue; // attestations
            }
            if let Some(distance) = wanted.distance(&offered)
                && best.is_none_or(|(least, _)| distance < least)
            {
                best = Some((distance, entry));
            }
            let text = offered.to_string();
            if !available.contains(&text) {
                available.push(text);
            }
        }
        if let Some((_, entry)) = best {
            return Ok(entry);
        }
        // An index without platforms and with one entry leaves no choice.
        if let ([only], true) = (self.manifests.as_slice(), available.is_empty())
            && only.platform.is_none()
        {
            return Ok(only);
        }
        available.truncate(32);
        Err(Error::NoMatchingPlatform {
            name: object.to_owned(),
            wanted: wanted.to_string(),
            available: if available.is_empty() {
                "none".to_owned()
            } else {
                available.join(", ")
            },
        })
    }
}

/// Feeds hostile bytes to the parsers of manifests and indexes.
pub fn fuzz_manifest(data: &[u8]) {
    for media_type in ["", OCI_MANIFEST, DOCKER_LIST] {
        if let Ok(ManifestDocument::Index(index)) =
            parse_manifest_document(data, media_type, "fuzz")
        {
            let _ = index.choose_forms(&Platform::host(), "fuzz");
        }
    }
    let _ = crate::referrers::Referrer::parse(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Index {
        Index {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests: platforms
                .iter()
                .enumerate()
                .map(|(number, (os, architecture, variant))| Descriptor {
                    media_type: OCI_MANIFEST.to_owned(),
                    digest: Digest::of(number.to_string().as_bytes()),
                    size_bytes: 1,
                    platform: Some(Platform {
                        os: (*os).to_owned(),
                        architecture: (*architecture).to_owned(),
                        variant: variant.map(str::to_owned),
                        features: Vec::new(),
                    }),
                    artifact_type: None,
                    annotations: BTreeMap::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn the_best_variant_is_chosen() {
        let index = index(&[
            ("unknown", "unknown", None),
            ("linux", "arm", Some("v5")),
            ("linux", "arm", Some("v7")),
            ("linux", "amd64", None),
            ("windows", "amd64", None),
        ]);
        let choose = |text: &str| {
            index
                .choose(&text.parse().unwrap(), "x")
                .map(|entry| entry.digest)
        };
        assert_eq!(choose("linux/arm/v7").unwrap(), Digest::of(b"2"));
        assert_eq!(choose("linux/arm/v6").unwrap(), Digest::of(b"1"));
        assert_eq!(choose("linux/amd64").unwrap(), Digest::of(b"3"));
        let error = choose("linux/s390x").unwrap_err().to_string();
        assert!(
            error.contains("linux/arm/v5, linux/arm/v7, linux/amd64, windows/amd64"),
            "{error}"
        );
    }

    #[test]
    fn hostile_documents_are_refused() {
        let layer = format!(r#"{{"digest":"{DIGEST}","size":1}}"#);
        let many = vec![layer.clone(); 600].join(",");
        for (text, media_type, expected) in [
            ("", "", "not a manifest"),
            ("{}", "", "schemaVersion"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "", "schema 1"),
            (r#"{"schemaVersion":2}"#, "", "neither"),
            (
                r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
                "",
                "ambiguous",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#,
                OCI_MANIFEST,
                "contradicts",
            ),
            (
                r#"{"schemaVersion":2,"layers":[],"config":{"digest":"md5:0","size":1}}"#,
                "",
                "md5",
            ),
            (
                &format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{many}]}}"#),
                "",
                "500 layers",
            ),
            (
                &format!(
                    r#"{{"schemaVersion":2,"layers":[],"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{DIGEST}","size":1}}}}"#
                ),
                "",
                "not an image",
            ),
            (
                &format!(
                    r#"{{"schemaVersion":2,"layers":[],"config":{{"digest":"{DIGEST}","size":-1}}}}"#
                ),
                "",
                "not a manifest",
            ),
        ] {
            let error = parse_manifest_document(text.as_bytes(), media_type, "x").unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..512)) {
            fuzz_manifest(&data);
        }

        #[test]
        fn manifests_survive_a_round_trip(sizes in proptest::collection::vec(0u64..1 << 30, 0..20)) {
            let descriptor = |size_bytes: &u64| {
                Descriptor::new(OCI_LAYER, Digest::of(&size_bytes.to_le_bytes()), *size_bytes)
            };
            let manifest = Manifest {
                schema_version: 2,
                media_type: OCI_MANIFEST.to_owned(),
                config: Descriptor { media_type: OCI_CONFIG.to_owned(), ..descriptor(&7) },
                layers: sizes.iter().map(descriptor).collect(),
            };
            let bytes = serde_json::to_vec(&manifest).unwrap();
            let parsed = parse_manifest_document(&bytes, OCI_MANIFEST, "x").unwrap();
            prop_assert_eq!(parsed, ManifestDocument::Manifest(manifest));
        }
    }
}

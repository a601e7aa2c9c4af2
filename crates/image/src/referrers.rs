//! Manifests that refer to an image: signatures, bills of materials, attestations.
//!
//! Source: OCI image-spec 1.1 (manifest.md, "subject").

use serde::Deserialize;

use crate::blobs;
use crate::digest::Digest;
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES, OCI_MANIFEST, or_default};
use crate::records::ImageRecord;
use crate::store::ImageStore;

/// Referrers of one image, and referrers of those, beyond this are not followed.
const MAX_REFERRERS: usize = 256;

/// A manifest that refers to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Referrer {
    /// As it came.
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    /// The manifest that it refers to.
    pub(crate) subject: Digest,
    /// What it is made of.
    pub(crate) blobs: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<Descriptor>,
    /// Of the artifact manifest, which the image-spec had for a while.
    #[serde(default, deserialize_with = "or_default")]
    blobs: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

impl Referrer {
    /// Parses a manifest; `None` if it refers to nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return None;
        }
        let document: Document = serde_json::from_slice(bytes).ok()?;
        let config_type = document.config.as_ref().map(|one| one.media_type.clone());
        Some(Self {
            bytes: bytes.to_vec(),
            media_type: if document.media_type.is_empty() {
                OCI_MANIFEST.to_owned()
            } else {
                document.media_type
            },
            artifact_type: document.artifact_type.or(config_type),
            subject: document.subject?.digest,
            blobs: document
                .config
                .into_iter()
                .chain(document.layers)
                .chain(document.blobs)
                .collect(),
        })
    }

    /// Points to it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor {
            artifact_type: self.artifact_type.clone(),
            ..Descriptor::new(
                &self.media_type,
                Digest::of(&self.bytes),
                self.bytes.len() as u64,
            )
        }
    }
}

/// The referrers of `subject`, and theirs, that the store keeps whole with an image.
pub(crate) fn of(store: &ImageStore, image: &ImageRecord, subject: &Digest) -> Vec<Referrer> {
    let kept: Vec<Referrer> = image
        .further
        .iter()
        .filter_map(|digest| {
            let bytes = blobs::read_blob(&store.layout, digest, MAX_MANIFEST_BYTES).ok()?;
            Referrer::parse(&bytes)
        })
        .filter(|referrer| {
            let is_there = |blob: &Descriptor| store.layout.blob(&blob.digest).exists();
            referrer.blobs.iter().all(is_there)
        })
        .collect();
    following(&kept, subject)
}

/// Those of `all` that refer to `subject`, directly or through each other, subjects first.
pub(crate) fn following(all: &[Referrer], subject: &Digest) -> Vec<Referrer> {
    let mut found: Vec<Referrer> = Vec::new();
    let mut subjects = vec![*subject];
    let mut next = 0;
    while let Some(subject) = subjects.get(next).copied() {
        next += 1;
        for referrer in all.iter().filter(|one| one.subject == subject) {
            let digest = Digest::of(&referrer.bytes);
            if !subjects.contains(&digest) && found.len() < MAX_REFERRERS {
                subjects.push(digest);
                found.push(referrer.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn referrer(subject: &Digest, note: &str) -> Referrer {
        let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json",
            "digest": Digest::of(b"{}"), "size": 2});
        let text = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": note,
            "config": empty, "layers": [empty],
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}});
        Referrer::parse(text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn referrers_of_referrers_are_found_in_order() {
        let image = Digest::of(b"image");
        let sbom = referrer(&image, "sbom");
        let signature = referrer(&sbom.descriptor().digest, "signature");
        let other = referrer(&Digest::of(b"other"), "other");
        let all = [signature.clone(), other, sbom.clone()];
        assert_eq!(following(&all, &image), [sbom.clone(), signature]);
        assert_eq!(sbom.descriptor().artifact_type.as_deref(), Some("sbom"));
        assert_eq!(sbom.blobs.len(), 2);
    }

    #[test]
    fn what_refers_to_nothing_is_none() {
        for text in [
            "",
            "{}",
            r#"{"subject":null}"#,
            r#"{"subject":{"digest":"x","size":1}}"#,
        ] {
            assert_eq!(Referrer::parse(text.as_bytes()), None, "{text}");
        }
    }
}

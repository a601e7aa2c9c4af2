//! `save`: one archive that is an OCI layout and a `docker save` archive at once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use gamut_spec::reference::Reference;
use serde_json::json;

use super::ArchiveImage;
use super::load::{CONTAINERD_NAME, REF_NAME};
use crate::blobs;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::manifest::{
    Descriptor, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestDocument,
    OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, parse_manifest_document,
};
use crate::records::familiar;
use crate::referrers::{self, Referrer};
use crate::store::source::LayerSource;
use crate::store::{Image, ImageStore};
use crate::tar::{self, Kind, Writer};

struct Saved {
    image: Image,
    /// Where its layers come from, bottom first.
    sources: Vec<LayerSource>,
    /// The digests by which they are in the archive.
    layers: Vec<Digest>,
    /// The id of the image whose unikernel form it is.
    form_of: Option<Digest>,
    /// Canonical names to save it by.
    names: BTreeSet<String>,
    manifest: Vec<u8>,
    /// What refers to the manifest.
    referrers: Vec<Referrer>,
}

impl ImageStore {
    /// Writes images to an archive that `docker load`, `podman load`, `skopeo` and
    /// [`ImageStore::load`] read. Layers are written plain, so that the archive depends on the
    /// images and names alone: the same give the same bytes. Only an image that signatures or other
    /// manifests refer to is written as it came, manifest and layers, and they with it.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`] before anything is written;
    /// [`Error::Read`] if the writer or a blob fails, after which the archive is worthless.
    pub fn save<W: Write>(&self, names: &[&str], writer: W) -> Result<()> {
        let mut images: BTreeMap<Digest, Saved> = BTreeMap::new();
        let mut order = Vec::new();
        let mut leases = Vec::new();
        for name in names {
            let image = self.get(name, None)?;
            let id = image.digest;
            let names = tag_given(name, &self.shared.state().records.names_of(&id));
            // The Linux form first: whoever reads no platforms takes that one.
            let unikernel = self
                .unikernel_of(name)
                .map(|id| self.get(&id.to_string(), None));
            let forms = [
                Some((image, None)),
                unikernel.transpose()?.map(|one| (one, Some(id))),
            ];
            for (image, form_of) in forms.into_iter().flatten() {
                let saved = match images.entry(image.digest) {
                    Entry::Occupied(present) => present.into_mut(),
                    Entry::Vacant(free) => {
                        order.push(image.digest);
                        leases.push(self.shared.lease(image.keys()));
                        free.insert(saved(self, image, form_of)?)
                    }
                };
                saved.names.extend(names.clone());
            }
        }
        let ordered: Vec<&Saved> = order.iter().filter_map(|id| images.get(id)).collect();
        let mut tar = Writer::new(BufWriter::with_capacity(256 * 1024, writer));
        write_all(self, &ordered, &mut tar)?;
        tar.finish()
            .map_err(writing)?
            .into_inner()
            .map_err(|error| writing(error.into_error()))?;
        Ok(())
    }
}

fn writing(source: io::Error) -> Error {
    Error::Read {
        what: "the image while saving it (or write the archive)".to_owned(),
        source,
    }
}

/// The canonical name with tag that `given` is, if it is not an id or digest.
fn tag_given(given: &str, names: &[String]) -> Option<String> {
    let canonical = Reference::parse(given).ok()?.to_string();
    names.contains(&canonical).then_some(canonical)
}

/// What is written of an image.
fn saved(store: &ImageStore, image: Image, form_of: Option<Digest>) -> Result<Saved> {
    let sources = image.sources(store)?;
    let (manifest, layers, referrers) = match as_it_came(store, &image) {
        Some(original) => original,
        None => {
            let layers = image.record.diff_ids();
            (manifest_of(store, &image)?, layers, Vec::new())
        }
    };
    Ok(Saved {
        image,
        sources,
        layers,
        form_of,
        names: BTreeSet::new(),
        manifest,
        referrers,
    })
}

/// The manifest that an image came with, the layers that it names and what refers to it, if there
/// is anything and all of the image is to be had as the manifest names it.
fn as_it_came(store: &ImageStore, image: &Image) -> Option<(Vec<u8>, Vec<Digest>, Vec<Referrer>)> {
    let digest = image.record.manifest.as_ref()?;
    let referrers = referrers::of(store, &image.record, digest);
    let bytes = blobs::read_blob(&store.layout, digest, MAX_MANIFEST_BYTES).ok()?;
    let ManifestDocument::Manifest(manifest) =
        parse_manifest_document(&bytes, "", "manifest").ok()?
    else {
        return None;
    };
    let named: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    let layers = &image.record.layers;
    let is_whole = named.len() == layers.len()
        && layers
            .iter()
            .zip(&named)
            .all(|(layer, digest)| layer.gives(digest));
    (is_whole && !referrers.is_empty()).then_some((bytes, named, referrers))
}

fn manifest_of(store: &ImageStore, image: &Image) -> Result<Vec<u8>> {
    let config = blobs::read_blob(&store.layout, &image.digest, MAX_CONFIG_BYTES)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Descriptor::new(OCI_CONFIG, image.digest, config.len() as u64),
        layers: image
            .record
            .layers
            .iter()
            .map(|layer| Descriptor::new(OCI_LAYER, layer.diff_id, layer.diff_bytes))
            .collect(),
    };
    Ok(serde_json::to_vec(&manifest).unwrap_or_default())
}

fn write_all<W: Write>(store: &ImageStore, images: &[&Saved], tar: &mut Writer<W>) -> Result<()> {
    for dir in ["blobs/", "blobs/sha256/"] {
        tar.append(&tar::Entry::new(dir, Kind::Directory, 0o755), &[])
            .map_err(writing)?;
    }
    let mut documents: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    // By the digest in the archive.
    let mut layers: BTreeMap<Digest, &LayerSource> = BTreeMap::new();
    for saved in images {
        let config = blobs::read_blob(&store.layout, &saved.image.digest, MAX_CONFIG_BYTES)?;
        documents.insert(saved.image.digest, config);
        documents.insert(Digest::of(&saved.manifest), saved.manifest.clone());
        layers.extend(saved.layers.iter().copied().zip(&saved.sources));
        for referrer in &saved.referrers {
            documents.insert(Digest::of(&referrer.bytes), referrer.bytes.clone());
            for blob in &referrer.blobs {
                let bytes = blobs::read_blob(&store.layout, &blob.digest, MAX_CONFIG_BYTES)?;
                documents.insert(blob.digest, bytes);
            }
        }
    }
    for (digest, bytes) in &documents {
        tar.append(&file(&blob_name(digest)), bytes)
            .map_err(writing)?;
    }
    for (digest, source) in &layers {
        write_layer(store, digest, source, tar)?;
    }
    let mut document = |name: &str, value: &serde_json::Value| {
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        tar.append(&file(name), &bytes).map_err(writing)
    };
    document("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    document("index.json", &json!(index_of(images)))?;
    document("manifest.json", &json!(docker_manifest_of(images)))?;
    document("repositories", &json!(repositories_of(images)))
}

fn write_layer<W: Write>(
    store: &ImageStore,
    digest: &Digest,
    source: &LayerSource,
    tar: &mut Writer<W>,
) -> Result<()> {
    let layer = &source.record;
    let (reader, length_bytes): (Box<dyn Read + Send>, u64) = if *digest == layer.diff_id {
        (source.open()?, layer.diff_bytes)
    } else {
        let path = store.layout.blob(&layer.blob);
        let blob = File::open(&path).map_err(Error::io("open", &path))?;
        (Box::new(blob), layer.blob_bytes)
    };
    let mut hasher = Hasher::default();
    let reader = Tee {
        inner: reader,
        hasher: &mut hasher,
    };
    tar.append_from(&file(&blob_name(digest)), length_bytes, reader)
        .map_err(writing)?;
    let (actual, _) = hasher.finish();
    if actual != *digest {
        return Err(source.mismatch(digest, &actual));
    }
    Ok(())
}

struct Tee<'h, R> {
    inner: R,
    hasher: &'h mut Hasher,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn file(name: &str) -> tar::Entry {
    tar::Entry::new(name, Kind::File, 0o644)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn index_of(images: &[&Saved]) -> Index {
    let mut manifests = Vec::new();
    for saved in images {
        let descriptor = Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: Digest::of(&saved.manifest),
            size_bytes: saved.manifest.len() as u64,
            platform: Some(saved.image.config.platform.clone()),
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        if saved.names.is_empty() {
            manifests.push(descriptor.clone());
        }
        for name in &saved.names {
            let mut named = descriptor.clone();
            let tag = name.rsplit(':').next().unwrap_or_default();
            named
                .annotations
                .insert(CONTAINERD_NAME.to_owned(), name.clone());
            named
                .annotations
                .insert(REF_NAME.to_owned(), tag.to_owned());
            manifests.push(named);
        }
        manifests.extend(saved.referrers.iter().map(Referrer::descriptor));
    }
    Index {
        schema_version: 2,
        media_type: OCI_INDEX.to_owned(),
        manifests,
    }
}

fn docker_manifest_of(images: &[&Saved]) -> Vec<ArchiveImage> {
    images
        .iter()
        // Such clients know of one form only, and would give it the name of the other.
        .filter(|saved| saved.form_of.is_none())
        .map(|saved| ArchiveImage {
            config: blob_name(&saved.image.digest),
            repo_tags: saved.names.iter().map(|name| familiar(name)).collect(),
            layers: saved.layers.iter().map(blob_name).collect(),
        })
        .collect()
}

fn repositories_of(images: &[&Saved]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for saved in images.iter().filter(|saved| saved.form_of.is_none()) {
        let Some(top) = saved.layers.last() else {
            continue;
        };
        for name in &saved.names {
            let name = familiar(name);
            if let Some((repository, tag)) = name.rsplit_once(':') {
                repositories
                    .entry(repository.to_owned())
                    .or_default()
                    .insert(tag.to_owned(), top.hex());
            }
        }
    }
    repositories
}

//! `load`: docker-archive, OCI layout, and the format before them.

use std::io::Read;

use gamut_spec::form::ImageForm;
use gamut_spec::reference::Reference;

use super::members::Members;
use super::{ArchiveImage, legacy};
use crate::compression;
use crate::config::ImageConfiguration;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, Index, Manifest, ManifestDocument, parse_manifest_document};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::records::familiar;
use crate::referrers::{self, Referrer};
use crate::store::ImageStore;
use crate::store::incoming::{Incoming, Naming};

const OBJECT: &str = "image archive";
/// The name containerd and docker give an image in an OCI layout.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The name of the image-spec (annotations.md), often only a tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes within indexes.
const MAX_INDEX_DEPTH: usize = 4;

impl ImageStore {
    /// Loads the images of an archive: a `docker save` archive, an OCI layout, or the format of
    /// Docker before 1.10; plain, gzip or zstd. The archive is read once, front to back; all of
    /// its images come in, or on failure none. Returns their names, or ids where they have none.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::DigestMismatch`], [`Error::Layer`], [`Error::Tar`],
    /// [`Error::Io`] (full disk), [`Error::Cancelled`].
    pub fn load(&self, reader: impl Read + Send, progress: &dyn Progress) -> Result<Vec<String>> {
        self.load_from(reader, progress, "load")
    }

    pub(crate) fn load_from(
        &self,
        reader: impl Read + Send,
        progress: &dyn Progress,
        origin: &'static str,
    ) -> Result<Vec<String>> {
        let plain = compression::plain(reader).map_err(|source| Error::Read {
            what: OBJECT.to_owned(),
            source,
        })?;
        let mut incoming = Incoming::new(self, origin)?;
        let members = Members::read(self, &mut incoming, plain, progress)?;
        let mut load = Load {
            store: self,
            incoming,
            members,
            loaded: Vec::new(),
        };
        load.all()?;
        let Load {
            incoming, loaded, ..
        } = load;
        if progress.is_cancelled() {
            return Err(Error::Cancelled("load".to_owned()));
        }
        incoming.commit()?;
        Ok(loaded)
    }
}

pub(super) struct Load<'s> {
    pub(super) store: &'s ImageStore,
    pub(super) incoming: Incoming<'s>,
    pub(super) members: Members,
    loaded: Vec<String>,
}

impl Load<'_> {
    fn all(&mut self) -> Result<()> {
        if let Some(index) = self.telling_index() {
            // An archive of both formats: only the layout tells what refers to its images, and
            // which of them are forms of one.
            self.layout(&index)?;
        } else if let Some(bytes) = self.members.document("manifest.json") {
            let images: Vec<ArchiveImage> = serde_json::from_slice(bytes)
                .map_err(|error| Error::malformed(OBJECT, format!("manifest.json: {error}")))?;
            for image in &images {
                self.docker_image(image)?;
            }
        } else if let Some(bytes) = self.members.document("index.json") {
            match parse_manifest_document(bytes, "", "image archive: index.json")? {
                ManifestDocument::Index(index) => self.layout(&index)?,
                ManifestDocument::Manifest(_) => {
                    return Err(Error::malformed(OBJECT, "index.json is not an index"));
                }
            }
        } else if let Some(bytes) = self.members.document("repositories") {
            let bytes = bytes.to_vec();
            legacy::load(self, &bytes)?;
        } else {
            return Err(Error::malformed(
                OBJECT,
                "not an image archive: it has neither manifest.json nor index.json nor \
                 repositories (a file system archive is taken in by `gamut import`)",
            ));
        }
        if self.loaded.is_empty() {
            return Err(Error::malformed(OBJECT, "it names no image"));
        }
        Ok(())
    }

    /// The index of an OCI layout that has manifests which refer to others, or unikernels.
    fn telling_index(&self) -> Option<Index> {
        let bytes = self.members.document("index.json")?;
        match parse_manifest_document(bytes, "", "image archive: index.json").ok()? {
            ManifestDocument::Index(index)
                if index.unikernel().is_some() || !self.split_referrers(&index).0.is_empty() =>
            {
                Some(index)
            }
            _ => None,
        }
    }

    fn docker_image(&mut self, image: &ArchiveImage) -> Result<()> {
        let config = self.members.required(&image.config)?.to_vec();
        check_digest_name(&image.config, &config)?;
        let mut names = Vec::new();
        for tag in &image.repo_tags {
            names.push(crate::store::tag_name(&Reference::parse(tag)?)?);
        }
        let parsed = ImageConfiguration::parse(&config, &image.config)?;
        check_count(&image.config, image.layers.len(), parsed.diff_ids.len())?;
        for (name, expected) in image.layers.iter().zip(&parsed.diff_ids) {
            let taken = self
                .members
                .take_layer(self.store, &mut self.incoming, name)?;
            check_diff_id(name, expected, &taken.diff_id)?;
        }
        let naming = Naming {
            names,
            ..Naming::default()
        };
        self.add(&config, naming).map(|_| ())
    }

    /// Adds an image all of whose layers have been taken.
    pub(super) fn add(&mut self, config: &[u8], naming: Naming) -> Result<Digest> {
        let familiar: Vec<String> = naming.names.iter().map(|name| familiar(name)).collect();
        let id = self.incoming.add_image(config, naming)?;
        if familiar.is_empty() {
            self.loaded.push(id.to_string());
        }
        self.loaded.extend(familiar);
        Ok(id)
    }

    fn layout(&mut self, index: &Index) -> Result<()> {
        let (referrers, images) = self.split_referrers(index);
        for entry in &images {
            let name = layout_name(entry);
            let others = images.iter().filter(|other| layout_name(other) == name);
            let beside = match form_of(entry) {
                ImageForm::Linux => others
                    .clone()
                    .find(|other| form_of(other) == ImageForm::Unikernel),
                // Comes with the image whose form it is.
                ImageForm::Unikernel
                    if name.is_some()
                        && others
                            .clone()
                            .any(|other| form_of(other) == ImageForm::Linux) =>
                {
                    continue;
                }
                ImageForm::Unikernel => None,
            };
            let naming = Naming {
                unikernel: match beside.filter(|_| name.is_some()) {
                    Some(unikernel) => Some(self.layout_form(unikernel, &referrers, &[])?),
                    None => None,
                },
                names: name.into_iter().collect(),
                ..Naming::default()
            };
            self.layout_entry(entry, naming, &referrers)?;
        }
        Ok(())
    }

    /// Takes the unikernel form of an image that is to follow.
    fn layout_form(
        &mut self,
        entry: &Descriptor,
        referrers: &[Referrer],
        indexes: &[Digest],
    ) -> Result<Digest> {
        let naming = Naming {
            further: indexes.to_vec(),
            ..Naming::default()
        };
        let id = self.layout_entry(entry, naming, referrers)?;
        // It goes by the name of that image.
        self.loaded.retain(|loaded| *loaded != id.to_string());
        Ok(id)
    }

    /// Tells manifests that refer to others of the layout from images.
    fn split_referrers<'i>(&self, index: &'i Index) -> (Vec<Referrer>, Vec<&'i Descriptor>) {
        let mut referrers = Vec::new();
        let mut images = Vec::new();
        for entry in &index.manifests {
            let path = blob_name(&entry.digest);
            let referrer = self.members.document(&path).and_then(Referrer::parse);
            match referrer {
                Some(referrer)
                    if Digest::of(&referrer.bytes) == entry.digest
                        && self
                            .members
                            .document(&blob_name(&referrer.subject))
                            .is_some() =>
                {
                    referrers.push(referrer);
                }
                _ => images.push(entry),
            }
        }
        (referrers, images)
    }

    fn layout_entry(
        &mut self,
        entry: &Descriptor,
        mut naming: Naming,
        referrers: &[Referrer],
    ) -> Result<Digest> {
        let path = blob_name(&entry.digest);
        let bytes = self.members.required(&path)?.to_vec();
        check_digest_name(&path, &bytes)?;
        let object = format!("image archive: {path}");
        match parse_manifest_document(&bytes, &entry.media_type, &object)? {
            ManifestDocument::Manifest(manifest) => {
                let kept = self.keep_referrers(referrers, &entry.digest)?;
                naming.further.extend(kept);
                self.layout_image(&manifest, &bytes, naming)
            }
            // Nothing but indexes has been kept on the way here.
            ManifestDocument::Index(_) if naming.further.len() >= MAX_INDEX_DEPTH => {
                Err(Error::malformed(object, "indexes are nested too deeply"))
            }
            ManifestDocument::Index(index) => {
                let (chosen, unikernel) = index.choose_forms(&Platform::host(), &object)?;
                naming.further.push(self.incoming.add_blob(&bytes)?);
                if let Some(unikernel) = unikernel.filter(|_| naming.unikernel.is_none()) {
                    let further = naming.further.clone();
                    naming.unikernel = Some(self.layout_form(unikernel, referrers, &further)?);
                }
                self.layout_entry(chosen, naming, referrers)
            }
        }
    }

    /// Takes in what refers to a manifest, with what that is made of.
    fn keep_referrers(&mut self, all: &[Referrer], subject: &Digest) -> Result<Vec<Digest>> {
        let mut kept = Vec::new();
        for referrer in referrers::following(all, subject) {
            let mut blobs = Vec::new();
            for blob in &referrer.blobs {
                match self.members.document(&blob_name(&blob.digest)) {
                    Some(bytes) if Digest::of(bytes) == blob.digest => blobs.push(bytes.to_vec()),
                    _ => tracing::warn!(
                        referrer = %Digest::of(&referrer.bytes), blob = %blob.digest,
                        "left out: what it names is missing, damaged or too large to be kept"
                    ),
                }
            }
            if blobs.len() == referrer.blobs.len() {
                for bytes in blobs.iter().chain([&referrer.bytes]) {
                    kept.push(self.incoming.add_blob(bytes)?);
                }
            }
        }
        Ok(kept)
    }

    fn layout_image(
        &mut self,
        manifest: &Manifest,
        bytes: &[u8],
        mut naming: Naming,
    ) -> Result<Digest> {
        let path = blob_name(&manifest.config.digest);
        let config = self.members.required(&path)?.to_vec();
        check_digest_name(&path, &config)?;
        let parsed = ImageConfiguration::parse(&config, &path)?;
        check_count(&path, manifest.layers.len(), parsed.diff_ids.len())?;
        for (layer, expected) in manifest.layers.iter().zip(&parsed.diff_ids) {
            let path = blob_name(&layer.digest);
            let taken = self
                .members
                .take_layer(self.store, &mut self.incoming, &path)?;
            if taken.raw.1 != layer.size_bytes {
                return Err(Error::SizeMismatch {
                    object: format!("image archive: {path}"),
                    expected_bytes: layer.size_bytes,
                    actual_bytes: taken.raw.1,
                });
            }
            check_diff_id(&path, expected, &taken.diff_id)?;
        }
        naming.manifest = Some(self.incoming.add_blob(bytes)?);
        self.add(&config, naming)
    }
}

/// In what form the image is that an entry of an index points to.
fn form_of(entry: &Descriptor) -> ImageForm {
    let platform = entry.platform.as_ref();
    platform.map(Platform::form).unwrap_or_default()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The canonical name that an entry of a layout's index carries, if it is a whole name.
fn layout_name(entry: &Descriptor) -> Option<String> {
    let full = entry.annotations.get(CONTAINERD_NAME);
    // A bare tag, as skopeo writes it, names no repository.
    let short = entry
        .annotations
        .get(REF_NAME)
        .filter(|name| name.contains([':', '/']));
    let reference = Reference::parse(full.or(short)?).ok()?;
    crate::store::tag_name(&reference).ok()
}

fn check_count(object: &str, layers: usize, diff_ids: usize) -> Result<()> {
    if layers == diff_ids {
        return Ok(());
    }
    Err(Error::malformed(
        format!("image archive: {object}"),
        format!("the configuration names {diff_ids} layers, the manifest {layers}"),
    ))
}

fn check_diff_id(name: &str, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        object: format!("image archive: layer {name}, uncompressed"),
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}

/// Holds a document against the digest in its name: `<hex>.json` or `blobs/sha256/<hex>`.
fn check_digest_name(name: &str, bytes: &[u8]) -> Result<()> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let base = base.strip_suffix(".json").unwrap_or(base);
    let Some(expected) = Digest::from_hex(base) else {
        return Ok(());
    };
    let actual = Digest::of(bytes);
    if actual == expected {
        return Ok(());
    }
    Err(Error::DigestMismatch {
        object: format!("image archive: {name}"),
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}

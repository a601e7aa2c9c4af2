//! `push`.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::write::GzEncoder;
use gamut_spec::reference::Reference;

use super::RegistryOptions;
use super::address::{Url, api_host};
use super::client::Client;
use super::connection::Connection;
use super::download::{MAX_CONNECTIONS, retrying};
use super::upload::{Content, Mounted, Upload};
use crate::blobs::{self, StagedFile};
use crate::compression::Compression;
use crate::digest::{Digest, HashingWriter};
use crate::error::{Error, Result};
use crate::manifest::{
    Descriptor, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestDocument,
    OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, parse_manifest_document,
};
use crate::parallel::in_parallel;
use crate::progress::{Progress, Step, message, report};
use crate::records::repository_of;
use crate::store::source::LayerSource;
use crate::store::{Image, ImageStore};

/// Repositories of the registry that are asked for a layer before it is uploaded.
const MAX_MOUNT_SOURCES: usize = 3;

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Length of the manifest in bytes.
    pub size_bytes: u64,
}

impl ImageStore {
    /// Pushes an image of the store to the registry, repository and tag that `reference` names.
    ///
    /// An image that came from a registry keeps its manifest, and so its digest. Otherwise it gets
    /// an OCI manifest with gzip layers, which every client reads; the same image always gets the
    /// same. What the registry has is not sent again, layers that another of its repositories has
    /// are mounted from there, the rest is uploaded, several at once. After a cut an upload goes on
    /// where the registry says that it stopped, or from its beginning.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Registry`], [`Error::Malformed`] if a layer is damaged or
    /// `reference` has a digest, [`Error::Cancelled`].
    pub fn push(
        &self,
        reference: &Reference,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<Pushed> {
        let name = crate::store::tag_name(reference)?;
        let image = self.get(&name, None)?;
        let unikernel = self.unikernel_of(&name);
        let unikernel = unikernel
            .map(|id| self.get(&id.to_string(), None))
            .transpose()?;
        let forms = [Some(&image), unikernel.as_ref()];
        let _lease = self
            .shared
            .lease(forms.into_iter().flatten().flat_map(Image::keys));
        let sources = image.sources(self)?;
        let unikernel = unikernel
            .map(|form| form.sources(self).map(|sources| (form, sources)))
            .transpose()?;
        let connection = Connection::to_host(
            api_host(reference.registry()),
            &reference.familiar(),
            &options.trust(),
        )?;
        let client = Client::new(
            connection,
            reference.repository().to_owned(),
            options.credentials.clone(),
            true,
        );
        let push = |image, sources| Push {
            store: self,
            client: &client,
            image,
            sources,
            reference,
            progress,
            stop: AtomicBool::new(false),
        };
        message(
            progress,
            &format!(
                "The push refers to repository [{}]",
                reference.familiar_name()
            ),
        );
        let tag = reference.tag().unwrap_or("latest");
        let (digest, size_bytes) = match &unikernel {
            None => push(&image, &sources).run(Some(tag))?,
            Some((form, of_form)) => {
                push_forms(&push(&image, &sources), &push(form, of_form), tag)?
            }
        };
        message(
            progress,
            &format!("{tag}: digest: {digest} size: {size_bytes}"),
        );
        Ok(Pushed {
            tag: tag.to_owned(),
            digest,
            size_bytes,
        })
    }
}

struct Push<'p> {
    store: &'p ImageStore,
    client: &'p Client,
    image: &'p Image,
    sources: &'p [LayerSource],
    reference: &'p Reference,
    progress: &'p dyn Progress,
    stop: AtomicBool,
}

/// A manifest that the store has for the image.
struct Known {
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// Pushes two forms of an image, and then the index by which they have one name. The same forms
/// always get the same index.
fn push_forms(linux: &Push<'_>, unikernel: &Push<'_>, tag: &str) -> Result<(Digest, u64)> {
    let mut manifests = Vec::new();
    for push in [linux, unikernel] {
        let (digest, size_bytes) = push.run(None)?;
        let mut entry = Descriptor::new(OCI_MANIFEST, digest, size_bytes);
        let manifest = blobs::read_blob(&push.store.layout, &digest, MAX_MANIFEST_BYTES)?;
        if let ManifestDocument::Manifest(manifest) =
            parse_manifest_document(&manifest, "", "manifest")?
        {
            entry.media_type = media_type_of(&manifest);
        }
        entry.platform = Some(push.image.config.platform.clone());
        manifests.push(entry);
    }
    let index = Index {
        schema_version: 2,
        media_type: OCI_INDEX.to_owned(),
        manifests,
    };
    let bytes =
        serde_json::to_vec(&index).map_err(|error| Error::malformed("index", error.to_string()))?;
    let digest = Digest::of(&bytes);
    linux.put(tag, OCI_INDEX, &bytes, &digest)?;
    linux.store.note_pushed_forms(
        linux.image.digest,
        unikernel.image.digest,
        &linux.repo_digest(&digest),
    )?;
    Ok((digest, bytes.len() as u64))
}

impl Push<'_> {
    /// Pushes one image, by a tag or (`None`) by its digest alone. Returns digest and length of its
    /// manifest.
    fn run(&self, tag: Option<&str>) -> Result<(Digest, u64)> {
        let known = self.known_manifest();
        let (bytes, media_type) = match known {
            Some(known) => {
                let layers = self.layers(Some(&known.manifest.layers))?;
                if layers == known.manifest.layers {
                    let media_type = media_type_of(&known.manifest);
                    (known.bytes, media_type)
                } else {
                    // Compressed by another build, to other bytes.
                    self.new_manifest(layers)?
                }
            }
            None => self.new_manifest(self.layers(None)?)?,
        };
        let config = blobs::read_blob(&self.store.layout, &self.image.digest, MAX_CONFIG_BYTES)?;
        self.small_blob(&self.image.digest, &config)?;
        let digest = Digest::of(&bytes);
        let by_digest = digest.to_string();
        self.put(tag.unwrap_or(&by_digest), &media_type, &bytes, &digest)?;
        self.referrers(&digest)?;
        self.store
            .note_pushed(self.image.digest, &bytes, &self.repo_digest(&digest))?;
        Ok((digest, bytes.len() as u64))
    }

    fn repo_digest(&self, digest: &Digest) -> String {
        self.reference.with_digest(&digest.to_string()).to_string()
    }

    fn put(&self, name: &str, media_type: &str, bytes: &[u8], digest: &Digest) -> Result<()> {
        let told = retrying(self.progress, || {
            self.client.put_manifest(name, media_type, bytes)
        })?;
        match told {
            Some(told) if told.starts_with("sha256:") && told != digest.to_string() => {
                Err(Error::DigestMismatch {
                    object: format!("{}: the manifest as the registry has it", self.reference),
                    expected: digest.to_string(),
                    actual: told,
                })
            }
            _ => Ok(()),
        }
    }

    /// The manifest that the image came with or was pushed by, if it fits.
    fn known_manifest(&self) -> Option<Known> {
        let digest = self.image.record.manifest.as_ref()?;
        let bytes = blobs::read_blob(&self.store.layout, digest, MAX_MANIFEST_BYTES).ok()?;
        match parse_manifest_document(&bytes, "", "manifest").ok()? {
            ManifestDocument::Manifest(manifest)
                if manifest.config.digest == self.image.digest
                    && manifest.layers.len() == self.image.record.layers.len() =>
            {
                Some(Known { bytes, manifest })
            }
            _ => None,
        }
    }

    fn new_manifest(&self, layers: Vec<Descriptor>) -> Result<(Vec<u8>, String)> {
        let path = self.store.layout.blob(&self.image.digest);
        let size_bytes = std::fs::metadata(&path)
            .map_err(Error::io("read", &path))?
            .len();
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: Descriptor::new(OCI_CONFIG, self.image.digest, size_bytes),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| Error::malformed("manifest", error.to_string()))?;
        Ok((bytes, OCI_MANIFEST.to_owned()))
    }

    /// Sees to it that the registry has all layers, a few at a time; returns what they are there.
    fn layers(&self, known: Option<&[Descriptor]>) -> Result<Vec<Descriptor>> {
        let records = &self.image.record.layers;
        let lines = |step: Step<'_>| {
            for layer in records {
                report(self.progress, &layer.diff_id.short(), step.clone());
            }
        };
        lines(Step::Preparing);
        if records.len() > MAX_CONNECTIONS {
            lines(Step::Waiting);
        }
        let positions: Vec<usize> = (0..self.sources.len()).collect();
        in_parallel(
            &positions,
            MAX_CONNECTIONS,
            "pushing layers",
            &self.stop,
            &|&position| {
                let source = self.sources.get(position);
                let source = source.ok_or_else(|| Error::Worker("pushing layers".to_owned()))?;
                self.layer(source, known.and_then(|known| known.get(position)))
            },
        )
    }

    fn layer(&self, source: &LayerSource, known: Option<&Descriptor>) -> Result<Descriptor> {
        let record = &source.record;
        let id = record.diff_id.short();
        self.check_stop()?;
        // What came as gzip, or is to be had as the manifest names it, needs no work.
        let is_gzip = record.compression == Compression::Gzip && !record.is_recipe;
        let stored = Descriptor::new(OCI_LAYER_GZIP, record.blob, record.blob_bytes);
        let promised = known.or(is_gzip.then_some(&stored));
        if let Some(descriptor) = promised
            && self.is_there(descriptor, &id)?
        {
            return Ok(descriptor.clone());
        }
        if let Some(descriptor) = promised
            && record.gives(&descriptor.digest)
        {
            if descriptor.digest == record.diff_id {
                return self.send(descriptor.clone(), &id, Content::Plain(source));
            }
            let path = self.store.layout.blob(&record.blob);
            return self.send(descriptor.clone(), &id, Content::File(&path));
        }
        let (staged, mut descriptor) = self.compress(source)?;
        match known {
            Some(known) if known.digest == descriptor.digest => descriptor = known.clone(),
            _ if self.is_there(&descriptor, &id)? => return Ok(descriptor),
            _ => {}
        }
        self.send(descriptor, &id, Content::File(&staged.path))
    }

    fn send(&self, descriptor: Descriptor, id: &str, content: Content<'_>) -> Result<Descriptor> {
        let session = match self.mount(&descriptor.digest, id)? {
            Mounted::Yes => return Ok(descriptor),
            Mounted::No(session) => session,
        };
        let upload = Upload {
            client: self.client,
            digest: descriptor.digest,
            size_bytes: descriptor.size_bytes,
            id,
            progress: self.progress,
            check_stop: &|| self.check_stop(),
        };
        upload.run(content, session)?;
        report(self.progress, id, Step::Pushed);
        Ok(descriptor)
    }

    fn is_there(&self, descriptor: &Descriptor, id: &str) -> Result<bool> {
        let there = retrying(self.progress, || self.client.has_blob(&descriptor.digest))?;
        if there {
            report(self.progress, id, Step::LayerAlreadyExists);
        }
        Ok(there)
    }

    /// Asks the registry to take a layer over from a repository that is known to have it.
    fn mount(&self, digest: &Digest, id: &str) -> Result<Mounted> {
        let mut session: Option<Url> = None;
        for from in self.store.mount_sources(digest, self.reference) {
            self.check_stop()?;
            match self.client.mount(digest, &from)? {
                Mounted::Yes => {
                    report(self.progress, id, Step::MountedFrom(&from));
                    return Ok(Mounted::Yes);
                }
                Mounted::No(open) => session = open.or(session),
            }
        }
        Ok(Mounted::No(session))
    }

    /// The layer as gzip, which every client reads; the same bytes every time.
    fn compress(&self, source: &LayerSource) -> Result<(StagedFile, Descriptor)> {
        let (staged, file) = self.store.layout.stage_file()?;
        let mut plain = Stoppable {
            inner: source.open()?,
            push: self,
            hasher: crate::digest::Hasher::default(),
        };
        let write = || -> io::Result<(Digest, u64, Digest)> {
            let writer = HashingWriter::new(BufWriter::with_capacity(256 * 1024, file));
            let mut encoder = GzEncoder::new(writer, flate2::Compression::default());
            io::copy(&mut plain, &mut encoder)?;
            let mut writer = encoder.finish()?;
            writer.flush()?;
            let (digest, bytes) = writer.finish()?;
            Ok((digest, bytes, plain.hasher.finish().0))
        };
        let result = write();
        self.check_stop()?;
        let (digest, size_bytes, actual) =
            result.map_err(Error::io("compress a layer to", &staged.path))?;
        if actual != source.record.diff_id {
            return Err(source.mismatch(&source.record.diff_id, &actual));
        }
        Ok((staged, Descriptor::new(OCI_LAYER_GZIP, digest, size_bytes)))
    }

    fn small_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if retrying(self.progress, || self.client.has_blob(digest))? {
            return Ok(());
        }
        let upload = Upload {
            client: self.client,
            digest: *digest,
            size_bytes: bytes.len() as u64,
            id: "config",
            progress: &crate::progress::NoProgress,
            check_stop: &|| self.check_stop(),
        };
        upload.run(Content::Bytes(bytes), None)
    }

    /// Sends the manifests that refer to this one (signatures, bills of materials) and what they
    /// name, as far as the store has them.
    fn referrers(&self, subject: &Digest) -> Result<()> {
        for referrer in crate::referrers::of(self.store, &self.image.record, subject) {
            for blob in &referrer.blobs {
                self.check_stop()?;
                if retrying(self.progress, || self.client.has_blob(&blob.digest))? {
                    continue;
                }
                let path = self.store.layout.blob(&blob.digest);
                let upload = Upload {
                    client: self.client,
                    digest: blob.digest,
                    size_bytes: blob.size_bytes,
                    id: &blob.digest.short(),
                    progress: self.progress,
                    check_stop: &|| self.check_stop(),
                };
                upload.run(Content::File(&path), None)?;
            }
            let digest = Digest::of(&referrer.bytes);
            self.put(
                &digest.to_string(),
                &referrer.media_type,
                &referrer.bytes,
                &digest,
            )?;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) || self.progress.is_cancelled() {
            return Err(Error::Cancelled("push".to_owned()));
        }
        Ok(())
    }
}

fn media_type_of(manifest: &Manifest) -> String {
    if manifest.media_type.is_empty() {
        OCI_MANIFEST.to_owned()
    } else {
        manifest.media_type.clone()
    }
}

/// Hashes what is read, and ends when the push does.
struct Stoppable<'s, R> {
    inner: R,
    push: &'s Push<'s>,
    hasher: crate::digest::Hasher,
}

impl<R: io::Read> io::Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.push.check_stop().map_err(io::Error::other)?;
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl ImageStore {
    /// Repositories of the reference's registry that have been pulled from or pushed to with an
    /// image that has the blob.
    fn mount_sources(&self, blob: &Digest, reference: &Reference) -> Vec<String> {
        let state = self.shared.state();
        let registry = format!("{}/", reference.registry());
        let mut sources = BTreeSet::new();
        for (name, id) in &state.records.digests {
            let repository = repository_of(name);
            let Some(repository) = repository.strip_prefix(&registry) else {
                continue;
            };
            let has_it = || {
                let image = state.records.images.get(id)?;
                let manifest =
                    blobs::read_blob(&self.layout, image.manifest.as_ref()?, MAX_MANIFEST_BYTES)
                        .ok()?;
                let manifest = parse_manifest_document(&manifest, "", "manifest").ok()?;
                match manifest {
                    ManifestDocument::Manifest(manifest) => {
                        Some(manifest.layers.iter().any(|layer| layer.digest == *blob))
                    }
                    ManifestDocument::Index(_) => None,
                }
            };
            if repository != reference.repository() && has_it() == Some(true) {
                sources.insert(repository.to_owned());
            }
        }
        sources.into_iter().take(MAX_MOUNT_SOURCES).collect()
    }

    /// Remembers as what an image and its unikernel form were pushed.
    fn note_pushed_forms(&self, id: Digest, unikernel: Digest, repo_digest: &str) -> Result<()> {
        let mut state = self.shared.state();
        let images = &state.records.images;
        if !images.contains_key(&id) || !images.contains_key(&unikernel) {
            return Ok(());
        }
        self.edit(&mut state, |records| {
            records.set_digest(repo_digest.to_owned(), id, Some(unikernel));
        })
    }

    /// Remembers by what manifest, and as what, an image was pushed.
    fn note_pushed(&self, id: Digest, manifest: &[u8], repo_digest: &str) -> Result<()> {
        let digest = Digest::of(manifest);
        let place = self.layout.blob(&digest);
        let staged = self.layout.stage_bytes(manifest)?;
        self.layout.sync()?;
        let mut state = self.shared.state();
        // An image that was removed meanwhile stays so.
        if !state.records.images.contains_key(&id) {
            return Ok(());
        }
        if !place.exists() {
            staged.keep(&place)?;
            blobs::sync_dir(&self.layout.blobs())?;
        }
        self.edit(&mut state, |records| {
            if let Some(image) = records.images.get_mut(&id) {
                image.manifest = Some(digest);
            }
            records.set_digest(repo_digest.to_owned(), id, None);
        })?;
        self.sweep(&state)
    }
}

//! `pull`.

use std::collections::BTreeSet;

use gamut_spec::reference::Reference;

use super::client::RawManifest;
use super::download::{Transfer, same_blob};
use super::sources::Sources;
use super::{PullOptions, PullPolicy};
use crate::config::ImageConfiguration;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Descriptor, Manifest, ManifestDocument, parse_manifest_document};
use crate::platform::Platform;
use crate::progress::{Progress, Step, message, report};
use crate::store::incoming::{Incoming, Naming};
use crate::store::{Busy, Image, ImageStore, Key};

/// Indexes within indexes.
const MAX_INDEX_DEPTH: usize = 4;

impl ImageStore {
    /// Pulls an image from its registry. What the store has already is not fetched again; layers
    /// are fetched, verified and unpacked at once, several in parallel. On failure nothing is
    /// kept.
    ///
    /// # Errors
    /// [`Error::Registry`], [`Error::DigestMismatch`], [`Error::SizeMismatch`],
    /// [`Error::NoMatchingPlatform`], [`Error::Layer`], [`Error::Io`], [`Error::Cancelled`].
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let name = reference.to_string();
        if options.policy == PullPolicy::Missing
            && let Ok(image) = self.get(&name, options.platform.as_ref())
        {
            return Ok(image);
        }
        let tag_or_digest = reference.digest().or(reference.tag()).unwrap_or("latest");
        report(
            progress,
            tag_or_digest,
            Step::Message(&format!("Pulling from {}", reference.repository())),
        );
        let sources = Sources::new(reference, options)?;
        let top = sources.manifest(tag_or_digest, progress)?;
        let top_digest = top.digest;
        let wanted = options.platform.clone().unwrap_or_default();
        let object = reference.familiar();
        let mut chosen = resolve(&sources, top, &wanted, &object, progress)?;
        let unikernel = chosen.unikernel.take();
        let before = self.get(&name, None).ok().map(|image| image.id);

        let pull = Pull {
            store: self,
            sources: &sources,
            object: &object,
            progress,
        };
        let mut incoming = Incoming::new(self, "pull")?;
        let further: Vec<Digest> = chosen
            .indexes
            .iter()
            .map(|index| incoming.add_blob(&index.bytes))
            .collect::<Result<_>>()?;
        let mut naming = Naming {
            further: further.clone(),
            digests: vec![reference.with_digest(&top_digest.to_string()).to_string()],
            ..Naming::default()
        };
        if let Some((raw, manifest)) = unikernel {
            let form = Naming {
                further,
                ..Naming::default()
            };
            // Not held on to: what else is waited for below must not be waited for by others.
            let (id, _) = pull.image(&mut incoming, &raw, &manifest, form)?;
            naming.unikernel = Some(id);
        }
        if reference.digest().is_none() {
            naming.names.push(crate::store::tag_name(reference)?);
        }
        let (raw, manifest) = (&chosen.manifest, &chosen.parsed);
        // Held until the layers are in place for those who wait for them.
        let (id, _busy) = pull.image(&mut incoming, raw, manifest, naming)?;
        if progress.is_cancelled() {
            return Err(Error::Cancelled("pull".to_owned()));
        }
        incoming.commit()?;
        message(progress, &format!("Digest: {top_digest}"));
        let status = if before == Some(id.to_string()) {
            "Image is up to date"
        } else {
            "Downloaded newer image"
        };
        message(progress, &format!("Status: {status} for {object}"));
        self.get(&id.to_string(), None)
    }
}

/// A manifest, and the indexes that led to it.
struct Chosen {
    manifest: RawManifest,
    parsed: Manifest,
    indexes: Vec<RawManifest>,
    /// The manifest of the unikernel form beside it.
    unikernel: Option<(RawManifest, Manifest)>,
}

/// Follows indexes down to the manifest for the platform, and that of the unikernel form beside it.
fn resolve(
    sources: &Sources,
    top: RawManifest,
    wanted: &Platform,
    object: &str,
    progress: &dyn Progress,
) -> Result<Chosen> {
    let mut raw = top;
    let mut indexes = Vec::new();
    let mut unikernel = None;
    for _ in 0..MAX_INDEX_DEPTH {
        match parse_manifest_document(&raw.bytes, &raw.media_type, object)? {
            ManifestDocument::Manifest(parsed) => {
                return Ok(Chosen {
                    manifest: raw,
                    parsed,
                    indexes,
                    unikernel,
                });
            }
            ManifestDocument::Index(index) => {
                let (chosen, form) = index.choose_forms(wanted, object)?;
                if let Some(form) = form {
                    unikernel = Some(resolve_form(sources, form, object, progress)?);
                }
                let next = fetch(sources, chosen, object, progress)?;
                indexes.push(std::mem::replace(&mut raw, next));
            }
        }
    }
    Err(Error::malformed(object, "indexes are nested too deeply"))
}

/// The manifest of a unikernel form that an index names.
fn resolve_form(
    sources: &Sources,
    entry: &Descriptor,
    object: &str,
    progress: &dyn Progress,
) -> Result<(RawManifest, Manifest)> {
    let raw = fetch(sources, entry, object, progress)?;
    match parse_manifest_document(&raw.bytes, &raw.media_type, object)? {
        ManifestDocument::Manifest(manifest) => Ok((raw, manifest)),
        ManifestDocument::Index(_) => Err(Error::malformed(
            object,
            format!("{}, its unikernel form, is an index", entry.digest),
        )),
    }
}

fn fetch(
    sources: &Sources,
    entry: &Descriptor,
    object: &str,
    progress: &dyn Progress,
) -> Result<RawManifest> {
    let digest = entry.digest.to_string();
    let raw = sources.manifest(&digest, progress)?;
    let actual_bytes = raw.bytes.len() as u64;
    if actual_bytes != entry.size_bytes {
        return Err(Error::SizeMismatch {
            object: format!("{object}: manifest {digest}"),
            expected_bytes: entry.size_bytes,
            actual_bytes,
        });
    }
    Ok(raw)
}

struct Pull<'p> {
    store: &'p ImageStore,
    sources: &'p Sources,
    object: &'p str,
    progress: &'p dyn Progress,
}

impl Pull<'_> {
    /// Brings the image of a manifest; returns its id.
    fn image(
        &self,
        incoming: &mut Incoming<'_>,
        raw: &RawManifest,
        manifest: &Manifest,
        mut naming: Naming,
    ) -> Result<(Digest, Busy)> {
        let config = self.config(manifest)?;
        let busy = self.layers(incoming, manifest, &config)?;
        naming.manifest = Some(incoming.add_blob(&raw.bytes)?);
        Ok((incoming.add_image(&config, naming)?, busy))
    }

    fn config(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        let digest = &manifest.config.digest;
        let size_bytes = manifest.config.size_bytes;
        if let Ok(bytes) = crate::blobs::read_blob(&self.store.layout, digest, size_bytes) {
            return Ok(bytes);
        }
        self.sources
            .small_blob(digest, size_bytes, "configuration", self.progress)
    }

    fn layers(
        &self,
        incoming: &mut Incoming<'_>,
        manifest: &Manifest,
        config: &[u8],
    ) -> Result<Busy> {
        let parsed = ImageConfiguration::parse(config, self.object)?;
        if parsed.diff_ids.len() != manifest.layers.len() {
            return Err(Error::malformed(
                self.object,
                format!(
                    "the configuration names {} layers, the manifest {}",
                    parsed.diff_ids.len(),
                    manifest.layers.len()
                ),
            ));
        }
        let pairs: Vec<(&Descriptor, Digest)> =
            manifest.layers.iter().zip(parsed.diff_ids).collect();
        let missing: BTreeSet<Key> = pairs
            .iter()
            .filter(|(_, diff_id)| !incoming.reuse_layer(diff_id))
            .map(|(layer, _)| Key::Blob(layer.digest))
            .collect();
        // Whoever fetches one of them now is waited for; then it may be here.
        let busy = self.store.shared.busy(missing);
        let mut wanted: Vec<Descriptor> = Vec::new();
        let mut promised: Vec<Digest> = Vec::new();
        for (layer, diff_id) in pairs {
            let id = layer.digest.short();
            if incoming.reuse_layer(&diff_id) {
                report(self.progress, &id, Step::AlreadyExists);
            } else if !wanted.iter().any(same_blob(&layer.digest)) {
                report(self.progress, &id, Step::PullingFsLayer);
                wanted.push(layer.clone());
                promised.push(diff_id);
            }
        }
        let transfer = Transfer::new(self.sources, &self.store.layout, self.progress);
        for ((staged, expected), layer) in transfer
            .layers(&wanted)?
            .into_iter()
            .zip(promised)
            .zip(&wanted)
        {
            if staged.diff_id != expected {
                return Err(Error::DigestMismatch {
                    object: format!("{}: layer {}, uncompressed", self.object, layer.digest),
                    expected: expected.to_string(),
                    actual: staged.diff_id.to_string(),
                });
            }
            incoming.add_layer(staged);
        }
        Ok(busy)
    }
}

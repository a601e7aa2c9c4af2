//! Images on their way in: everything is staged in ingest, written to disk by one sync, and made
//! visible by renames and one replacement of the records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use gamut_spec::time;

use super::source::LayerSource;
use super::unpack;
use super::{ImageStore, Key, Lease, State};
use crate::blobs::{self, Layout, StagedDir, StagedFile, SyncPoint};
use crate::config::ImageConfiguration;
use crate::digest::{Digest, chain_ids};
use crate::error::{Error, Result};
use crate::layer::Extracted;
use crate::pipeline::StagedLayer;
use crate::records::{ImageRecord, LayerRecord};

/// One or more images on their way in. Dropping it leaves the store as it was.
pub(crate) struct Incoming<'s> {
    store: &'s ImageStore,
    /// From before anything was written.
    sync_point: SyncPoint,
    origin: &'static str,
    /// Keeps what is there already, and is counted on, from being swept.
    leases: Vec<Lease>,
    blobs: BTreeMap<Digest, StagedFile>,
    /// Unpacked, but not yet known above what: by diff id.
    fresh: HashMap<Digest, (StagedDir, Extracted)>,
    /// Unpacked and complete: by chain id.
    layers: BTreeMap<Digest, StagedDir>,
    /// How each layer is stored, by diff id.
    known: HashMap<Digest, LayerRecord>,
    /// Where layers that are known are unpacked, by diff id.
    unpacked: HashMap<Digest, Digest>,
    images: Vec<NewImage>,
    /// The image that those are made from which come now.
    pub(crate) parent: Option<Digest>,
}

struct NewImage {
    id: Digest,
    record: ImageRecord,
    names: Vec<String>,
    digests: Vec<String>,
    unikernel: Option<Digest>,
}

/// What an image is to be called.
#[derive(Default)]
pub(crate) struct Naming {
    /// The manifest, whose blob must have been added.
    pub(crate) manifest: Option<Digest>,
    /// Documents to be kept with it, whose blobs must have been added: the indexes it was chosen
    /// from, and manifests that refer to it with what those name.
    pub(crate) further: Vec<Digest>,
    /// Canonical names with tags.
    pub(crate) names: Vec<String>,
    /// Canonical names with the digests of manifests or indexes.
    pub(crate) digests: Vec<String>,
    /// Its unikernel form, an image added before, which goes by the same names and digests.
    pub(crate) unikernel: Option<Digest>,
}

impl<'s> Incoming<'s> {
    /// Begins; `origin` says how the images come.
    pub(crate) fn new(store: &'s ImageStore, origin: &'static str) -> Result<Self> {
        check_records(store, &store.shared.state())?;
        Ok(Self {
            store,
            sync_point: store.layout.sync_point()?,
            origin,
            leases: Vec::new(),
            blobs: BTreeMap::new(),
            fresh: HashMap::new(),
            layers: BTreeMap::new(),
            known: HashMap::new(),
            unpacked: HashMap::new(),
            images: Vec::new(),
            parent: None,
        })
    }

    /// Adds a small blob.
    pub(crate) fn add_blob(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.blobs.contains_key(&digest) {
            self.blobs
                .insert(digest, self.store.layout.stage_bytes(bytes)?);
        }
        Ok(digest)
    }

    /// Adds an unpacked layer.
    pub(crate) fn add_layer(&mut self, staged: StagedLayer) -> LayerRecord {
        let record = LayerRecord {
            diff_id: staged.diff_id,
            diff_bytes: staged.diff_bytes,
            blob: staged.blob.digest,
            blob_bytes: staged.blob.bytes,
            compression: staged.blob.compression,
            is_recipe: staged.blob.is_recipe,
            unpacked_bytes: staged.extracted.bytes,
            lost: false,
        };
        if self.known.contains_key(&record.diff_id) {
            return record; // the same layer twice in one archive
        }
        self.blobs.insert(record.blob, staged.blob.file);
        self.fresh
            .insert(staged.diff_id, (staged.dir, staged.extracted));
        self.known.insert(record.diff_id, record.clone());
        record
    }

    /// Counts on a layer that the store has already, if it has one with that diff id. What it is
    /// made of is kept from being swept until this is dropped.
    pub(crate) fn reuse_layer(&mut self, diff_id: &Digest) -> bool {
        if self.known.contains_key(diff_id) {
            return true;
        }
        let (record, chains) = {
            let state = self.store.shared.state();
            let record = state.records.layer_by_diff_id(diff_id).cloned();
            (record, state.records.chains_of(diff_id))
        };
        let Some(record) = record else {
            return false;
        };
        // Leased first, looked for afterwards: then it cannot go in between.
        let layout = &self.store.layout;
        let keys = chains.iter().copied().map(Key::Layer);
        let lease = self
            .store
            .shared
            .lease(keys.chain([Key::Blob(record.blob)]));
        let unpacked = chains.iter().find(|chain| layout.layer_fs(chain).is_dir());
        if !layout.blob(&record.blob).exists() || (record.is_recipe && unpacked.is_none()) {
            return false;
        }
        self.leases.push(lease);
        self.unpacked
            .extend(unpacked.map(|chain| (*diff_id, *chain)));
        self.known.insert(*diff_id, record);
        true
    }

    /// Adds an image all of whose layers have been added or reused. Returns its id.
    pub(crate) fn add_image(&mut self, config: &[u8], naming: Naming) -> Result<Digest> {
        let id = Digest::of(config);
        let object = format!("image {id}");
        let parsed = ImageConfiguration::parse(config, &object)?;
        let chains = chain_ids(&parsed.diff_ids);
        self.leases.push(
            self.store
                .shared
                .lease(chains.iter().copied().map(Key::Layer)),
        );
        let mut layers = Vec::with_capacity(chains.len());
        for (position, diff_id) in parsed.diff_ids.iter().enumerate() {
            let record = self.known.get(diff_id).cloned().ok_or_else(|| {
                Error::malformed(
                    object.as_str(),
                    format!("layer {diff_id} is named by the configuration but is not among the layers given"),
                )
            })?;
            self.place(&chains, position, &record)?;
            layers.push(record);
        }
        self.add_blob(config)?;
        self.images.push(NewImage {
            id,
            record: ImageRecord {
                layers,
                manifest: naming.manifest,
                further: naming.further,
                added_ns: time::now_ns(),
                last_tagged_ns: 0,
                origin: self.origin.to_owned(),
                parent: self.parent,
            },
            names: naming.names,
            digests: naming.digests,
            unikernel: naming.unikernel,
        });
        Ok(id)
    }

    /// Sees to it that the layer at `position` of a stack is unpacked above those below it.
    fn place(&mut self, chains: &[Digest], position: usize, record: &LayerRecord) -> Result<()> {
        let Some(chain_id) = chains.get(position) else {
            return Ok(());
        };
        if self.layers.contains_key(chain_id) || self.store.layout.layer(chain_id).exists() {
            self.unpacked.entry(record.diff_id).or_insert(*chain_id);
            return Ok(());
        }
        let (dir, extracted) = match self.fresh.remove(&record.diff_id) {
            Some(fresh) => fresh,
            None => {
                // The second place of a layer, or the first of one that came without unpacking.
                let files = self.unpacked.get(&record.diff_id).unwrap_or(chain_id);
                let files = self.layer_fs(files);
                let source = LayerSource::new(record, self.blob_path(&record.blob), &files);
                unpack::from_source(&self.store.layout, &source)?
            }
        };
        self.unpacked.entry(record.diff_id).or_insert(*chain_id);
        let lowers: Vec<PathBuf> = chains
            .get(..position)
            .unwrap_or_default()
            .iter()
            .rev()
            .map(|chain| self.layer_fs(chain))
            .collect();
        unpack::complete(&dir, &extracted, &lowers, record)?;
        self.layers.insert(*chain_id, dir);
        Ok(())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs.get(digest).map_or_else(
            || self.store.layout.blob(digest),
            |staged| staged.path.clone(),
        )
    }

    fn layer_fs(&self, chain_id: &Digest) -> PathBuf {
        self.layers.get(chain_id).map_or_else(
            || self.store.layout.layer_fs(chain_id),
            |dir| dir.path.join("fs"),
        )
    }

    /// Writes all to disk and makes it visible: all of it or, on failure, nothing.
    pub(crate) fn commit(mut self) -> Result<()> {
        // Layers that turned out to be unused need not be written first.
        self.fresh.clear();
        let needed: BTreeSet<Digest> = self
            .images
            .iter()
            .flat_map(|image| image.record.blobs(image.id))
            .collect();
        self.blobs.retain(|digest, _| needed.contains(digest));
        self.sync_point.sync()?;

        let result = self.publish();
        if result.is_err() {
            // What was renamed before the failure is referenced by nothing.
            self.leases.clear();
            let store = self.store;
            if let Err(error) = store.sweep(&store.shared.state()) {
                tracing::warn!(%error, "cannot sweep after a failed commit; the next start will");
            }
        }
        result
    }

    fn publish(&mut self) -> Result<()> {
        let layout = &self.store.layout;
        let mut state = self.store.shared.state();
        check_records(self.store, &state)?;
        // An image that is there already, whole, keeps its record: its blobs are the ones on disk.
        let mut images = std::mem::take(&mut self.images);
        for image in &mut images {
            let old = state.records.images.get(&image.id);
            if let Some(old) = old.filter(|old| is_whole(layout, image.id, old)) {
                let manifest = old.manifest.or(image.record.manifest);
                let further = std::mem::take(&mut image.record.further);
                image.record = old.clone();
                image.record.manifest = manifest;
                for document in further {
                    if !image.record.further.contains(&document) {
                        image.record.further.push(document);
                    }
                }
            }
        }
        let needed: BTreeSet<Digest> = images
            .iter()
            .flat_map(|image| image.record.blobs(image.id))
            .collect();
        for (digest, staged) in std::mem::take(&mut self.blobs) {
            let place = layout.blob(&digest);
            if needed.contains(&digest) && !place.exists() {
                staged.keep(&place)?;
            }
        }
        for (chain_id, staged) in std::mem::take(&mut self.layers) {
            let place = layout.layer(&chain_id);
            if !place.exists() {
                staged.keep(&place)?;
            }
        }
        blobs::sync_dir(&layout.blobs())?;
        blobs::sync_dir(&layout.layers())?;
        self.store.edit(&mut state, |records| {
            let now_ns = time::now_ns();
            for image in images {
                insert(records, image, now_ns);
            }
        })
    }
}

/// Without readable records nothing may be added: repairing them would lose it again.
fn check_records(store: &ImageStore, state: &State) -> Result<()> {
    if state.damaged {
        return Err(Error::malformed(
            store.layout.references().display().to_string(),
            "damaged; run `gamut system fsck --repair` before images are added",
        ));
    }
    Ok(())
}

fn insert(records: &mut crate::records::Records, image: NewImage, now_ns: u64) {
    records.images.insert(image.id, image.record);
    for name in image.names {
        records.set_name(name, image.id, image.unikernel, now_ns);
    }
    for name in image.digests {
        records.set_digest(name, image.id, image.unikernel);
    }
}

/// Whether every blob of an image is there, and the files that recipes need.
fn is_whole(layout: &Layout, id: Digest, record: &ImageRecord) -> bool {
    let is_there = |(layer, chain): (&LayerRecord, Digest)| {
        !layer.lost && (!layer.is_recipe || layout.layer_fs(&chain).is_dir())
    };
    record.layers.iter().zip(record.chain_ids()).all(is_there)
        && record.blobs(id).all(|blob| layout.blob(&blob).exists())
}

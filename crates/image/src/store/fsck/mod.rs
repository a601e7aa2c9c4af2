//! Finding and repairing damage.

mod difference;
mod layers;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use super::locks::State;
use super::unpack::digest_of_name;
use super::{ImageStore, Key, entries};
use crate::blobs::{self, StagedDir};
use crate::config::ImageConfiguration;
use crate::digest::{Digest, chain_ids};
use crate::error::{Error, Result};
use crate::manifest::MAX_CONFIG_BYTES;
use crate::records::{ImageRecord, LayerRecord, Records};

/// A damage found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, image or name.
    pub object: String,
    /// What is wrong with it, and what was or can be done.
    pub problem: String,
    /// Whether it has been put right.
    pub repaired: bool,
}

struct Check<'s> {
    store: &'s ImageStore,
    repair: bool,
    findings: Vec<Finding>,
}

impl ImageStore {
    /// Looks for damage: records that cannot be read or that name what is not there, blobs that
    /// are missing or not what their name says, layers that are half unpacked or differ from their
    /// archive, content that nothing needs, and left-overs in ingest. Every blob is hashed and
    /// every layer compared: this takes as long as reading the store twice. Other operations on
    /// the store wait meanwhile.
    ///
    /// With `repair`, damage is put right: layers are unpacked again from their blobs; an image
    /// that cannot be used any more is removed, as where a file is damaged of a layer of which
    /// only the files are kept; a damaged blob whose layer is unpacked is removed and comes back
    /// when the image is next pulled or loaded.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be read at all.
    pub fn fsck(&self, repair: bool) -> Result<Vec<Finding>> {
        let mut check = Check {
            store: self,
            repair,
            findings: Vec::new(),
        };
        let mut state = self.shared.state();
        check.records(&mut state)?;
        let bad_blobs = check.blobs(&state)?;
        check.images(&mut state, &bad_blobs)?;
        check.layers(&mut state, &bad_blobs)?;
        check.unused(&state)?;
        check.ingest(&state)?;
        Ok(check.findings)
    }
}

impl Check<'_> {
    fn found(&mut self, object: impl Into<String>, problem: impl Into<String>) {
        self.findings.push(Finding {
            object: object.into(),
            problem: problem.into(),
            repaired: self.repair,
        });
    }

    /// The records themselves: readable, and each name has its image.
    fn records(&mut self, state: &mut State) -> Result<()> {
        let layout = &self.store.layout;
        let path = layout.references();
        let on_disk = fs::read(&path)
            .ok()
            .and_then(|bytes| Records::parse(&bytes, "records").ok());
        if state.damaged {
            self.found(
                path.display().to_string(),
                "unreadable; rebuilt from its previous version and the blobs (a name given last may be lost)",
            );
            if self.repair {
                let records = self.rebuild()?;
                blobs::replace_file(layout, &path, &records.to_bytes())?;
                state.records = records;
                state.damaged = false;
            }
        } else if on_disk.as_ref() != Some(&state.records)
            && (on_disk.is_some() || path.exists() || !state.records.images.is_empty())
        {
            self.found(
                path.display().to_string(),
                "not what this process has written; written again",
            );
            if self.repair {
                blobs::replace_file(layout, &path, &state.records.to_bytes())?;
            }
        }
        let dangling = state.records.clone().drop_dangling();
        for name in &dangling {
            self.found(
                name.as_str(),
                "the name means an image that is not there; removed",
            );
        }
        if self.repair && !dangling.is_empty() {
            self.store.edit(&mut *state, |records| {
                records.drop_dangling();
            })?;
        }
        Ok(())
    }

    /// Records from their previous version, and from configurations whose layers are all there.
    fn rebuild(&self) -> Result<Records> {
        let layout = &self.store.layout;
        let mut records = fs::read(layout.previous_references())
            .ok()
            .and_then(|bytes| Records::parse(&bytes, "records").ok())
            .unwrap_or_default();
        for path in entries(&layout.blobs())? {
            let Some(id) = digest_of_name(&path) else {
                continue;
            };
            if records.images.contains_key(&id) {
                continue;
            }
            let Some(config) = blobs::read_blob(layout, &id, MAX_CONFIG_BYTES)
                .ok()
                .and_then(|bytes| ImageConfiguration::parse(&bytes, "").ok())
            else {
                continue;
            };
            let layers: Option<Vec<LayerRecord>> = chain_ids(&config.diff_ids)
                .iter()
                .map(|chain| layer_record(&layout.layer(chain)))
                .collect();
            if let Some(layers) = layers {
                let record = ImageRecord {
                    layers,
                    manifest: None,
                    further: Vec::new(),
                    added_ns: gamut_spec::time::now_ns(),
                    last_tagged_ns: 0,
                    origin: "fsck".to_owned(),
                    parent: None,
                };
                records.images.insert(id, record);
            }
        }
        Ok(records)
    }

    /// Every blob is what its name says. Returns those that are not; with `repair`, they are gone.
    fn blobs(&mut self, state: &State) -> Result<BTreeSet<Digest>> {
        let layout = &self.store.layout;
        let mut bad = BTreeSet::new();
        for path in entries(&layout.blobs())? {
            let object = path.display().to_string();
            let Some(expected) = digest_of_name(&path) else {
                self.found(object, "not named by a digest; removed");
                self.remove(&path)?;
                continue;
            };
            let actual = File::open(&path)
                .and_then(|mut file| Digest::of_reader(&mut file))
                .map(|(digest, _)| digest);
            let problem = match actual {
                Ok(actual) if actual == expected => continue,
                Ok(actual) => format!("damaged: its content has digest {actual}; removed"),
                Err(error) => format!("unreadable ({error}); removed"),
            };
            if state.records.live_blobs().contains(&expected) {
                bad.insert(expected);
            }
            self.found(object, problem);
            self.remove(&path)?;
        }
        Ok(bad)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if self.repair {
            blobs::remove_any(path).map_err(Error::io("remove", path))?;
        }
        Ok(())
    }

    /// Every image has what it needs.
    fn images(&mut self, state: &mut State, bad: &BTreeSet<Digest>) -> Result<()> {
        let layout = &self.store.layout;
        let gone = |digest: &Digest| bad.contains(digest) || !layout.blob(digest).exists();
        let mut records = state.records.clone();
        for (id, image) in &state.records.images {
            let object = format!("image {id}");
            let mut unusable = gone(id);
            if unusable && !bad.contains(id) {
                self.found(
                    object.as_str(),
                    "its configuration is missing; pull or load it again",
                );
            }
            for (layer, chain) in image.layers.iter().zip(image.chain_ids()) {
                if layer.lost || !gone(&layer.blob) {
                    continue;
                }
                if !bad.contains(&layer.blob) {
                    self.found(
                        format!("blob {}", layer.blob),
                        format!("missing; {object} needs it: pull or load it again"),
                    );
                }
                // Without its blob, an unpacked layer must be whole to be kept.
                unusable |= layer_record(&layout.layer(&chain)).is_none();
            }
            if unusable {
                self.found(object.as_str(), "unusable; removed, pull or load it again");
                records.images.remove(id);
            } else if let Some(kept) = records.images.get_mut(id) {
                for layer in &mut kept.layers {
                    layer.lost |= gone(&layer.blob);
                }
                if let Some(manifest) = kept.manifest.filter(|manifest| gone(manifest)) {
                    if !bad.contains(&manifest) {
                        self.found(
                            format!("blob {manifest}"),
                            format!("missing; the manifest of {object}: forgotten"),
                        );
                    }
                    kept.manifest = None;
                }
                for document in kept.further.iter().filter(|document| gone(document)) {
                    if !bad.contains(document) {
                        self.found(
                            format!("blob {document}"),
                            format!("missing; a document kept with {object}: forgotten"),
                        );
                    }
                }
                kept.further.retain(|document| !gone(document));
            }
        }
        records.drop_dangling();
        if self.repair {
            self.store.edit(&mut *state, |present| *present = records)?;
        }
        Ok(())
    }

    /// Nothing is kept that nobody needs.
    fn unused(&mut self, state: &State) -> Result<()> {
        if state.damaged {
            return Ok(());
        }
        let live_chains = state.records.live_chains();
        let live_blobs = state.records.live_blobs();
        for (dir, is_layer) in [
            (self.store.layout.layers(), true),
            (self.store.layout.blobs(), false),
        ] {
            for path in entries(&dir)? {
                let digest = digest_of_name(&path);
                let needed = digest.is_some_and(|digest| {
                    let key = if is_layer {
                        Key::Layer(digest)
                    } else {
                        Key::Blob(digest)
                    };
                    let live = if is_layer { &live_chains } else { &live_blobs };
                    live.contains(&digest) || state.is_leased(&key)
                });
                // A blob without a digest for a name has been dealt with.
                if needed || (!is_layer && digest.is_none()) {
                    continue;
                }
                self.found(path.display().to_string(), "no image needs it; removed");
                if self.repair {
                    drop(StagedDir::take(&self.store.layout, &path)?);
                }
            }
        }
        Ok(())
    }

    /// Nothing is left over in ingest. Only told while nothing is on its way in.
    fn ingest(&mut self, state: &State) -> Result<()> {
        if self.store.layout.is_staging() || state.is_anything_leased() {
            return Ok(());
        }
        for path in entries(&self.store.layout.ingest())? {
            self.found(
                path.display().to_string(),
                "left over from an interrupted operation; removed",
            );
            self.remove(&path)?;
        }
        Ok(())
    }
}

/// What a layer's own `layer.json` says, if the layer is complete.
fn layer_record(layer: &Path) -> Option<LayerRecord> {
    if !layer.join("fs").is_dir() {
        return None;
    }
    serde_json::from_slice(&fs::read(layer.join("layer.json")).ok()?).ok()
}

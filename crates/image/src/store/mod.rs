//! The store of images.

mod builtin_images;
pub(crate) mod commit;
pub(crate) mod fsck;
pub(crate) mod incoming;
mod locks;
pub(crate) mod make;
pub(crate) mod prune;
pub(crate) mod remove;
pub(crate) mod source;
mod unpack;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gamut_spec::form::ImageForm;
use gamut_spec::id;
use gamut_spec::reference::Reference;

use crate::blobs::{self, Layout};
use crate::config::{History, ImageConfiguration};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::MAX_CONFIG_BYTES;
use crate::platform::Platform;
use crate::records::{ImageRecord, Records, familiar};
pub(crate) use locks::{Busy, Key, Lease};
use locks::{Shared, State};
use source::LayerSource;

/// A store of images in a directory of its own.
///
/// Layout: `blobs/sha256/<digest>` (manifests, configurations, layers as they came or recipes of
/// them), `layers/<chain id>/{fs,layer.json}` (unpacked), `references.json`, `ingest/` (what is on
/// its way in or out; emptied at open), `lock`.
#[derive(Debug)]
pub struct ImageStore {
    pub(crate) layout: Layout,
    pub(crate) shared: Arc<Shared>,
    /// Holds the lock of the root.
    _lock: File,
}

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…`, the digest of the configuration.
    pub id: String,
    /// Its names as people write them, `alpine:latest`, sorted.
    pub repo_tags: Vec<String>,
    /// Its digests as people write them, `alpine@sha256:…`, sorted.
    pub repo_digests: Vec<String>,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Bytes of the files of all its layers, unpacked.
    pub size_bytes: u64,
    /// When it came into the store, ns since the epoch.
    pub added_ns: u64,
    /// When it got its latest name, ns since the epoch; 0 for never.
    pub last_tagged_ns: u64,
    /// Its names under which there is a unikernel form as well, as people write them, each with
    /// that form's id.
    pub unikernels: BTreeMap<String, String>,
    /// Id of the image it was made from by a commit, while that is there.
    pub parent: Option<String>,
    pub(crate) digest: Digest,
    pub(crate) record: ImageRecord,
}

impl Image {
    /// In what form its program is.
    #[must_use]
    pub fn form(&self) -> ImageForm {
        self.config.platform.form()
    }

    /// All that the image is made of.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let chains = self.record.chain_ids().into_iter().map(Key::Layer);
        self.record.blobs(self.digest).map(Key::Blob).chain(chains)
    }

    /// Where each of its layers comes from, bottom first, as far as they are there.
    pub(crate) fn sources(&self, store: &ImageStore) -> Result<Vec<LayerSource>> {
        let layers = self.record.layers.iter().zip(self.record.chain_ids());
        layers
            .map(|(layer, chain)| store.source(layer, &chain))
            .collect()
    }
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// `sha256:…`.
    pub id: String,
    /// Its names as people write them, sorted; empty if it is dangling.
    pub repo_tags: Vec<String>,
    /// Its digests as people write them, sorted.
    pub repo_digests: Vec<String>,
    /// When it was made, seconds since the epoch; 0 if it does not say.
    pub created_s: u64,
    /// Bytes of the files of all its layers, unpacked.
    pub size_bytes: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it runs on.
    pub platform: Platform,
    /// Its names under which there is a unikernel form as well, as people write them, each with
    /// that form's id.
    pub unikernels: BTreeMap<String, String>,
    /// Id of the image it was made from by a commit, while that is there.
    pub parent: Option<String>,
}

impl ImageStore {
    /// Opens the store at `root`, making it where there is none, and removes what a crash left
    /// half done.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open; [`Error::Io`]; [`Error::Unsupported`] if
    /// a newer build wrote it.
    pub fn open(root: &Path) -> Result<Self> {
        blobs::make_dir(root)?;
        let layout = Layout::new(root.canonicalize().map_err(Error::io("resolve", root))?);
        let lock = lock_root(&layout.root)?;
        for dir in [layout.blobs(), layout.layers(), layout.ingest()] {
            blobs::make_dir(&dir)?;
        }
        blobs::sync_dir(&layout.root)?;
        let (records, damaged) = load_records(&layout)?;
        let store = Self {
            shared: Arc::new(Shared::new(State::new(records, damaged))),
            layout,
            _lock: lock,
        };
        store.empty_ingest()?;
        store.sweep(&store.shared.state())?;
        Ok(store)
    }

    fn empty_ingest(&self) -> Result<()> {
        for path in entries(&self.layout.ingest())? {
            blobs::remove_any(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Finds an image by reference, `name@digest`, or (part of) its id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`], [`Error::OtherPlatform`].
    pub fn get(&self, name_or_id: &str, platform: Option<&Platform>) -> Result<Image> {
        let digest = find(&self.shared.state().records, name_or_id)?;
        let image = self.image(name_or_id, digest)?;
        let Some(wanted) = platform.filter(|wanted| !wanted.accepts(&image.config.platform)) else {
            return Ok(image);
        };
        if wanted.form() == ImageForm::Unikernel
            && let Some(unikernel) = self.unikernel_of(name_or_id)
        {
            return self.image(name_or_id, unikernel);
        }
        Err(Error::OtherPlatform {
            name: name_or_id.to_owned(),
            wanted: wanted.to_string(),
            actual: image.config.platform.to_string(),
        })
    }

    /// Finds an image as [`Self::get`] does, in one form of those that it has.
    ///
    /// # Errors
    /// As [`Self::get`], and [`Error::OtherForm`].
    pub fn get_form(
        &self,
        name_or_id: &str,
        platform: Option<&Platform>,
        form: ImageForm,
    ) -> Result<Image> {
        let mut image = self.get(name_or_id, platform)?;
        if image.form() == form {
            return Ok(image);
        }
        if form == ImageForm::Unikernel
            && let Some(unikernel) = self.unikernel_of(name_or_id)
        {
            image = self.image(name_or_id, unikernel)?;
            if image.form() == form {
                return Ok(image);
            }
        }
        Err(Error::OtherForm {
            name: name_or_id.to_owned(),
            wanted: form,
            actual: image.form(),
        })
    }

    /// The unikernel form that goes by a name beside another.
    pub(crate) fn unikernel_of(&self, name_or_id: &str) -> Option<Digest> {
        let reference = Reference::parse(name_or_id).ok()?;
        let state = self.shared.state();
        state
            .records
            .unikernels
            .get(&reference.to_string())
            .copied()
    }

    fn image(&self, name_or_id: &str, digest: Digest) -> Result<Image> {
        let (record, names, digests, unikernels, parent) = {
            let state = self.shared.state();
            let record = state
                .records
                .images
                .get(&digest)
                .cloned()
                .ok_or_else(|| Error::NoSuchImage(name_or_id.to_owned()))?;
            let names = state.records.names_of(&digest);
            let unikernels = unikernels_of(&state.records, &names);
            let digests = state.records.digests_of(&digest);
            let parent = state.records.parent_of(&record);
            (record, names, digests, unikernels, parent)
        };
        let config = self.read_config(&digest)?;
        Ok(Image {
            id: digest.to_string(),
            repo_tags: names.iter().map(|name| familiar(name)).collect(),
            repo_digests: digests.iter().map(|name| familiar(name)).collect(),
            size_bytes: record.unpacked_bytes(),
            added_ns: record.added_ns,
            last_tagged_ns: record.last_tagged_ns,
            config,
            unikernels,
            parent: parent.map(|parent| parent.to_string()),
            digest,
            record,
        })
    }

    /// All images, newest first, but for those that are only the unikernel form of another. An image whose configuration is damaged is left out and logged;
    /// [`Self::fsck`] tells more.
    ///
    /// # Errors
    /// None at present; reserved for failures of the disk.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        let records = self.shared.state().records.clone();
        let mut summaries = Vec::with_capacity(records.images.len());
        for (id, record) in &records.images {
            let names = records.names_of(id);
            if names.is_empty() && !records.unikernel_names_of(id).is_empty() {
                continue;
            }
            let config = match self.read_config(id) {
                Ok(config) => config,
                Err(error) => {
                    tracing::warn!(%id, %error, "image left out of the list");
                    continue;
                }
            };
            let familiar_all = |names: Vec<String>| -> Vec<String> {
                names.iter().map(|name| familiar(name)).collect()
            };
            summaries.push(ImageSummary {
                id: id.to_string(),
                unikernels: unikernels_of(&records, &names),
                repo_tags: familiar_all(names),
                repo_digests: familiar_all(records.digests_of(id)),
                created_s: created_s(&config),
                size_bytes: record.unpacked_bytes(),
                labels: config.config.labels,
                platform: config.platform,
                parent: records.parent_of(record).map(|parent| parent.to_string()),
            });
        }
        summaries.sort_by(|a, b| b.created_s.cmp(&a.created_s).then_with(|| a.id.cmp(&b.id)));
        Ok(summaries)
    }

    /// Gives the image `source` (name or id) the further name `target`, taking it from another
    /// image where need be.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Malformed`] if `target` has a digest.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        let name = tag_name(target)?;
        let mut state = self.shared.state();
        let id = find(&state.records, source)?;
        let given = Reference::parse(source).ok().map(|name| name.to_string());
        let unikernel = given.and_then(|given| state.records.unikernels.get(&given).copied());
        self.edit(&mut state, |records| {
            records.set_name(name, id, unikernel, gamut_spec::time::now_ns());
        })
    }

    /// The configuration of an image, as stored, verified.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`] if the blob is damaged.
    pub fn config(&self, image: &Image) -> Result<ImageConfiguration> {
        self.read_config(&image.digest)
    }

    /// How the image was made, newest step first as Docker lists it, each with the bytes of its
    /// layer.
    #[must_use]
    pub fn history(&self, image: &Image) -> Vec<(History, u64)> {
        let mut layers = image.record.layers.iter();
        let mut steps: Vec<(History, u64)> = image
            .config
            .history
            .iter()
            .map(|step| {
                let bytes = if step.empty_layer {
                    0
                } else {
                    layers.next().map_or(0, |layer| layer.unpacked_bytes)
                };
                (step.clone(), bytes)
            })
            .collect();
        steps.extend(layers.map(|layer| (History::default(), layer.unpacked_bytes)));
        steps.reverse();
        steps
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    fn read_config(&self, id: &Digest) -> Result<ImageConfiguration> {
        let bytes = blobs::read_blob(&self.layout, id, MAX_CONFIG_BYTES)?;
        ImageConfiguration::parse(&bytes, &format!("image {id}"))
    }

    /// Changes the records, on disk before in memory.
    pub(crate) fn edit(&self, state: &mut State, change: impl FnOnce(&mut Records)) -> Result<()> {
        let mut records = state.records.clone();
        change(&mut records);
        if records != state.records {
            // The version before stays beside it, for fsck.
            let previous = self.layout.previous_references();
            let _ = fs::remove_file(&previous);
            let _ = fs::hard_link(self.layout.references(), &previous);
            blobs::replace_file(&self.layout, &self.layout.references(), &records.to_bytes())?;
            state.records = records;
        }
        Ok(())
    }
}

/// The unikernel forms that go by the names of an image, by the names as people write them.
fn unikernels_of(records: &Records, names: &[String]) -> BTreeMap<String, String> {
    names
        .iter()
        .filter_map(|name| {
            let id = records.unikernels.get(name)?;
            Some((familiar(name), id.to_string()))
        })
        .collect()
}

/// Finds the id that a reference, `name@digest` or (part of) an id means.
pub(crate) fn find(records: &Records, name_or_id: &str) -> Result<Digest> {
    let missing = || Error::NoSuchImage(name_or_id.to_owned());
    let hex = name_or_id.strip_prefix("sha256:");
    if hex.is_none()
        && let Ok(reference) = Reference::parse(name_or_id)
        && let Some(found) = find_reference(records, &reference)
    {
        return Ok(found);
    }
    let prefix = hex.unwrap_or(name_or_id);
    if !id::is_id_prefix(prefix) {
        // A malformed name deserves to be told so.
        if hex.is_none() {
            Reference::parse(name_or_id)?;
        }
        return Err(missing());
    }
    let mut matches = records
        .images
        .keys()
        .filter(|id| id.hex().starts_with(prefix));
    match (matches.next(), matches.next()) {
        (Some(found), None) => Ok(*found),
        (Some(first), Some(second)) => Err(Error::AmbiguousId {
            prefix: prefix.to_owned(),
            candidates: [first, second]
                .into_iter()
                .chain(matches)
                .map(Digest::short)
                .collect(),
        }),
        _ => Err(missing()),
    }
}

fn find_reference(records: &Records, reference: &Reference) -> Option<Digest> {
    let Some(digest) = reference.digest() else {
        return records.names.get(&reference.to_string()).copied();
    };
    let by_digest = reference.with_digest(digest).to_string();
    if let Some(found) = records.digests.get(&by_digest) {
        return Some(*found);
    }
    // `name@<id>` of an image with that name.
    let id: Digest = digest.parse().ok()?;
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    records
        .names_of(&id)
        .iter()
        .any(|name| crate::records::repository_of(name) == repository)
        .then_some(id)
}

/// The canonical name that a tag is stored by.
pub(crate) fn tag_name(target: &Reference) -> Result<String> {
    if target.digest().is_some() {
        return Err(Error::malformed(
            format!("name {target}"),
            "refusing to create a tag with a digest reference; give name:tag",
        ));
    }
    Ok(target.to_string())
}

pub(crate) fn created_s(config: &ImageConfiguration) -> u64 {
    config
        .created
        .as_deref()
        .and_then(gamut_spec::time::parse_rfc3339)
        .map_or(0, |ns| ns / 1_000_000_000)
}

/// The paths in a directory, sorted.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(Error::io("list", dir))?;
    paths.sort();
    Ok(paths)
}

fn lock_root(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    // SAFETY: flock takes a file descriptor, which `file` keeps open, and no memory.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        return Err(if error.kind() == io::ErrorKind::WouldBlock {
            Error::Locked {
                root: root.to_owned(),
            }
        } else {
            Error::io("lock", &path)(error)
        });
    }
    Ok(file)
}

/// Reads the records. A damaged file is put aside and told by the flag, so that the store opens
/// for [`ImageStore::fsck`] and nothing is swept meanwhile.
fn load_records(layout: &Layout) -> Result<(Records, bool)> {
    let path = layout.references();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A fresh store has no blobs either; one that has them has lost its records.
            let fresh = entries(&layout.blobs())?.is_empty();
            return Ok((Records::default(), !fresh));
        }
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    match Records::parse(&bytes, &path.display().to_string()) {
        Ok(records) => Ok((records, false)),
        Err(error @ Error::Unsupported { .. }) => Err(error),
        Err(error) => {
            tracing::error!(%error, "the records of the image store are damaged; run `gamut system fsck`");
            Ok((Records::default(), true))
        }
    }
}

//! Named directories that outlive containers.

use crate::container::record::Provenance;
use crate::error::{Error, Result};
use crate::store::{Collection, Damaged, Durability};
use gamut_spec::error::ErrorKind;
use gamut_spec::{id, time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Version of [`VolumeRecord`] on disk.
const RECORD_VERSION: u32 = 1;
/// What the name of a directory whose removal has begun starts with; no volume's does.
const REMOVING: &str = ".removing-";

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Name.
    pub name: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// Who made it, through what, and why.
    pub provenance: Provenance,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver; see [`crate::local_volume`].
    pub options: BTreeMap<String, String>,
    /// It was made without a name of its own.
    pub anonymous: bool,
    /// The image's content has been copied in (or never will be).
    pub populated: bool,
    /// When a container last used it, in nanoseconds since the epoch, 0 if never.
    pub last_used_ns: u64,
    /// Id of the container for which an anonymous volume was made; empty if for none.
    #[serde(default)]
    pub made_for: String,
}

/// All volumes of an engine. Data lie in `<root>/volumes/<name>/_data`.
#[derive(Debug)]
pub struct Volumes {
    directory: PathBuf,
    store: Collection,
    records: Mutex<BTreeMap<String, VolumeRecord>>,
    /// Directories whose removal is under way.
    doomed: Mutex<BTreeSet<PathBuf>>,
}

impl Volumes {
    /// Opens the volumes below `data_root`.
    ///
    /// # Errors
    /// If the directories cannot be made or read.
    pub fn open(data_root: &Path, state_root: &Path) -> Result<(Self, Vec<Damaged>)> {
        let directory = data_root.join("volumes");
        // Closed: a container's root may leave set-user-id programs in a volume (CVE-2021-41091).
        fs::create_dir_all(&directory)
            .and_then(|()| fs::set_permissions(&directory, Permissions::from_mode(0o700)))
            .map_err(|source| Error::system(format!("make {}", directory.display()), source))?;
        let store = Collection::open(state_root, "volume", RECORD_VERSION)?;
        store.sweep()?;
        let (records, damaged) = store.load::<VolumeRecord>()?;
        let records = records
            .into_iter()
            .map(|(_, record)| (record.name.clone(), record));
        let records = Mutex::new(records.collect());
        let volumes = Self {
            directory,
            store,
            records,
            doomed: Mutex::default(),
        };
        volumes.finish_removals()?;
        Ok((volumes, damaged))
    }

    /// Finishes removals in whose middle a daemon was killed.
    fn finish_removals(&self) -> Result<()> {
        let entries = fs::read_dir(&self.directory).map_err(|source| {
            Error::system(format!("read {}", self.directory.display()), source)
        })?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Some(volume) = name.strip_prefix(REMOVING) else {
                continue;
            };
            let mut records = self.lock();
            if records.contains_key(volume) && !self.directory.join(volume).exists() {
                self.store.remove(volume, Durability::Disk)?;
                records.remove(volume);
            }
            drop(records);
            if let Err(error) = remove_tree(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove a leftover");
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VolumeRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that holds a volume's data.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("_data")
    }

    /// The directory with one entry per volume.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where records are kept.
    #[must_use]
    pub fn store(&self) -> &Collection {
        &self.store
    }

    /// All volumes by name.
    #[must_use]
    pub fn list(&self) -> Vec<VolumeRecord> {
        self.lock().values().cloned().collect()
    }

    /// One volume.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn get(&self, name: &str) -> Result<VolumeRecord> {
        self.lock()
            .get(name)
            .cloned()
            .ok_or_else(|| no_volume(name))
    }

    /// Makes a volume; one of that name that exists is returned as it is. The second value tells
    /// whether it was made now.
    ///
    /// # Errors
    /// If the name is not allowed or the system says no.
    pub fn create(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        provenance: Provenance,
        made_for: &str,
    ) -> Result<(VolumeRecord, bool)> {
        let (name, anonymous) = match name {
            Some(name) if !name.is_empty() => (name.to_owned(), false),
            _ => {
                let fresh = id::random()
                    .map_err(|source| Error::system("make a name for the volume", source))?;
                (fresh, true)
            }
        };
        if name.len() == 1 {
            return Err(Error::invalid(
                "volume name is too short, names should be at least two alphanumeric characters",
            ));
        }
        if !id::is_object_name(&name) {
            return Err(Error::invalid(format!(
                "create {name}: {name:?} includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host \
                 directory, use absolute path"
            )));
        }
        let mut records = self.lock();
        if let Some(record) = records.get(&name) {
            return Ok((record.clone(), false));
        }
        let record = VolumeRecord {
            name: name.clone(),
            created_ns: time::now_ns(),
            provenance,
            labels,
            options,
            anonymous,
            populated: false,
            last_used_ns: 0,
            made_for: if anonymous {
                made_for.to_owned()
            } else {
                String::new()
            },
        };
        let path = self.path(&name);
        fs::create_dir_all(&path)
            .map_err(|source| Error::system(format!("make the volume {name}"), source))?;
        // An anonymous volume belongs to a container and is as durable as that; a named one is
        // acknowledged only when it is on disk.
        let durability = if anonymous {
            Durability::Process
        } else {
            Durability::Disk
        };
        if let Err(error) = self.store.put(&name, &record, durability) {
            // Empty: only what this call has made.
            let _ = fs::remove_dir(&path);
            let _ = fs::remove_dir(self.directory.join(&name));
            return Err(error);
        }
        records.insert(name, record.clone());
        Ok((record, true))
    }

    /// Notes that a volume is used now, and whether it needs no copy of the image's content.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn used(&self, name: &str, populated: bool) -> Result<()> {
        let mut records = self.lock();
        let record = records.get_mut(name).ok_or_else(|| no_volume(name))?;
        let mut changed = record.clone();
        changed.last_used_ns = time::now_ns();
        changed.populated |= populated;
        self.store.put(name, &changed, Durability::Process)?;
        *record = changed;
        Ok(())
    }

    /// Removes a volume and its data. That nothing uses it is the caller's to check.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or if the data cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut records = self.lock();
        if !records.contains_key(name) {
            return Err(no_volume(name));
        }
        crate::volume_mount::unmount(&self.path(name))
            .map_err(|source| Error::system(format!("unmount the volume {name}"), source))?;
        // Renamed first, so that a kill in between leaves either the volume or a leftover that
        // the next start sweeps, never half a volume.
        let doomed = self.directory.join(format!("{REMOVING}{name}"));
        // What an earlier removal could not remove would be in the way.
        remove_tree(&doomed)
            .map_err(|source| Error::system(format!("remove {}", doomed.display()), source))?;
        match fs::rename(self.directory.join(name), &doomed) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other
                .map_err(|source| Error::system(format!("remove the volume {name}"), source))?,
        }
        self.store.remove(name, Durability::Disk)?;
        records.remove(name);
        self.lock_doomed().insert(doomed.clone());
        drop(records);
        let removed = remove_tree(&doomed)
            .map_err(|source| Error::system(format!("remove the data of volume {name}"), source));
        self.lock_doomed().remove(&doomed);
        removed
    }

    fn lock_doomed(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Directories without a record and leftovers of interrupted removals.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn strays(&self) -> std::io::Result<Vec<PathBuf>> {
        let records = self.lock();
        let doomed = self.lock_doomed();
        let mut strays = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_known = records.contains_key(entry.file_name().to_string_lossy().as_ref());
            if !is_known && !doomed.contains(&entry.path()) {
                strays.push(entry.path());
            }
        }
        Ok(strays)
    }

    /// Adopts a data directory that lost its record.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if its name names no volume.
    pub fn adopt(&self, name: &str) -> Result<()> {
        if name.starts_with('.') {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{name} is no volume"),
            ));
        }
        self.create(
            Some(name),
            BTreeMap::new(),
            BTreeMap::new(),
            Provenance::default(),
            "",
        )?;
        self.used(name, true)
    }
}

/// Removes a directory tree without following links or crossing into mounts.
///
/// # Errors
/// The first thing that cannot be removed.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    gamut_image::layer::remove_tree(path).map_err(std::io::Error::other)
}
fn no_volume(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("get {name}: no such volume"))
}

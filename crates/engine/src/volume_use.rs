//! Volumes as the engine sees them: who uses them, and what happens to them.

use crate::container::record::{ContainerRecord, Provenance};
use crate::container::remove::Pruned;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::system::usage;
use crate::volume::VolumeRecord;
use crate::volume_block;
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::path::PathBuf;

impl Engine {
    /// Notes that something happened to a volume.
    pub(crate) fn volume_event(&self, action: &str, name: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.emit("volume", action, name, attributes);
    }

    /// Makes a volume, or returns the one that has the name.
    ///
    /// # Errors
    /// If the name is not allowed.
    pub fn create_volume(
        &self,
        caller: &Caller,
        name: Option<&str>,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Result<VolumeRecord> {
        let block_bytes = volume_block::bytes(&options)?;
        let mut others = options.keys().filter(|name| *name != volume_block::OPTION);
        if let Some(option) = others.next() {
            return Err(Error::invalid(format!(
                "create volume: the driver option {option:?} is not supported yet"
            )));
        }
        let provenance = Provenance {
            uid: caller.peer_uid,
            client: caller.client.clone(),
            purpose: labels.get("gamut.purpose").cloned().unwrap_or_default(),
        };
        let (record, fresh) = self.volumes.create(name, labels, options, provenance, "")?;
        if fresh {
            if let Some(bytes) = block_bytes
                && let Err(error) = volume_block::make(&self.volumes.path(&record.name), bytes)
            {
                self.volumes.remove(&record.name)?;
                return Err(error);
            }
            self.volume_event("create", &record.name);
        }
        Ok(record)
    }

    /// All volumes by name.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeRecord> {
        self.volumes.list()
    }

    /// One volume.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, name: &str) -> Result<VolumeRecord> {
        self.volumes.get(name)
    }

    /// Directory that holds a volume's data.
    #[must_use]
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.volumes.path(name)
    }

    /// Containers, running or not, that mount the volume.
    #[must_use]
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |record: &ContainerRecord| {
            record
                .mounts
                .iter()
                .any(|mount| mount.volume.as_deref() == Some(name))
        };
        let users = self.index.all();
        users
            .iter()
            .filter(|user| user.read(uses))
            .map(|user| user.id.clone())
            .collect()
    }

    /// Removes a volume that no container mounts.
    ///
    /// # Errors
    /// `Conflict` if one does; `NotFound` unless `force`.
    pub fn remove_volume(&self, _caller: &Caller, name: &str, force: bool) -> Result<()> {
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        match self.volumes.remove(name) {
            Err(error) if force && error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.volume_event("destroy", name);
                Ok(())
            }
        }
    }

    /// Removes volumes that no container mounts: anonymous ones, or `all`, that `wanted` picks.
    ///
    /// # Errors
    /// The first that cannot be removed.
    pub fn prune_volumes(
        &self,
        caller: &Caller,
        all: bool,
        wanted: &dyn Fn(&VolumeRecord) -> bool,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for record in self.volumes.list() {
            let idle = (all || record.anonymous) && self.volume_users(&record.name).is_empty();
            if !idle || !wanted(&record) {
                continue;
            }
            let bytes = usage::tree_bytes(&self.volumes.path(&record.name));
            match self.remove_volume(caller, &record.name, true) {
                // A container took it meanwhile.
                Err(error) if error.kind() == ErrorKind::Conflict => continue,
                other => other?,
            }
            pruned.removed.push(record.name);
            pruned.reclaimed_bytes += bytes;
        }
        Ok(pruned)
    }
}

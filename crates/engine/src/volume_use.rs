//! Volumes as the engine sees them: who uses them, and what happens to them.

use crate::container::record::{ContainerRecord, Provenance, ResolvedMount};
use crate::container::remove::Pruned;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::local_volume::LocalMount;
use crate::system::usage;
use crate::volume::VolumeRecord;
use crate::volume_block;
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The volumes of a container, each with its mount.
fn volumes_of(record: &ContainerRecord) -> impl Iterator<Item = (&str, &ResolvedMount)> {
    let mounts = record.mounts.iter();
    mounts.filter_map(|mount| Some((mount.volume.as_deref()?, mount)))
}

impl Engine {
    /// Notes that something happened to a volume.
    pub(crate) fn volume_event(&self, action: &str, name: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.emit("volume", action, name, attributes);
    }

    /// Tells of volumes that were made with a container.
    pub(crate) fn volumes_made(&self, names: &[String]) {
        for name in names {
            self.volume_event("create", name);
        }
    }

    /// Tells that a container which is about to start has its volumes.
    pub(crate) fn volumes_mounted(&self, record: &ContainerRecord) {
        for (name, mount) in volumes_of(record) {
            let attributes = [
                ("container", record.id.as_str()),
                ("destination", &mount.destination),
                ("driver", "local"),
                ("propagation", &mount.propagation),
                ("read/write", if mount.readonly { "false" } else { "true" }),
            ];
            let own = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
            self.events.emit("volume", "mount", name, own.into());
        }
    }

    /// Tells that a container has ended, and needs its volumes no more.
    pub(crate) fn volumes_unmounted(&self, record: &ContainerRecord) {
        for (name, _) in volumes_of(record) {
            let attributes = [("container", record.id.as_str()), ("driver", "local")];
            let own = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
            self.events.emit("volume", "unmount", name, own.into());
        }
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
        if !self.is_trusted(caller) && !options.is_empty() {
            return Err(Self::denied(caller, "a volume with options"));
        }
        if let Some(name) = name {
            self.authorize_volume(caller, name)?;
        }
        let provenance = Provenance {
            uid: caller.peer_uid,
            client: caller.client.clone(),
            purpose: labels.get("gamut.purpose").cloned().unwrap_or_default(),
        };
        let (record, fresh) = self.make_volume(name, labels, options, provenance, "")?;
        if fresh {
            self.volume_event("create", &record.name);
        }
        Ok(record)
    }

    /// Makes a volume with what its options ask for, or finds the one that has the name: then the
    /// second is false. `container` is whose it is, if it is anonymous.
    pub(crate) fn make_volume(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        provenance: Provenance,
        container: &str,
    ) -> Result<(VolumeRecord, bool)> {
        LocalMount::parse(&options)
            .map_err(|error| Error::invalid(format!("create {}: {error}", name.unwrap_or(""))))?;
        let block_bytes = volume_block::bytes(&options)?;
        let (record, fresh) = self
            .volumes
            .create(name, labels, options, provenance, container)?;
        if let Some(bytes) = block_bytes.filter(|_| fresh)
            && let Err(error) = volume_block::make(&self.volumes.path(&record.name), bytes)
        {
            self.volumes.remove(&record.name)?;
            return Err(error);
        }
        Ok((record, fresh))
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
            if !idle || !wanted(&record) || !self.may_use(caller, record.provenance.uid) {
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

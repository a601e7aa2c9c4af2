//! Renaming and removing containers.

use super::create::check_name;
use super::live::Container;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::store::Durability;
use crate::volume;
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a clean-up has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids or names of what was removed.
    pub removed: Vec<String>,
    /// Bytes freed on disk.
    pub reclaimed_bytes: u64,
}

impl Engine {
    /// Removes a container; a running one only with `force`. With `volumes`, its anonymous
    /// volumes go too.
    ///
    /// # Errors
    /// `Conflict` if it runs.
    pub fn remove_container(
        &self,
        caller: &Caller,
        name_or_id: &str,
        force: bool,
        volumes: bool,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        if container.life().borrow().removed {
            return Err(Error::not_found("container", name_or_id));
        }
        if container.phase().is_live() {
            if !force {
                return Err(Error::conflict(format!(
                    "cannot remove container \"{}\": container is running: stop the container \
                     before removing or force remove",
                    container.read(|record| record.name.clone())
                )));
            }
            match self.stop_now(caller, &container, Some(gamut_spec::signal::KILL), Some(0)) {
                Err(error) if error.kind() != ErrorKind::NotModified => return Err(error),
                _ => {}
            }
        }
        self.remove_now(caller, &container, volumes)
    }

    /// Removes a container that does not run and whose turn the caller holds. Once begun, an
    /// interrupted removal is finished when the engine is opened next.
    pub(crate) fn remove_now(
        &self,
        caller: &Caller,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<()> {
        if container.life().borrow().removed {
            return Ok(());
        }
        container.change(&self.store, Durability::Process, |record| {
            record.removing = true;
            record.removing_volumes |= volumes;
        })?;
        self.level_of(container)?
            .delete(&caller.context(None), &container.id)?;
        let record = container.record();
        self.networking.release(&container.id, &record.leases);
        let directory = self.container_directory(&container.id);
        volume::remove_tree(&directory).map_err(|source| {
            Error::system(
                format!("remove the files of container {}", container.id),
                source,
            )
        })?;
        if record.removing_volumes {
            for mount in record.mounts.iter().filter(|mount| mount.anonymous) {
                let Some(name) = &mount.volume else { continue };
                // Others may have taken it over with --volumes-from: the last one removes it.
                let users = self.volume_users(name);
                if users.iter().any(|user| *user != container.id) {
                    continue;
                }
                match self.volumes.remove(name) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    Err(_) => {}
                    Ok(()) => self.volume_event("destroy", name),
                }
            }
        }
        let durability = if record.spec.auto_remove {
            Durability::Process
        } else {
            Durability::Disk
        };
        self.store.remove(&container.id, durability)?;
        self.emit_container(container, "destroy", BTreeMap::new());
        self.lock_execs()
            .retain(|_, exec| exec.container_id != container.id);
        self.index.remove(container);
        container.announce(|life| {
            life.live = false;
            life.removed = true;
        });
        Ok(())
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `Conflict` if the name is in use.
    pub fn rename_container(
        &self,
        _caller: &Caller,
        name_or_id: &str,
        new_name: &str,
    ) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        let new_name = new_name.strip_prefix('/').unwrap_or(new_name);
        let old_name = container.read(|record| record.name.clone());
        if old_name == new_name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        check_name(new_name)
            .and_then(|()| self.index.reserve(new_name, &container.id))
            .map_err(|error| {
                let text = error.full_message();
                Error::new(
                    error.kind(),
                    format!("Error when allocating new name: {text}"),
                )
            })?;
        let renamed = container.change(&self.store, Durability::Disk, |record| {
            new_name.clone_into(&mut record.name);
        });
        if let Err(error) = renamed {
            self.index.release(new_name, &container.id);
            return Err(error);
        }
        self.index.release(&old_name, &container.id);
        self.resolver_changed(&container, None);
        let attributes = BTreeMap::from([("oldName".to_owned(), format!("/{old_name}"))]);
        self.emit_container(&container, "rename", attributes);
        Ok(())
    }

    /// Removes every container that does not run and that `wanted` picks.
    ///
    /// # Errors
    /// The first that cannot be removed.
    pub fn prune_containers(
        &self,
        caller: &Caller,
        wanted: &dyn Fn(&super::record::ContainerRecord) -> bool,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for container in self.index.all() {
            let _turn = container.operate();
            let idle = !container.phase().is_live() && !container.life().borrow().removed;
            let picked = |record: &super::record::ContainerRecord| {
                self.may_use(caller, record.provenance.uid) && wanted(record)
            };
            if !idle || !container.read(picked) {
                continue;
            }
            let bytes = crate::system::usage::tree_bytes(&self.container_directory(&container.id));
            self.remove_now(caller, &container, false)?;
            pruned.removed.push(container.id.clone());
            pruned.reclaimed_bytes += bytes;
        }
        Ok(pruned)
    }
}

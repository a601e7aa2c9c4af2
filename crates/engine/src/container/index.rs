//! Containers by id and by name.

use super::live::Container;
use crate::error::{Error, Result};
use gamut_spec::id;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// All containers of an engine.
#[derive(Debug, Default)]
pub struct Index {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names in use, those of containers about to be made included.
    names: HashMap<String, String>,
}

impl Index {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds by full id, name (with or without a slash), or unambiguous id prefix.
    ///
    /// # Errors
    /// [`gamut_spec::error::ErrorKind::NotFound`], or `InvalidArgument` for an ambiguous prefix.
    pub fn find(&self, name_or_id: &str) -> Result<Arc<Container>> {
        let inner = self.read();
        let bare = name_or_id.strip_prefix('/').unwrap_or(name_or_id);
        if let Some(container) = inner.by_id.get(bare) {
            return Ok(Arc::clone(container));
        }
        let by_name = inner.names.get(bare).and_then(|id| inner.by_id.get(id));
        if let Some(container) = by_name {
            return Ok(Arc::clone(container));
        }
        if id::is_id_prefix(bare) {
            let mut matches = inner
                .by_id
                .range(bare.to_owned()..)
                .take_while(|(id, _)| id.starts_with(bare));
            if let Some((_, container)) = matches.next() {
                if matches.next().is_some() {
                    return Err(Error::invalid(format!(
                        "multiple IDs found with provided prefix: {bare}"
                    )));
                }
                return Ok(Arc::clone(container));
            }
        }
        Err(Error::not_found("container", name_or_id))
    }

    /// All containers.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Reserves a name for an id.
    ///
    /// # Errors
    /// [`gamut_spec::error::ErrorKind::Conflict`] if another container has it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut inner = self.write();
        match inner.names.get(name) {
            Some(owner) if owner != id => Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \
                 \"{owner}\". You have to remove (or rename) that container to be able to reuse \
                 that name."
            ))),
            _ => {
                inner.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Gives a name back.
    pub fn release(&self, name: &str, id: &str) {
        let mut inner = self.write();
        if inner.names.get(name).is_some_and(|owner| owner == id) {
            inner.names.remove(name);
        }
    }

    /// Ids of containers about to be made.
    #[must_use]
    pub fn in_the_making(&self) -> Vec<String> {
        let inner = self.read();
        inner
            .names
            .values()
            .filter(|id| !inner.by_id.contains_key(*id))
            .cloned()
            .collect()
    }

    /// Adds a container whose name has been reserved.
    pub fn insert(&self, container: Arc<Container>) {
        self.write().by_id.insert(container.id.clone(), container);
    }

    /// Removes a container and its name.
    pub fn remove(&self, container: &Container) {
        let mut inner = self.write();
        inner.by_id.remove(&container.id);
        inner.names.retain(|_, owner| *owner != container.id);
    }
}

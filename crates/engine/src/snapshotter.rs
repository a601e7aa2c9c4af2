//! How the root of a container comes from the layers of its image.

use crate::container::live::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::files;
use gamut_isolation::contract::RootSource;
use gamut_spec::error::ErrorKind;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory, beside the log, of a root that was put together by copying.
const COPY: &str = "rootfs";

/// How the root of a container comes from the layers of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshotter {
    /// A writable layer above the shared read-only ones, by overlayfs.
    Overlay,
    /// A copy of all layers for each container, sharing content where the file system can. Takes
    /// its time at the first start, and the disk.
    Copy,
}

impl Snapshotter {
    /// Its name, as Docker's `info` tells storage drivers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay2",
            Self::Copy => "copy",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Overlay, Self::Copy]
            .into_iter()
            .find(|one| one.name() == name)
    }

    /// Tries whether overlayfs takes a writable layer below `data_root`; it does not if that is on
    /// an overlayfs itself (as in a container without a volume there), or on NFS.
    ///
    /// # Errors
    /// If the directories to try with cannot be made.
    pub fn detect(data_root: &Path) -> Result<Self> {
        let place = data_root.join("overlay-trial");
        let failed = |source| Error::system(format!("make {}", place.display()), source);
        let lower = place.join("lower");
        // Left by a daemon that was killed at it.
        remove(&place).map_err(failed)?;
        for directory in [&lower, &place.join("upper"), &place.join("work")] {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let tried = files::try_overlay(&lower, &place);
        if let Err(error) = remove(&place) {
            tracing::warn!(path = %place.display(), %error, "cannot be removed");
        }
        Ok(match tried {
            Ok(()) => Self::Overlay,
            Err(error) => {
                tracing::warn!(
                    data_root = %data_root.display(), %error,
                    "overlayfs cannot be used: containers get copies of their images; \
                     a volume at the data root would save time and space"
                );
                Self::Copy
            }
        })
    }
}

fn remove(place: &Path) -> io::Result<()> {
    match gamut_image::layer::remove_tree(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The root that a container's directory holds as a copy, whichever snapshotter is in use now.
pub(crate) fn copied_root(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(COPY)).filter(|root| root.is_dir())
}

fn own_ids_need_overlayfs() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "user ids of a container's own are not supported yet with the storage driver copy: use --userns host, or a data root on which overlayfs can be used (a volume or a tmpfs)",
    )
}

impl Engine {
    /// How roots are made.
    #[must_use]
    pub fn snapshotter(&self) -> Snapshotter {
        self.snapshotter
    }

    /// Refuses user ids of a container's own where its root would be a copy, whose ids are not
    /// mapped.
    pub(crate) fn check_own_ids(&self) -> Result<()> {
        match self.snapshotter {
            Snapshotter::Overlay => Ok(()),
            Snapshotter::Copy => Err(own_ids_need_overlayfs()),
        }
    }

    /// What a container's root is made of; a copy is made now if it is missing. The caller has the
    /// container's turn.
    pub(crate) fn root_source(
        &self,
        container: &Container,
        layers: &[PathBuf],
    ) -> Result<RootSource> {
        let writable = self.container_directory(&container.id);
        let has_own_ids = container.read(|record| record.ids.is_some());
        if has_own_ids && copied_root(&writable).is_none() {
            self.check_own_ids()?;
        }
        match self.copied(&writable, layers)? {
            Some(_) if has_own_ids => Err(own_ids_need_overlayfs()),
            Some(copy) => Ok(RootSource::Directory(copy)),
            None => Ok(RootSource::Layers {
                lower: layers.to_vec(),
                writable,
                volatile: container.read(|record| record.spec.auto_remove),
            }),
        }
    }

    /// The copy that is a container's root, made now if it is missing; `None` with overlayfs.
    pub(crate) fn copied(&self, directory: &Path, layers: &[PathBuf]) -> Result<Option<PathBuf>> {
        if let Some(copy) = copied_root(directory) {
            return Ok(Some(copy));
        }
        if self.snapshotter == Snapshotter::Overlay {
            return Ok(None);
        }
        let (copy, unfinished) = (directory.join(COPY), directory.join("rootfs.unfinished"));
        let failed =
            |source| Error::system(format!("copy the image to {}", copy.display()), source);
        // What a container has written while overlayfs could be used is its topmost layer.
        let upper = Some(directory.join("upper")).filter(|upper| upper.is_dir());
        let all: Vec<PathBuf> = upper.into_iter().chain(layers.iter().cloned()).collect();
        remove(&unfinished)
            .and_then(|()| files::merge::layers(&all, &unfinished))
            .and_then(|()| fs::rename(&unfinished, &copy))
            .map_err(failed)?;
        Ok(Some(copy))
    }
}

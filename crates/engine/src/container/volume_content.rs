//! What an image has at a mount point goes into an empty volume first.

use super::record::{ContainerRecord, MountKind, ResolvedMount};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::files::open_beneath;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

impl Engine {
    /// Copies what the image has at the mount points of volumes into those that are empty, before
    /// the container's first start, and notes that its volumes are used now.
    ///
    /// # Errors
    /// If something cannot be copied or noted.
    pub(crate) fn fill_volumes(&self, record: &ContainerRecord, layers: &[PathBuf]) -> Result<()> {
        let is_first = record.state.started_ns == 0;
        for mount in &record.mounts {
            let (MountKind::Volume, Some(volume)) = (mount.kind, &mount.volume) else {
                continue;
            };
            let fills = mount.copy_up && is_first;
            if fills {
                fill(layers, mount).map_err(|source| {
                    Error::system(format!("fill the volume at {}", mount.destination), source)
                })?;
            }
            self.volumes.used(volume, fills)?;
        }
        Ok(())
    }
}

/// With owners, modes, times, links and extended attributes. A target that is not empty, or no
/// directory, is left alone.
fn fill(layers: &[PathBuf], mount: &ResolvedMount) -> io::Result<()> {
    let source = Path::new(&mount.source);
    let part;
    let target = if mount.subpath.is_empty() {
        source.to_owned()
    } else {
        match open_beneath(source, &mount.subpath) {
            // The start tells of it.
            Err(_) => return Ok(()),
            Ok(found) => part = found,
        }
        PathBuf::from(format!("/proc/self/fd/{}", part.as_raw_fd()))
    };
    if !target.is_dir() || std::fs::read_dir(&target)?.next().is_some() {
        return Ok(());
    }
    crate::files::copy::from_layers(layers, &mount.destination, &target)
}

//! What images take on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{ImageStore, entries};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::unpack::digest_of_name;

/// Bytes per block in `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

/// What all images take on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Per image.
    pub images: Vec<ImageUsage>,
    /// All of the store's directory, as `du` counts it.
    pub total_bytes: u64,
}

/// What one image takes on disk: blobs and unpacked layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// `sha256:…`.
    pub id: String,
    /// Bytes that other images need too.
    pub shared_bytes: u64,
    /// Bytes that would be freed with this image.
    pub unique_bytes: u64,
}

impl ImageStore {
    /// What images take on disk, counted as `du` does: blocks, hard links once.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let records = self.shared.state().records.clone();
        let layers = sizes(&self.layout.layers())?;
        let blobs = sizes(&self.layout.blobs())?;
        let mut users: BTreeMap<(bool, Digest), usize> = BTreeMap::new();
        let parts =
            |id: &Digest, image: &crate::records::ImageRecord| -> BTreeSet<(bool, Digest)> {
                let chains = image.chain_ids().into_iter().map(|chain| (true, chain));
                image
                    .blobs(*id)
                    .map(|blob| (false, blob))
                    .chain(chains)
                    .collect()
            };
        for (id, image) in &records.images {
            for part in parts(id, image) {
                *users.entry(part).or_insert(0) += 1;
            }
        }
        let images = records
            .images
            .iter()
            .map(|(id, image)| {
                let (mut shared_bytes, mut unique_bytes) = (0, 0);
                for part in parts(id, image) {
                    let sizes = if part.0 { &layers } else { &blobs };
                    let bytes = sizes.get(&part.1).copied().unwrap_or(0);
                    if users.get(&part).is_some_and(|count| *count > 1) {
                        shared_bytes += bytes;
                    } else {
                        unique_bytes += bytes;
                    }
                }
                ImageUsage {
                    id: id.to_string(),
                    shared_bytes,
                    unique_bytes,
                }
            })
            .collect();
        Ok(DiskUsage {
            images,
            total_bytes: disk_bytes(&self.layout.root)?,
        })
    }
}

fn sizes(dir: &Path) -> Result<BTreeMap<Digest, u64>> {
    let mut sizes = BTreeMap::new();
    for path in entries(dir)? {
        if let Some(digest) = digest_of_name(&path) {
            sizes.insert(digest, disk_bytes(&path)?);
        }
    }
    Ok(sizes)
}

/// Bytes on disk of a file or tree, hard links counted once. What vanishes meanwhile counts 0.
pub(crate) fn disk_bytes(path: &Path) -> Result<u64> {
    let mut seen = BTreeSet::new();
    let mut total_bytes = 0;
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("measure", &path)(error)),
        };
        if metadata.nlink() > 1
            && !metadata.is_dir()
            && !seen.insert((metadata.dev(), metadata.ino()))
        {
            continue;
        }
        total_bytes += metadata.blocks() * STAT_BLOCK_BYTES;
        if metadata.is_dir() {
            match entries(&path) {
                Ok(children) => pending.extend(children),
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(total_bytes)
}

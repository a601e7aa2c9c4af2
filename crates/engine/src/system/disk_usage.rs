//! Who takes how much of the disk.

use super::usage;
use crate::container::record::ContainerRecord;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::volume::VolumeRecord;
use std::collections::BTreeMap;

/// Who takes how much of the disk. The parts add up to what `du` tells of the data root.
#[derive(Debug, Clone)]
pub struct DiskUsage {
    /// All of the image store, shared layers once.
    pub layers_bytes: u64,
    /// Per image.
    pub images: Vec<ImageShare>,
    /// Per container: writable layer, log and generated files.
    pub containers: Vec<ContainerShare>,
    /// Per volume.
    pub volumes: Vec<VolumeShare>,
}

/// What an image takes.
#[derive(Debug, Clone)]
pub struct ImageShare {
    /// Id.
    pub id: String,
    /// Names.
    pub repo_tags: Vec<String>,
    /// Digests.
    pub repo_digests: Vec<String>,
    /// When it was made, seconds since the epoch.
    pub created_s: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes that other images need too.
    pub shared_bytes: u64,
    /// Bytes that would be freed with it.
    pub unique_bytes: u64,
    /// Containers made from it.
    pub containers: usize,
}

/// What a container takes.
#[derive(Debug, Clone)]
pub struct ContainerShare {
    /// The container.
    pub record: ContainerRecord,
    /// Bytes.
    pub bytes: u64,
}

/// What a volume takes.
#[derive(Debug, Clone)]
pub struct VolumeShare {
    /// The volume.
    pub record: VolumeRecord,
    /// Bytes.
    pub bytes: u64,
    /// Containers that mount it.
    pub users: usize,
}

impl Engine {
    /// Who takes how much of the disk.
    ///
    /// # Errors
    /// If the image store cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let failed = |source: gamut_image::Error| Error::system("measure the image store", source);
        let store = self.images.disk_usage().map_err(failed)?;
        let listed = self.images.list().map_err(failed)?;
        let records = self.containers();
        let images = listed
            .into_iter()
            .map(|image| {
                let share = store.images.iter().find(|share| share.id == image.id);
                ImageShare {
                    containers: records.iter().filter(|r| r.image_id == image.id).count(),
                    shared_bytes: share.map_or(0, |share| share.shared_bytes),
                    unique_bytes: share.map_or(0, |share| share.unique_bytes),
                    id: image.id,
                    repo_tags: image.repo_tags,
                    repo_digests: image.repo_digests,
                    created_s: image.created_s,
                    labels: image.labels,
                }
            })
            .collect();
        let volumes = self
            .volumes
            .list()
            .into_iter()
            // What is mounted elsewhere takes nothing here.
            .filter(|record| record.options.is_empty())
            .map(|record| VolumeShare {
                bytes: usage::tree_bytes(&self.volumes.path(&record.name)),
                users: self.volume_users(&record.name).len(),
                record,
            })
            .collect();
        let containers = records
            .into_iter()
            .map(|record| ContainerShare {
                bytes: usage::tree_bytes(&self.container_directory(&record.id)),
                record,
            })
            .collect();
        Ok(DiskUsage {
            layers_bytes: store.total_bytes,
            images,
            containers,
            volumes,
        })
    }

    /// Bytes of a container's writable layer, and of all that it sees.
    #[must_use]
    pub fn container_sizes(&self, record: &ContainerRecord) -> (u64, u64) {
        let directory = self.container_directory(&record.id);
        if let Some(copy) = crate::snapshotter::copied_root(&directory) {
            let own = usage::tree_bytes(&copy);
            return (own, own);
        }
        let own = usage::tree_bytes(&directory.join("upper"));
        let image = self
            .images
            .get(&record.image_id, None)
            .map_or(0, |image| image.size_bytes);
        (own, own + image)
    }
}

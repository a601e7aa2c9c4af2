//! Removing images that nobody needs.

use super::remove::Removal;
use super::{ImageStore, created_s};
use crate::digest::Digest;
use crate::error::Result;
use crate::records::familiar;
use crate::store::usage;

/// Which images may be pruned.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Only images made before this, seconds since the epoch.
    pub until_s: Option<u64>,
    /// Only images with all these labels: name and, if given, value.
    pub labels: Vec<(String, Option<String>)>,
    /// Only images with none of these labels.
    pub without_labels: Vec<(String, Option<String>)>,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names and images gone.
    pub removals: Vec<Removal>,
    /// Bytes freed on disk.
    pub reclaimed_bytes: u64,
}

impl ImageStore {
    /// Removes images without names (`all`: also named ones) that no container uses, as told by
    /// `in_use` with an id, and all content that no image needs.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn prune(
        &self,
        all: bool,
        in_use: &dyn Fn(&str) -> bool,
        filter: &PruneFilter,
    ) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let mut state = self.shared.state();
        let candidates: Vec<Digest> = state
            .records
            .images
            .keys()
            .filter(|id| all || !state.records.is_named(id))
            .filter(|id| !in_use(&id.to_string()) && self.may_go(id, filter))
            .copied()
            .collect();
        for id in &candidates {
            let names = state
                .records
                .names_of(id)
                .into_iter()
                .chain(state.records.digests_of(id));
            pruned
                .removals
                .extend(names.map(|name| Removal::Untagged(familiar(&name))));
            pruned.removals.push(Removal::Deleted(id.to_string()));
        }
        self.edit(&mut state, |records| {
            for id in &candidates {
                records.images.remove(id);
            }
            records.drop_dangling();
        })?;
        if state.damaged {
            return Ok(pruned);
        }
        let taken = self.take_unused(&state.records, &|key| state.is_leased(key))?;
        drop(state);
        for dir in &taken.trash {
            pruned.reclaimed_bytes += usage::disk_bytes(&dir.path)?;
        }
        Ok(pruned)
    }

    fn may_go(&self, id: &Digest, filter: &PruneFilter) -> bool {
        if filter.until_s.is_none() && filter.labels.is_empty() && filter.without_labels.is_empty()
        {
            return true;
        }
        // What cannot be read cannot be shown to match.
        let Ok(config) = self.read_config(id) else {
            return false;
        };
        let labels = &config.config.labels;
        let has = |(name, value): &(String, Option<String>)| {
            labels
                .get(name)
                .is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        filter
            .until_s
            .is_none_or(|until_s| created_s(&config) < until_s)
            && filter.labels.iter().all(has)
            && !filter.without_labels.iter().any(has)
    }
}

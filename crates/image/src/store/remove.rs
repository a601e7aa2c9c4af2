//! Removing names and images by the rules of `docker rmi`.

use std::collections::BTreeSet;

use gamut_spec::reference::Reference;

use super::{ImageStore, find, find_reference};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::records::{Records, familiar, repository_of};

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// A name or digest no longer means the image.
    Untagged(String),
    /// An image (its id) or a layer (its chain id) is gone.
    Deleted(String),
}

impl ImageStore {
    /// Removes a name, and the image with its last name. `in_use` tells whether a container uses
    /// the image with that id (`sha256:…`).
    ///
    /// By name: only that name goes while there are others, and the unikernel form of the image
    /// with it, unless that has another name. By id: refused if the image has names
    /// in several repositories, unless `force`. An image in use keeps its content: without
    /// `force` it is refused, with `force` it only loses its names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`], [`Error::Conflict`].
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        in_use: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Removal>> {
        let mut removals = Vec::new();
        let mut state = self.shared.state();
        let plan = plan(&state.records, name_or_id, force, in_use)?;
        removals.extend(
            plan.names
                .iter()
                .map(|name| Removal::Untagged(familiar(name))),
        );
        self.edit(&mut state, |records| plan.apply(records))?;
        let gone: Vec<&Digest> = plan
            .delete
            .then_some(&plan.id)
            .into_iter()
            .chain(&plan.unikernels)
            .collect();
        removals.extend(gone.iter().map(|id| Removal::Deleted(id.to_string())));
        let taken = if !gone.is_empty() && !state.damaged {
            Some(self.take_unused(&state.records, &|key| state.is_leased(key))?)
        } else {
            None
        };
        drop(state);
        if let Some(taken) = taken {
            let deleted = taken
                .layers
                .iter()
                .map(|chain| Removal::Deleted(chain.to_string()));
            removals.extend(deleted);
        }
        Ok(removals)
    }
}

struct Plan {
    id: Digest,
    /// Canonical names and digests to remove.
    names: Vec<String>,
    delete: bool,
    /// Unikernel forms that lose their last name with these.
    unikernels: Vec<Digest>,
}

impl Plan {
    fn apply(&self, records: &mut Records) {
        for name in &self.names {
            records.names.remove(name);
            records.digests.remove(name);
        }
        if self.delete {
            records.images.remove(&self.id);
        }
        for id in &self.unikernels {
            records.images.remove(id);
        }
        records.drop_dangling();
    }
}

/// Decides about the image, then about unikernel forms that go by names which go.
fn plan(
    records: &Records,
    name_or_id: &str,
    force: bool,
    in_use: &dyn Fn(&str) -> bool,
) -> Result<Plan> {
    let mut plan = plan_image(records, name_or_id, force, in_use)?;
    let mut after = records.clone();
    plan.apply(&mut after);
    let lost = records
        .unikernels
        .values()
        .filter(|id| after.images.contains_key(id) && !after.is_named(id));
    for id in lost {
        if plan.unikernels.contains(id) {
            continue;
        }
        if !in_use(&id.to_string()) {
            plan.unikernels.push(*id);
        } else if !force {
            return Err(Error::Conflict(format!(
                "unable to remove \"{name_or_id}\" (must force) - a container is using its unikernel form {}",
                id.short()
            )));
        }
    }
    Ok(plan)
}

fn plan_image(
    records: &Records,
    name_or_id: &str,
    force: bool,
    in_use: &dyn Fn(&str) -> bool,
) -> Result<Plan> {
    let id = find(records, name_or_id)?;
    let used = in_use(&id.to_string());
    let names = records.names_of(&id);
    let digests = records.digests_of(&id);
    let all = || -> Vec<String> { names.iter().chain(&digests).cloned().collect() };
    let by_name = Reference::parse(name_or_id)
        .ok()
        .filter(|_| !name_or_id.starts_with("sha256:"))
        .filter(|reference| find_reference(records, reference) == Some(id));
    if let Some(reference) = by_name {
        let canonical = match reference.digest() {
            Some(digest) => reference.with_digest(digest).to_string(),
            None => reference.to_string(),
        };
        let others = names.iter().any(|name| *name != canonical);
        let is_last = if reference.digest().is_some() {
            names.is_empty() && digests.iter().all(|name| *name == canonical)
        } else {
            !others
        };
        if !is_last {
            // The digests of a repository go with its last tag.
            let repository = repository_of(&canonical);
            let repository_stays = names
                .iter()
                .any(|name| *name != canonical && repository_of(name) == repository);
            let mut gone: Vec<String> = vec![canonical.clone()];
            if !repository_stays && reference.digest().is_none() {
                gone.extend(
                    digests
                        .into_iter()
                        .filter(|name| repository_of(name) == repository),
                );
            }
            return Ok(Plan {
                id,
                names: gone,
                delete: false,
                unikernels: Vec::new(),
            });
        }
        if used && !force {
            return Err(Error::Conflict(format!(
                "unable to remove repository reference \"{name_or_id}\" (must force) - a container is using its referenced image {}",
                id.short()
            )));
        }
        return Ok(Plan {
            id,
            names: all(),
            delete: !used,
            unikernels: Vec::new(),
        });
    }
    let repositories: BTreeSet<String> = names.iter().map(|name| repository_of(name)).collect();
    if repositories.len() > 1 && !force {
        return Err(Error::Conflict(format!(
            "unable to delete {} (must be forced) - image is referenced in multiple repositories",
            id.short()
        )));
    }
    if used && (!force || names.is_empty()) {
        return Err(Error::Conflict(format!(
            "unable to delete {} ({}) - image is being used by a container; remove the container first",
            id.short(),
            if force {
                "cannot be forced"
            } else {
                "must be forced"
            }
        )));
    }
    Ok(Plan {
        id,
        names: all(),
        delete: !used,
        unikernels: Vec::new(),
    })
}

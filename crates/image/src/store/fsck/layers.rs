//! Unpacked layers: whether each is what its archive holds.

use std::collections::{BTreeMap, BTreeSet};

use super::difference::difference;
use super::{Check, layer_record};
use crate::blobs::{self, StagedDir};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Extracted;
use crate::records::LayerRecord;
use crate::store::locks::State;
use crate::store::source::LayerSource;
use crate::store::unpack;

impl Check<'_> {
    /// Every unpacked layer is what its archive holds.
    pub(super) fn layers(&mut self, state: &mut State, bad: &BTreeSet<Digest>) -> Result<()> {
        let layout = &self.store.layout;
        let is_usable = |layer: &&LayerRecord| {
            !layer.lost && !bad.contains(&layer.blob) && layout.blob(&layer.blob).exists()
        };
        let mut places: BTreeMap<Digest, Vec<(Vec<Digest>, LayerRecord)>> = BTreeMap::new();
        for image in state.records.images.values() {
            let chains = image.chain_ids();
            for (position, (chain, layer)) in chains.iter().zip(&image.layers).enumerate() {
                let below = chains.get(..position).unwrap_or_default();
                if is_usable(&layer) {
                    let ways = places.entry(*chain).or_default();
                    ways.push((below.to_vec(), layer.clone()));
                }
            }
        }
        let mut lost = BTreeSet::new();
        for (chain, ways) in places {
            if !self.layer(state, &chain, &ways)? {
                lost.insert(chain);
            }
        }
        let mut records = state.records.clone();
        for (id, image) in &state.records.images {
            let mut layers = image.layers.iter().zip(image.chain_ids());
            if layers.any(|(layer, chain)| layer.is_recipe && lost.contains(&chain)) {
                self.found(
                    format!("image {id}"),
                    "unusable; removed, pull or load it again",
                );
                records.images.remove(id);
            }
        }
        records.drop_dangling();
        if self.repair {
            self.store.edit(&mut *state, |present| *present = records)?;
        }
        Ok(())
    }

    /// One unpacked layer, and the ways in which images have it stored, each with the chain ids of
    /// what is below. False if its files are damaged, and nothing is there to unpack it from.
    fn layer(
        &mut self,
        state: &State,
        chain: &Digest,
        ways: &[(Vec<Digest>, LayerRecord)],
    ) -> Result<bool> {
        let layout = self.store.layout.clone();
        let place = layout.layer(chain);
        let needs_files = ways.iter().any(|(_, layer)| layer.is_recipe);
        if !place.exists() && !needs_files {
            return Ok(true); // unpacked when it is needed
        }
        let mut failure = None;
        for (below, layer) in ways {
            let blob = layout.blob(&layer.blob);
            // A recipe fits the layer wherever it is unpacked.
            let mut files = vec![layout.layer_fs(chain)];
            if layer.is_recipe {
                let others = state.records.chains_of(&layer.diff_id);
                files.extend(others.iter().map(|chain| layout.layer_fs(chain)));
            }
            for files in files {
                let source = LayerSource::new(layer, blob.clone(), &files);
                match unpack::from_source(&layout, &source) {
                    Ok(fresh) => {
                        if place.exists() {
                            self.compare(chain, below, layer, fresh)?;
                        }
                        return Ok(true);
                    }
                    Err(error) if layer.is_recipe && failure.is_none() => failure = Some(error),
                    Err(_) => {}
                }
            }
        }
        if let Some(error) = &failure {
            let why = gamut_spec::error::chain(error);
            self.found(place.display().to_string(), format!("damaged: {why}"));
        }
        Ok(failure.is_none())
    }

    /// Holds an unpacked layer against one that has just been unpacked from its archive.
    fn compare(
        &mut self,
        chain: &Digest,
        below: &[Digest],
        layer: &LayerRecord,
        (fresh, extracted): (StagedDir, Extracted),
    ) -> Result<()> {
        let layout = self.store.layout.clone();
        let place = layout.layer(chain);
        let lowers: Vec<_> = below
            .iter()
            .rev()
            .map(|lower| layout.layer_fs(lower))
            .collect();
        unpack::complete(&fresh, &extracted, &lowers, layer)?;
        let problem = if layer_record(&place)
            .as_ref()
            .is_none_or(|found| found.diff_id != layer.diff_id)
        {
            Some("half unpacked".to_owned())
        } else {
            difference(&fresh.path.join("fs"), &place.join("fs"))
                .map_err(Error::io("compare", &place))?
                .map(|path| format!("damaged: {path} differs from the archive"))
        };
        let Some(problem) = problem else {
            return Ok(());
        };
        self.found(
            place.display().to_string(),
            format!("{problem}; unpacked again"),
        );
        if self.repair {
            layout.sync()?;
            let old = StagedDir::take(&layout, &place)?;
            fresh.keep(&place)?;
            blobs::sync_dir(&layout.layers())?;
            drop(old);
        }
        Ok(())
    }
}

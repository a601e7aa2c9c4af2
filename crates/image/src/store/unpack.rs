//! Unpacked layers: made from blobs, completed, and found again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::source::LayerSource;
use super::{Image, ImageStore, Key, entries};
use crate::blobs::{self, Layout, StagedDir};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::layer::{self, Extracted};
use crate::parallel::in_parallel;
use crate::pipeline::extract_into;
use crate::records::{LayerRecord, Records};

const BUFFER_BYTES: usize = 256 << 10;

impl ImageStore {
    /// The unpacked layers of an image, topmost first, as overlayfs takes them. What is not
    /// unpacked is unpacked now; concurrent callers wait for each other.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Layer`], [`Error::DigestMismatch`] if a blob is damaged.
    pub fn layers(&self, image: &Image) -> Result<Vec<PathBuf>> {
        let chains = image.record.chain_ids();
        let keys: BTreeSet<Key> = chains.iter().copied().map(Key::Layer).collect();
        let _lease = self.shared.lease(image.keys());
        if chains
            .iter()
            .any(|chain| !self.layout.layer(chain).exists())
        {
            let _busy = self.shared.busy(keys);
            self.unpack_missing(&chains, &image.record.layers)?;
        }
        Ok(chains
            .iter()
            .rev()
            .map(|chain| self.layout.layer_fs(chain))
            .collect())
    }

    fn unpack_missing(&self, chains: &[Digest], records: &[LayerRecord]) -> Result<()> {
        let missing: Vec<(usize, &Digest, &LayerRecord)> = chains
            .iter()
            .zip(records)
            .enumerate()
            .map(|(position, (chain, record))| (position, chain, record))
            .filter(|(_, chain, _)| !self.layout.layer(chain).exists())
            .collect();
        let width = std::thread::available_parallelism().map_or(2, usize::from);
        for group in missing.chunks(width) {
            let stop = AtomicBool::new(false);
            let unpacked = in_parallel(group, width, "unpacking", &stop, &|missing| {
                let (_, chain, record) = missing;
                from_source(&self.layout, &self.source(record, chain)?)
            })?;
            // Lower layers come first, so that each finds those below it in place.
            let mut complete_dirs = Vec::new();
            for ((position, chain, record), (dir, extracted)) in group.iter().zip(unpacked) {
                let lowers: Vec<PathBuf> = chains
                    .get(..*position)
                    .unwrap_or_default()
                    .iter()
                    .rev()
                    .map(|lower| {
                        complete_dirs
                            .iter()
                            .find(|(done, _): &&(Digest, StagedDir)| done == lower)
                            .map_or_else(
                                || self.layout.layer_fs(lower),
                                |(_, dir)| dir.path.join("fs"),
                            )
                    })
                    .collect();
                complete(&dir, &extracted, &lowers, record)?;
                complete_dirs.push((**chain, dir));
            }
            self.layout.sync()?;
            for (chain, dir) in complete_dirs {
                dir.keep(&self.layout.layer(&chain))?;
            }
            blobs::sync_dir(&self.layout.layers())?;
        }
        Ok(())
    }

    /// Takes away every blob and layer that neither an image nor a lease needs. Returns what went
    /// and the bytes it had on disk. The state is locked while things are renamed into ingest;
    /// removing them is the caller's, by dropping the result after unlocking.
    pub(crate) fn take_unused(
        &self,
        records: &Records,
        leased: &dyn Fn(&Key) -> bool,
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        let live_chains = records.live_chains();
        for path in entries(&self.layout.layers())? {
            let chain = digest_of_name(&path);
            if chain.is_some_and(|chain| live_chains.contains(&chain) || leased(&Key::Layer(chain)))
            {
                continue;
            }
            taken.trash.push(StagedDir::take(&self.layout, &path)?);
            taken.layers.extend(chain);
        }
        let live_blobs = records.live_blobs();
        for path in entries(&self.layout.blobs())? {
            let digest = digest_of_name(&path);
            if digest
                .is_some_and(|digest| live_blobs.contains(&digest) || leased(&Key::Blob(digest)))
            {
                continue;
            }
            taken.trash.push(StagedDir::take(&self.layout, &path)?);
            taken.blobs.extend(digest);
        }
        Ok(taken)
    }

    /// [`Self::take_unused`] by the present records, removed at once. Without readable records
    /// nothing is known to be unused.
    pub(crate) fn sweep(&self, state: &super::State) -> Result<()> {
        if state.damaged {
            return Ok(());
        }
        self.take_unused(&state.records, &|key| state.is_leased(key))
            .map(drop)
    }
}

/// What a sweep has taken out of the store; removed on drop.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) layers: Vec<Digest>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) trash: Vec<StagedDir>,
}

/// The digest that a file of the store is named by.
pub(crate) fn digest_of_name(path: &Path) -> Option<Digest> {
    Digest::from_hex(path.file_name()?.to_str()?)
}

/// Unpacks a stored layer into ingest and verifies it.
pub(crate) fn from_source(layout: &Layout, source: &LayerSource) -> Result<(StagedDir, Extracted)> {
    let label = format!("layer {}", source.record.diff_id);
    let reader = HashingReader {
        inner: source.open()?,
        hasher: Hasher::default(),
    };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let dir = layout.stage_dir()?;
    let extracted = extract_into(&dir, &mut reader, &label)?;
    io::copy(&mut reader, &mut io::sink()).map_err(|error| source.failed(error))?;
    let (actual, _) = reader.into_inner().hasher.finish();
    if actual != source.record.diff_id {
        return Err(source.mismatch(&source.record.diff_id, &actual));
    }
    Ok((dir, extracted))
}

/// Makes an unpacked layer complete: directories that its archive only implied take after the
/// layers below, and `layer.json` says what it is.
pub(crate) fn complete(
    dir: &StagedDir,
    extracted: &Extracted,
    lowers: &[PathBuf],
    record: &LayerRecord,
) -> Result<()> {
    let fs_dir = dir.path.join("fs");
    layer::adopt_implied_directories(&fs_dir, &extracted.implied_directories, lowers).map_err(
        |source| Error::Layer {
            object: format!("layer {}", record.diff_id),
            source,
        },
    )?;
    let path = dir.path.join("layer.json");
    let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    fs::write(&path, bytes).map_err(Error::io("write", &path))
}

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

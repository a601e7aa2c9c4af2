//! A layer whose bytes are all in, but perhaps not yet unpacked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::{StagedBlob, StagedLayer};
use crate::assembly::Kept;
use crate::blobs::{StagedDir, StagedFile};
use crate::compression::Compression;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Extracted;

/// What unpacking leads to.
pub(super) type Unpacked = (StagedDir, Extracted, Option<Kept>);

/// The worker threads. Joined on drop, so that nothing is written after a failure is reported:
/// the senders must be gone before, so that every worker meets the end of its input.
#[derive(Default)]
pub(super) struct Workers {
    /// Hashes, and stores, what comes.
    pub(super) storer: Option<JoinHandle<Result<(Digest, u64)>>>,
    pub(super) decoder: Option<JoinHandle<io::Result<(Digest, u64)>>>,
    pub(super) extractor: Option<JoinHandle<Result<Unpacked>>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.storer.take().map(JoinHandle::join);
        self.decoder.take().map(JoinHandle::join);
        self.extractor.take().map(JoinHandle::join);
    }
}

/// A layer whose bytes are all in, but perhaps not yet unpacked.
pub(crate) struct PendingLayer {
    pub(super) label: String,
    /// Digest and length of the bytes as they came.
    pub(crate) raw: (Digest, u64),
    pub(super) workers: Workers,
    /// The bytes as they came, if they were compressed.
    pub(super) stored: Option<(StagedFile, Compression)>,
    pub(super) consumed_bytes: Arc<AtomicU64>,
}

impl PendingLayer {
    /// Bytes (as they came) that have gone into unpacking so far.
    pub(crate) fn consumed_bytes(&self) -> u64 {
        self.consumed_bytes.load(Ordering::Relaxed)
    }

    /// Whether [`Self::wait`] would return at once.
    pub(crate) fn is_done(&self) -> bool {
        self.workers
            .extractor
            .as_ref()
            .is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the layer is unpacked and stored.
    pub(crate) fn wait(mut self) -> Result<StagedLayer> {
        let label = self.label.clone();
        let decoded = self.workers.decoder.take();
        let decoded = decoded.map(|decoder| joined(decoder, &label)).transpose()?;
        let worker_ended = || Error::Worker(label.clone());
        let extractor = self.workers.extractor.take().ok_or_else(worker_ended)?;
        let extracted = joined(extractor, &label)?;
        let (diff_id, diff_bytes) = match decoded {
            // A decoder that stopped because unpacking failed is not the cause.
            Some(Err(source)) if source.kind() == io::ErrorKind::BrokenPipe => {
                extracted?;
                return Err(worker_ended());
            }
            Some(Err(source)) => {
                return Err(Error::Read {
                    what: format!("{label}: corrupt compressed data"),
                    source,
                });
            }
            Some(Ok(plain)) => plain,
            None => self.raw,
        };
        let (dir, extracted, kept) = extracted?;
        let blob = match (kept, self.stored.take()) {
            (Some(kept), _) => StagedBlob {
                file: kept.blob,
                digest: kept.digest,
                bytes: kept.bytes,
                compression: Compression::Zstd,
                is_recipe: kept.is_recipe,
            },
            (None, Some((file, compression))) => StagedBlob {
                file,
                digest: self.raw.0,
                bytes: self.raw.1,
                compression,
                is_recipe: false,
            },
            (None, None) => return Err(worker_ended()),
        };
        Ok(StagedLayer {
            dir,
            extracted,
            diff_id,
            diff_bytes,
            blob,
        })
    }
}

/// What a thread came to.
pub(super) fn joined<T>(thread: JoinHandle<T>, label: &str) -> Result<T> {
    thread
        .join()
        .map_err(|_panic| Error::Worker(label.to_owned()))
}

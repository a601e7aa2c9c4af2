//! A layer on its way in: hashed, decompressed, unpacked and kept while it streams.
//!
//! A compressed layer is stored as it comes: one thread hashes and writes it, another decompresses
//! and hashes that, a third unpacks. A plain layer is hashed by one thread and unpacked by another,
//! which keeps what is needed to put the archive together again ([`crate::assembly`]). Bounded
//! channels in between hold a fast source back.

mod chunks;
mod pending;
mod work;

use std::io::{self, BufRead, Cursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::assembly::Keeper;
use crate::blobs::{Layout, StagedDir, StagedFile};
use crate::compression::Compression;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::layer::Extracted;
use chunks::{ChunkSender, Pool, channel};
pub(crate) use pending::PendingLayer;
use pending::{Unpacked, Workers, joined};
pub(crate) use work::extract_into;

const CHUNK_BYTES: usize = 256 * 1024;
/// Plain layers up to this size are kept whole, compressed: that takes hardly any room, and `fsck`
/// can unpack them again should their files be damaged.
const SMALL_BYTES: usize = 1 << 20;
/// So many of the first bytes tell the compression.
const MAGIC_BYTES: usize = 4;

/// A layer that has been unpacked into ingest and verified against nothing yet.
pub(crate) struct StagedLayer {
    /// Holds `fs/`.
    pub(crate) dir: StagedDir,
    pub(crate) extracted: Extracted,
    pub(crate) diff_id: Digest,
    pub(crate) diff_bytes: u64,
    pub(crate) blob: StagedBlob,
}

/// What is stored of a layer beside its unpacked files.
pub(crate) struct StagedBlob {
    pub(crate) file: StagedFile,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    pub(crate) compression: Compression,
    /// Whether it is a recipe of the archive, and not the archive.
    pub(crate) is_recipe: bool,
}

/// Takes the bytes of a layer.
pub(crate) struct LayerWriter {
    layout: Layout,
    label: String,
    /// Bytes for the next chunk; before it is known what comes, all of them.
    gathered: Vec<u8>,
    pool: Pool,
    received_bytes: u64,
    flow: Option<Flow>,
    /// Set by the first worker that fails.
    failed: Arc<AtomicBool>,
    consumed_bytes: Arc<AtomicU64>,
}

/// Where the bytes go. Senders are declared, and so dropped, before the workers that wait for them.
struct Flow {
    to_storer: ChunkSender,
    to_unpacking: ChunkSender,
    workers: Workers,
    stored: Option<(StagedFile, Compression)>,
}

impl LayerWriter {
    /// Begins a layer; `label` names it in errors.
    pub(crate) fn new(layout: &Layout, label: &str) -> Self {
        Self {
            layout: layout.clone(),
            label: label.to_owned(),
            gathered: Vec::new(),
            pool: Pool::default(),
            received_bytes: 0,
            flow: None,
            failed: Arc::default(),
            consumed_bytes: Arc::default(),
        }
    }

    /// Whether unpacking has failed already; [`PendingLayer::wait`] tells why.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.received_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let wanted = match &self.flow {
                Some(_) => CHUNK_BYTES,
                None if self.gathered.len() < MAGIC_BYTES => MAGIC_BYTES,
                None => SMALL_BYTES,
            };
            let free = wanted.saturating_sub(self.gathered.len());
            let (first, rest) = bytes.split_at(free.min(bytes.len()));
            self.gathered.extend_from_slice(first);
            bytes = rest;
            if self.gathered.len() < wanted {
                return Ok(());
            }
            match (&self.flow, self.compression()?) {
                (Some(_), _) => self.pass_on()?,
                // A plain layer may still turn out to be small.
                (None, Compression::None) if wanted < SMALL_BYTES || bytes.is_empty() => {}
                (None, compression) => {
                    self.flow = Some(self.begin(compression)?);
                    self.pass_on()?;
                }
            }
        }
        Ok(())
    }

    /// Takes all that `reader` gives; `watch` is called after each piece with the bytes so far and
    /// may end it.
    pub(crate) fn copy_from(
        &mut self,
        reader: &mut impl BufRead,
        watch: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        loop {
            match reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => {
                    let count = bytes.len();
                    self.write(bytes)?;
                    reader.consume(count);
                    watch(self.received_bytes)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read {
                        what: self.label.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Tells the compression by the first bytes.
    fn compression(&self) -> Result<Compression> {
        if let Some(flow) = &self.flow {
            let stored = flow.stored.as_ref();
            return Ok(stored.map_or(Compression::None, |(_, compression)| *compression));
        }
        Compression::detect(&self.gathered).map_err(|name| Error::Unsupported {
            object: self.label.clone(),
            reason: format!("{name} compression is not supported; use gzip, zstd or none"),
        })
    }

    /// Starts the threads of a layer that is compressed, or plain and large.
    fn begin(&self, compression: Compression) -> Result<Flow> {
        // Declared before the channels: dropping it joins the workers, which need the senders gone.
        let mut workers = Workers::default();
        let (to_storer, to_store) = channel(Arc::default());
        let (to_unpacking, to_unpack) = channel(Arc::clone(&self.consumed_bytes));
        if compression == Compression::None {
            workers.storer = Some(self.spawn("layer-hash", move || work::store(to_store, None))?);
            let keeper = Keeper::recipe(&self.layout)?;
            workers.extractor = Some(self.spawn_extractor(to_unpack, Some(keeper))?);
            return Ok(Flow {
                to_storer,
                to_unpacking,
                stored: None,
                workers,
            });
        }
        let (blob, file) = self.layout.stage_file()?;
        let path = blob.path.clone();
        workers.storer = Some(self.spawn("layer-store", move || {
            work::store(to_store, Some((file, &path)))
        })?);
        let (to_extractor, plain) = channel(Arc::default());
        workers.extractor = Some(self.spawn_extractor(plain, None)?);
        let failed = Arc::clone(&self.failed);
        workers.decoder = Some(self.spawn("layer-decode", move || {
            let result = work::decode(compression, to_unpack, to_extractor, &failed);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            result
        })?);
        Ok(Flow {
            to_storer,
            to_unpacking,
            stored: Some((blob, compression)),
            workers,
        })
    }

    fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(Error::io("start a thread for", &self.layout.ingest()))
    }

    fn spawn_extractor(
        &self,
        mut reader: impl BufRead + Send + 'static,
        keeper: Option<Keeper>,
    ) -> Result<JoinHandle<Result<Unpacked>>> {
        let dir = self.layout.stage_dir()?;
        let label = self.label.clone();
        let failed = Arc::clone(&self.failed);
        self.spawn("layer-extract", move || {
            let result = work::unpack(&dir, &mut reader, &label, keeper);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            result.map(|(extracted, kept)| (dir, extracted, kept))
        })
    }

    /// Sends what is gathered to the threads.
    fn pass_on(&mut self) -> Result<()> {
        let Some(flow) = &mut self.flow else {
            return Ok(());
        };
        let bytes = std::mem::replace(&mut self.gathered, self.pool.take());
        let chunk = self.pool.chunk(bytes);
        // Where unpacking has ended it has either failed, which `wait` reports, or has seen the
        // end of the archive and needs no padding: neither is a failure of sending.
        flow.to_unpacking.send(Arc::clone(&chunk));
        if flow.to_storer.send(chunk) {
            return Ok(());
        }
        // What cannot be stored need not come any further.
        let storer = flow.workers.storer.take();
        match storer.map(|storer| joined(storer, &self.label)) {
            Some(Err(error) | Ok(Err(error))) => Err(error),
            Some(Ok(Ok(_))) | None => Err(Error::Worker(self.label.clone())),
        }
    }

    /// All bytes are in.
    pub(crate) fn finish(mut self) -> Result<PendingLayer> {
        let compression = self.compression()?;
        if self.flow.is_none() && compression != Compression::None {
            self.flow = Some(self.begin(compression)?);
        }
        let Some(_) = self.flow else {
            return self.finish_small();
        };
        if !self.gathered.is_empty() {
            self.pass_on()?;
        }
        let worker_ended = || Error::Worker(self.label.clone());
        let flow = self.flow.take().ok_or_else(worker_ended)?;
        let Flow {
            to_storer,
            to_unpacking,
            stored,
            mut workers,
        } = flow;
        to_unpacking.end();
        to_storer.end();
        let storer = workers.storer.take().ok_or_else(worker_ended)?;
        Ok(PendingLayer {
            raw: joined(storer, &self.label)??,
            label: self.label,
            stored,
            workers,
            consumed_bytes: self.consumed_bytes,
        })
    }

    /// All bytes of a plain layer are in, and gathered.
    fn finish_small(mut self) -> Result<PendingLayer> {
        let bytes = std::mem::take(&mut self.gathered);
        let mut hasher = Hasher::default();
        hasher.update(&bytes);
        let keeper = Keeper::whole(&self.layout)?;
        let mut workers = Workers::default();
        workers.extractor = Some(self.spawn_extractor(Cursor::new(bytes), Some(keeper))?);
        Ok(PendingLayer {
            raw: hasher.finish(),
            label: self.label,
            stored: None,
            workers,
            consumed_bytes: self.consumed_bytes,
        })
    }
}

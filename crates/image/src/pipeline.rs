//! A layer on its way in: hashed, decompressed, unpacked and stored while it streams.
//!
//! A compressed layer is stored as it comes; a thread decompresses and hashes, another unpacks.
//! A plain layer is unpacked by one thread while another compresses it for storage, so that the
//! disk does not have to take it twice. Bounded channels in between hold a fast source back.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::blobs::{Layout, StagedDir, StagedFile};
use crate::compression::Compression;
use crate::digest::{Digest, Hasher, HashingWriter};
use crate::error::{Error, Result};
use crate::layer::{self, ExtractOptions, Extracted};

/// Chunks in flight per channel: 32 of at most 256 KiB are 8 MiB.
const CHANNEL_CHUNKS: usize = 32;
const CHUNK_BYTES: usize = 256 * 1024;
/// The level plain layers are stored with: the fastest of zstd's ordinary levels.
const ZSTD_LEVEL: i32 = 1;

type Chunk = Arc<[u8]>;

/// A layer that has been unpacked into ingest and verified against nothing yet.
pub(crate) struct StagedLayer {
    /// Holds `fs/`.
    pub(crate) dir: StagedDir,
    pub(crate) extracted: Extracted,
    pub(crate) diff_id: Digest,
    pub(crate) diff_bytes: u64,
    pub(crate) blob: StagedFile,
    pub(crate) blob_digest: Digest,
    pub(crate) blob_bytes: u64,
    pub(crate) compression: Compression,
}

/// Takes the bytes of a layer.
pub(crate) struct LayerWriter {
    layout: Layout,
    label: String,
    raw: Hasher,
    stage: Stage,
    /// Set by the first worker that fails.
    failed: Arc<AtomicBool>,
    consumed_bytes: Arc<AtomicU64>,
}

enum Stage {
    /// The first bytes, too few to tell the compression.
    Undecided(Vec<u8>),
    Compressed {
        compression: Compression,
        blob: StagedFile,
        file: File,
        to_decoder: SyncSender<Message>,
        workers: Workers,
    },
    Plain {
        to_compressor: SyncSender<Message>,
        to_extractor: SyncSender<Message>,
        workers: Workers,
    },
}

enum Message {
    Data(Chunk),
    End,
}

/// The worker threads. Joined on drop, so that nothing is written after a failure is reported.
struct Workers {
    decoder: Option<JoinHandle<io::Result<(Digest, u64)>>>,
    compressor: Option<JoinHandle<Result<(StagedFile, Digest, u64)>>>,
    extractor: Option<JoinHandle<Result<(StagedDir, Extracted)>>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        // The senders are gone by now, so every worker meets the end of its input.
        self.decoder.take().map(JoinHandle::join);
        self.compressor.take().map(JoinHandle::join);
        self.extractor.take().map(JoinHandle::join);
    }
}

/// A layer whose bytes are all in, but perhaps not yet unpacked.
pub(crate) struct PendingLayer {
    label: String,
    /// Digest and length of the bytes as they came.
    pub(crate) raw: (Digest, u64),
    stored: Option<(StagedFile, Compression)>,
    workers: Workers,
    consumed_bytes: Arc<AtomicU64>,
}

impl LayerWriter {
    /// Begins a layer; `label` names it in errors.
    pub(crate) fn new(layout: &Layout, label: &str) -> Self {
        Self {
            layout: layout.clone(),
            label: label.to_owned(),
            raw: Hasher::default(),
            stage: Stage::Undecided(Vec::new()),
            failed: Arc::default(),
            consumed_bytes: Arc::default(),
        }
    }

    /// Whether unpacking has failed already; [`PendingLayer::wait`] tells why.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.raw.update(bytes);
        if let Stage::Undecided(first) = &mut self.stage {
            first.extend_from_slice(bytes);
            if first.len() < 4 {
                return Ok(());
            }
            let first = std::mem::take(first);
            self.begin(&first)?;
            return self.pass_on(&first);
        }
        self.pass_on(bytes)
    }

    /// Takes all that `reader` gives, in large pieces; `watch` is called after each with the bytes
    /// so far and may end it.
    pub(crate) fn copy_from(
        &mut self,
        reader: &mut dyn Read,
        watch: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0u8; CHUNK_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.write(buffer.get(..count).unwrap_or_default())?;
                    watch(self.raw.bytes())?;
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

    fn begin(&mut self, first: &[u8]) -> Result<()> {
        let compression = Compression::detect(first).map_err(|name| Error::Unsupported {
            object: self.label.clone(),
            reason: format!("{name} compression is not supported; use gzip, zstd or none"),
        })?;
        // Declared before the channels: dropping it joins the workers, which need the senders gone.
        let mut workers = Workers {
            decoder: None,
            compressor: None,
            extractor: None,
        };
        let (to_extractor, from_decoder) = sync_channel(CHANNEL_CHUNKS);
        let counter = Arc::clone(&self.consumed_bytes);
        if compression == Compression::None {
            workers.extractor =
                Some(self.spawn_extractor(ChunkReader::new(from_decoder, counter))?);
            let (to_compressor, chunks) = sync_channel(CHANNEL_CHUNKS);
            workers.compressor = Some(self.spawn_compressor(chunks)?);
            self.stage = Stage::Plain {
                to_compressor,
                to_extractor,
                workers,
            };
            return Ok(());
        }
        let (blob, file) = self.layout.stage_file()?;
        workers.extractor =
            Some(self.spawn_extractor(ChunkReader::new(from_decoder, Arc::default()))?);
        let (to_decoder, chunks) = sync_channel(CHANNEL_CHUNKS);
        let failed = Arc::clone(&self.failed);
        workers.decoder = Some(self.spawn("layer-decode", move || {
            let result = decode(
                compression,
                ChunkReader::new(chunks, counter),
                &to_extractor,
                &failed,
            );
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            result
        })?);
        self.stage = Stage::Compressed {
            compression,
            blob,
            file,
            to_decoder,
            workers,
        };
        Ok(())
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
        mut chunks: ChunkReader,
    ) -> Result<JoinHandle<Result<(StagedDir, Extracted)>>> {
        let dir = self.layout.stage_dir()?;
        let label = self.label.clone();
        let failed = Arc::clone(&self.failed);
        self.spawn("layer-extract", move || {
            let result = extract_into(&dir, &mut chunks, &label);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            result.map(|extracted| (dir, extracted))
        })
    }

    fn spawn_compressor(
        &self,
        chunks: Receiver<Message>,
    ) -> Result<JoinHandle<Result<(StagedFile, Digest, u64)>>> {
        let (blob, file) = self.layout.stage_file()?;
        self.spawn("layer-compress", move || {
            let mut chunks = ChunkReader::new(chunks, Arc::default());
            let compress = || -> io::Result<(Digest, u64)> {
                let writer = HashingWriter::new(BufWriter::with_capacity(CHUNK_BYTES, file));
                let mut encoder = zstd::stream::write::Encoder::new(writer, ZSTD_LEVEL)?;
                while let Some(chunk) = chunks.next_chunk()? {
                    encoder.write_all(&chunk)?;
                }
                encoder.finish()?.finish()
            };
            let (digest, bytes) = compress().map_err(Error::io("write", &blob.path))?;
            Ok((blob, digest, bytes))
        })
    }

    fn pass_on(&mut self, bytes: &[u8]) -> Result<()> {
        // A receiver that is gone has either failed, which `wait` reports, or has seen the end of
        // the archive and needs no padding: neither is a failure of sending.
        match &mut self.stage {
            Stage::Undecided(_) => {}
            Stage::Compressed {
                file,
                blob,
                to_decoder,
                ..
            } => {
                file.write_all(bytes)
                    .map_err(Error::io("write", &blob.path))?;
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    let _ = to_decoder.send(Message::Data(chunk.into()));
                }
            }
            Stage::Plain {
                to_compressor,
                to_extractor,
                ..
            } => {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    let chunk: Chunk = chunk.into();
                    let _ = to_extractor.send(Message::Data(Arc::clone(&chunk)));
                    let _ = to_compressor.send(Message::Data(chunk));
                }
            }
        }
        Ok(())
    }

    /// All bytes are in.
    pub(crate) fn finish(mut self) -> Result<PendingLayer> {
        if let Stage::Undecided(first) = &mut self.stage {
            let first = std::mem::take(first);
            self.begin(&first)?;
            self.pass_on(&first)?;
        }
        let (stored, workers) = match self.stage {
            Stage::Undecided(_) => return Err(Error::Worker(self.label)),
            Stage::Compressed {
                compression,
                blob,
                to_decoder,
                workers,
                ..
            } => {
                let _ = to_decoder.send(Message::End);
                (Some((blob, compression)), workers)
            }
            Stage::Plain {
                to_compressor,
                to_extractor,
                workers,
            } => {
                let _ = to_extractor.send(Message::End);
                let _ = to_compressor.send(Message::End);
                (None, workers)
            }
        };
        Ok(PendingLayer {
            label: self.label,
            raw: self.raw.finish(),
            stored,
            workers,
            consumed_bytes: self.consumed_bytes,
        })
    }
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
        let decoded = match self.workers.decoder.take() {
            Some(decoder) => Some(self.joined(decoder)?.map_err(|source| Error::Read {
                what: format!("{}: corrupt compressed data", self.label),
                source,
            })),
            None => None,
        };
        let extracted = match self.workers.extractor.take() {
            Some(extractor) => self.joined(extractor)?,
            None => return Err(Error::Worker(self.label.clone())),
        };
        let (diff_id, diff_bytes) = match decoded {
            // A decoder that stopped because unpacking failed is not the cause.
            Some(Err(Error::Read { source, .. })) if source.kind() == io::ErrorKind::BrokenPipe => {
                extracted?;
                return Err(Error::Worker(self.label.clone()));
            }
            Some(result) => result?,
            None => self.raw,
        };
        let (dir, extracted) = extracted?;
        let (blob, blob_digest, blob_bytes, compression) = match self.workers.compressor.take() {
            Some(compressor) => {
                let (blob, digest, bytes) = self.joined(compressor)??;
                (blob, digest, bytes, Compression::Zstd)
            }
            None => match self.stored.take() {
                Some((blob, compression)) => (blob, self.raw.0, self.raw.1, compression),
                None => return Err(Error::Worker(self.label.clone())),
            },
        };
        Ok(StagedLayer {
            dir,
            extracted,
            diff_id,
            diff_bytes,
            blob,
            blob_digest,
            blob_bytes,
            compression,
        })
    }

    fn joined<T>(&self, thread: JoinHandle<T>) -> Result<T> {
        thread
            .join()
            .map_err(|_panic| Error::Worker(self.label.clone()))
    }
}

/// Unpacks a plain tar stream into `dir/fs`.
pub(crate) fn extract_into(
    dir: &StagedDir,
    reader: &mut (dyn Read + Send),
    label: &str,
) -> Result<Extracted> {
    let fs = dir.path.join("fs");
    std::fs::create_dir(&fs).map_err(Error::io("create", &fs))?;
    layer::extract(reader, &fs, &ExtractOptions::here()).map_err(|source| Error::Layer {
        object: label.to_owned(),
        source,
    })
}

fn decode(
    compression: Compression,
    chunks: ChunkReader,
    output: &SyncSender<Message>,
    failed: &AtomicBool,
) -> io::Result<(Digest, u64)> {
    let mut decoder = compression.decoder(chunks)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0u8; CHUNK_BYTES];
    loop {
        let count = match decoder.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            let _ = output.send(Message::End);
            return Ok(hasher.finish());
        }
        if failed.load(Ordering::Relaxed) {
            // Do not go on inflating what is refused anyway, a bomb for instance.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let data = buffer.get(..count).unwrap_or_default();
        hasher.update(data);
        let _ = output.send(Message::Data(data.into()));
    }
}

/// Reads what a channel brings.
struct ChunkReader {
    chunks: Receiver<Message>,
    current: Option<(Chunk, usize)>,
    ended: bool,
    consumed_bytes: Arc<AtomicU64>,
}

impl ChunkReader {
    fn new(chunks: Receiver<Message>, consumed_bytes: Arc<AtomicU64>) -> Self {
        Self {
            chunks,
            current: None,
            ended: false,
            consumed_bytes,
        }
    }

    /// The next chunk, or `None` at the end.
    fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        if self.ended {
            return Ok(None);
        }
        match self.chunks.recv() {
            Ok(Message::Data(chunk)) => {
                self.consumed_bytes
                    .fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Ok(Some(chunk))
            }
            Ok(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            Err(_) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the layer was cut off",
            )),
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((chunk, offset)) = &mut self.current {
                let mut rest = chunk.get(*offset..).unwrap_or_default();
                if !rest.is_empty() {
                    let count = rest.read(buffer)?;
                    *offset += count;
                    return Ok(count);
                }
            }
            match self.next_chunk()? {
                Some(chunk) => self.current = Some((chunk, 0)),
                None => return Ok(0),
            }
        }
    }
}

//! Bytes on their way from one thread to others, in chunks that are shared and not copied.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::CHUNK_BYTES;

/// Chunks in flight per channel: 32 of 256 KiB are 8 MiB.
const CHANNEL_CHUNKS: usize = 32;

/// Some bytes. Their memory is used again once nobody needs them any more.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

/// Memory of chunks that are done with: taking it again is cheaper than having the system map and
/// clear new pages for every chunk.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// An empty vector with room for a chunk.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop()
            .unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES))
    }

    /// A chunk of these bytes.
    pub(super) fn chunk(&self, bytes: Vec<u8>) -> Arc<Chunk> {
        let pool = self.clone();
        Arc::new(Chunk { bytes, pool })
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.capacity() >= CHUNK_BYTES && free.len() < CHANNEL_CHUNKS {
            bytes.clear();
            free.push(bytes);
        }
    }
}

enum Message {
    Data(Arc<Chunk>),
    End,
}

/// A bounded channel, which holds a fast source back.
pub(super) fn channel(consumed_bytes: Arc<AtomicU64>) -> (ChunkSender, ChunkReader) {
    let (sender, chunks) = sync_channel(CHANNEL_CHUNKS);
    let reader = ChunkReader {
        chunks,
        current: Arc::default(),
        start: 0,
        ended: false,
        consumed_bytes,
    };
    (ChunkSender(sender), reader)
}

/// Sends chunks. Dropped without an end, the stream is cut off.
pub(super) struct ChunkSender(SyncSender<Message>);

impl ChunkSender {
    /// Sends a chunk; `false` if nobody reads any more.
    pub(super) fn send(&self, chunk: Arc<Chunk>) -> bool {
        self.0.send(Message::Data(chunk)).is_ok()
    }

    /// Tells that the stream is complete.
    pub(super) fn end(self) {
        let _ = self.0.send(Message::End);
    }
}

/// Reads what a channel brings.
pub(super) struct ChunkReader {
    chunks: Receiver<Message>,
    current: Arc<Chunk>,
    /// What of the chunk has been read.
    start: usize,
    ended: bool,
    consumed_bytes: Arc<AtomicU64>,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.start >= self.current.bytes.len() && !self.ended {
            match self.chunks.recv() {
                Ok(Message::Data(chunk)) => {
                    self.consumed_bytes
                        .fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                    self.current = chunk;
                    self.start = 0;
                }
                Ok(Message::End) => self.ended = true,
                Err(_) => {
                    let what = "the layer was cut off";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
            }
        }
        Ok(self.current.bytes.get(self.start..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let count = available.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

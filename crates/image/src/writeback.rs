//! Writing to disk that begins while data still comes in, so that the sync at the end has little
//! left to wait for. It promises nothing: durability is that of the sync.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Pieces that may wait for the disk. What does not fit is left to the sync.
const MAX_WAITING: usize = 32;

/// Begins the writeback of pieces of files, in a thread of its own: where the disk's queue is full,
/// sync_file_range(2) waits.
#[derive(Default)]
pub(crate) struct Writeback(Option<Worker>);

struct Worker {
    /// Dropped first: the thread ends when it has nothing more to wait for.
    pieces: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<()>>,
}

struct Piece {
    file: Arc<OwnedFd>,
    offset: u64,
    length: u64,
}

impl Writeback {
    /// How much of a large file is handed over at once, in bytes.
    pub(crate) const STEP_BYTES: u64 = 8 << 20;
    /// Below, a request of its own costs more than it brings.
    const MIN_BYTES: u64 = 128 << 10;

    /// Begins with the bytes of `file` from `offset` to `end`.
    pub(crate) fn begin(&mut self, file: &Arc<OwnedFd>, offset: u64, end: u64) {
        let length = end.saturating_sub(offset);
        if length < Self::MIN_BYTES {
            return;
        }
        let worker = self.0.get_or_insert_with(Worker::start);
        if let Some(pieces) = &worker.pieces {
            let file = Arc::clone(file);
            let _ = pieces.try_send(Piece {
                file,
                offset,
                length,
            });
        }
    }
}

impl Worker {
    fn start() -> Self {
        let (sender, pieces) = sync_channel(MAX_WAITING);
        // Without a thread nothing begins early, and all is left to the sync.
        let thread = std::thread::Builder::new()
            .name("layer-writeback".to_owned())
            .spawn(move || write_back(&pieces))
            .ok();
        Self {
            pieces: Some(sender),
            thread,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.pieces = None;
        self.thread.take().map(JoinHandle::join);
    }
}

fn write_back(pieces: &Receiver<Piece>) {
    for piece in pieces {
        let (Ok(offset), Ok(length)) = (i64::try_from(piece.offset), i64::try_from(piece.length))
        else {
            continue;
        };
        // Failures are the sync's to report, which sees them too.
        // SAFETY: the descriptor is held open by `piece`; no memory is passed.
        unsafe {
            libc::sync_file_range(
                piece.file.as_raw_fd(),
                offset,
                length,
                libc::SYNC_FILE_RANGE_WRITE,
            );
        }
    }
}

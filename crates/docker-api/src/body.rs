//! Bodies of requests and answers, and bridges between them and blocking code.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Chunks that may wait between a producer and the network.
const CHANNEL: usize = 16;
/// Bytes gathered before a chunk goes out.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a request's body gathered before they are handed over, and how often that may wait.
const BATCH_BYTES: usize = 256 << 10;
const BATCHES: usize = 4;

/// The body of an answer: whole, or produced while it is sent.
#[derive(Debug)]
pub enum Reply {
    /// All of it.
    Whole(Option<Bytes>),
    /// Chunks as they come. An error cuts the connection, so that the client sees the failure.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(receiver) => receiver
                .poll_recv(context)
                .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(Some(bytes)) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Stream(_) => SizeHint::new(),
        }
    }
}

/// Sends chunks of a streamed body.
pub type Sender = mpsc::Sender<io::Result<Bytes>>;

/// A streamed body and the way to fill it.
#[must_use]
pub fn stream() -> (Sender, Reply) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    (sender, Reply::Stream(receiver))
}

/// A blocking writer into a streamed body. A client that has hung up is a broken pipe.
#[derive(Debug)]
pub struct BodyWriter {
    sender: Sender,
    gathered: Vec<u8>,
}

impl BodyWriter {
    /// Writes to `sender`.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self {
            sender,
            gathered: Vec::with_capacity(CHUNK_BYTES),
        }
    }

    /// Cuts the body short, so that the client cannot take it for whole.
    pub fn fail(self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }

    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.gathered, Vec::with_capacity(CHUNK_BYTES));
        self.sender
            .blocking_send(Ok(Bytes::from(chunk)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has hung up"))
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// A blocking reader of a request's body. A cut connection is an error, never a clean end.
#[derive(Debug)]
pub struct BodyReader {
    receiver: mpsc::Receiver<io::Result<Vec<Bytes>>>,
    /// What has been received, the next piece last.
    pieces: Vec<Bytes>,
    failed: bool,
}

impl BodyReader {
    /// Reads `body`, which a task on the current runtime fetches.
    #[must_use]
    pub fn new(body: Incoming) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES);
        tokio::spawn(fetch(body, sender));
        Self {
            receiver,
            pieces: Vec::new(),
            failed: false,
        }
    }
}

/// Hands a body over in batches: clients send it in small pieces, and to wake a thread for each
/// takes longer than to copy it.
async fn fetch(mut body: Incoming, sender: mpsc::Sender<io::Result<Vec<Bytes>>>) {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut gathered_bytes = 0;
    loop {
        let frame = body.frame().await;
        let failure = match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    gathered_bytes += data.len();
                    pieces.push(data);
                }
                if gathered_bytes < BATCH_BYTES {
                    continue;
                }
                gathered_bytes = 0;
                let batch = std::mem::take(&mut pieces);
                if sender.send(Ok(batch)).await.is_err() {
                    return;
                }
                continue;
            }
            Some(Err(error)) => Some(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
            None => None,
        };
        // The end, clean or not.
        if sender.send(Ok(pieces)).await.is_ok()
            && let Some(error) = failure
        {
            let _ = sender.send(Err(error)).await;
        }
        return;
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = self.pieces.last_mut() {
                let count = buffer.len().min(piece.len());
                let taken = piece.split_to(count);
                if piece.is_empty() {
                    self.pieces.pop();
                }
                if count == 0 && !buffer.is_empty() {
                    continue;
                }
                if let Some(target) = buffer.get_mut(..count) {
                    target.copy_from_slice(&taken);
                }
                return Ok(count);
            }
            if self.failed {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the upload was cut off",
                ));
            }
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(Ok(mut pieces)) => {
                    pieces.reverse();
                    self.pieces = pieces;
                }
                Some(Err(error)) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }
}

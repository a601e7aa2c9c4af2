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
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    failed: bool,
}

impl BodyReader {
    /// Reads `body`, which a task on the current runtime fetches.
    #[must_use]
    pub fn new(mut body: Incoming) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let chunk = match frame {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => Ok(data),
                        Err(_) => continue,
                    },
                    Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Self {
            receiver,
            current: Bytes::new(),
            failed: false,
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.failed {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the upload was cut off",
                ));
            }
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        let chunk = self.current.split_to(count);
        if let Some(target) = buffer.get_mut(..count) {
            target.copy_from_slice(&chunk);
        }
        Ok(count)
    }
}

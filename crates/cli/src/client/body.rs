//! Request bodies: none, bytes, or a stream fed by another thread.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

/// Size of the pieces in which files are sent.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces waiting between the reading thread and the socket.
const QUEUE_PIECES: usize = 4;

/// The body of a request.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// Everything at once.
    Bytes(Bytes),
    /// Pieces as they come; an error ends the request.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl RequestBody {
    /// JSON of a value.
    #[must_use]
    pub fn json(value: &serde_json::Value) -> Self {
        Self::Bytes(Bytes::from(value.to_string()))
    }

    /// Reads `reader` on a thread of its own, piece by piece, as the socket takes them.
    pub fn from_reader(mut reader: impl io::Read + Send + 'static) -> Self {
        Self::from_writer(move |mut pipe| io::copy(&mut reader, &mut pipe).map(|_| ()))
    }

    /// Runs `produce` on a thread of its own; what it writes is the body.
    pub fn from_writer(
        produce: impl FnOnce(PipeWriter) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_PIECES);
        std::thread::spawn(move || {
            let pipe = PipeWriter {
                sender: sender.clone(),
                pending: Vec::with_capacity(PIECE_BYTES),
            };
            if let Err(error) = produce(pipe) {
                // A closed channel means that the request is over: nobody to tell.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self::Stream(receiver)
    }
}

/// The writing end of a streamed body. Dropping it sends what is pending.
#[derive(Debug)]
pub struct PipeWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    pending: Vec<u8>,
}

impl PipeWriter {
    fn send_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.pending, Vec::with_capacity(PIECE_BYTES));
        self.sender
            .blocking_send(Ok(Bytes::from(piece)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl io::Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE_BYTES {
            self.send_pending()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_pending()
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        // The receiver is gone only if the request is over.
        let _ = self.send_pending();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(receiver) => receiver
                .poll_recv(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Bytes(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

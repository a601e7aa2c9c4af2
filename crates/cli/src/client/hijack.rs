//! A connection that an attach or exec turned into a raw stream.

use std::io;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::UnixStream;

/// The raw stream. Its two halves are independent; closing the writing half (the container sees
/// the end of its stdin) leaves the reading half open.
#[derive(Debug)]
pub struct Hijacked {
    /// Bytes of the container.
    pub reader: ReadHalf<RawStream>,
    /// Bytes to the container.
    pub writer: WriteHalf<RawStream>,
    /// The engine said that the stream is multiplexed (API 1.42 and later say it).
    pub is_multiplexed: bool,
}

/// The upgraded connection below.
#[derive(Debug)]
pub enum RawStream {
    /// The socket itself, with bytes that came along with the answer's head.
    Socket {
        /// Bytes that were read too early.
        early: Vec<u8>,
        /// The socket.
        socket: UnixStream,
    },
    /// Whatever hyper wraps, should it not be our socket.
    Other(TokioIo<Upgraded>),
}

impl Hijacked {
    /// Splits an upgraded connection.
    #[must_use]
    pub fn new(upgraded: Upgraded, is_multiplexed: bool) -> Self {
        let raw = match upgraded.downcast::<TokioIo<UnixStream>>() {
            Ok(parts) => RawStream::Socket {
                early: parts.read_buf.to_vec(),
                socket: parts.io.into_inner(),
            },
            Err(upgraded) => RawStream::Other(TokioIo::new(upgraded)),
        };
        let (reader, writer) = tokio::io::split(raw);
        Self {
            reader,
            writer,
            is_multiplexed,
        }
    }
}

mod poll {
    use super::{RawStream, io};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    impl AsyncRead for RawStream {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Socket { early, .. } if !early.is_empty() => {
                    let length = early.len().min(buffer.remaining());
                    for byte in early.drain(..length) {
                        buffer.put_slice(&[byte]);
                    }
                    Poll::Ready(Ok(()))
                }
                Self::Socket { socket, .. } => Pin::new(socket).poll_read(context, buffer),
                Self::Other(other) => Pin::new(other).poll_read(context, buffer),
            }
        }
    }

    impl AsyncWrite for RawStream {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.get_mut() {
                Self::Socket { socket, .. } => Pin::new(socket).poll_write(context, bytes),
                Self::Other(other) => Pin::new(other).poll_write(context, bytes),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Socket { socket, .. } => Pin::new(socket).poll_flush(context),
                Self::Other(other) => Pin::new(other).poll_flush(context),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            match self.get_mut() {
                Self::Socket { socket, .. } => Pin::new(socket).poll_shutdown(context),
                Self::Other(other) => Pin::new(other).poll_shutdown(context),
            }
        }
    }
}

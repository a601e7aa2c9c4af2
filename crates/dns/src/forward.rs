//! Asking other resolvers.

use crate::message::{self, MAX_UDP_BYTES, Query};
use gamut_network::NetworkNamespace;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long to wait for one resolver. A client waits five seconds in all, as resolv.conf(5) says.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often each resolver is asked, in turn.
const ROUNDS: usize = 2;
const PORT: u16 = 53;
const SERVER_FAILURE: u8 = message::SERVER_FAILURE;
const REFUSED: u8 = 5;

/// Resolvers, and from where they are asked.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub servers: Vec<IpAddr>,
    /// Where those on a loopback address are; the calling thread's namespace if none.
    pub inside: Option<Arc<NetworkNamespace>>,
}

/// Transport of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

impl Upstream {
    /// Hands a question on and returns the first good answer, else the last one that there was.
    /// `None` if nobody answers.
    pub async fn ask(
        &self,
        query: &Query,
        question: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut last = None;
        for _ in 0..ROUNDS {
            for server in &self.servers {
                let answer = match transport {
                    Transport::Udp => within(self.by_udp(query, question, *server)).await,
                    Transport::Tcp => within(self.by_tcp(query, question, *server)).await,
                };
                match answer {
                    Ok(answer) => match message::code(&answer) {
                        Some(SERVER_FAILURE | REFUSED) => last = Some(answer),
                        _ => return Some(answer),
                    },
                    Err(error) => tracing::debug!(%server, %error, "a resolver does not answer"),
                }
            }
            // Who answers that he cannot will not know better at once.
            if last.is_some() {
                break;
            }
        }
        last
    }

    fn inside(&self, server: IpAddr) -> Option<Arc<NetworkNamespace>> {
        self.inside.clone().filter(|_| server.is_loopback())
    }

    async fn by_udp(&self, query: &Query, question: &[u8], server: IpAddr) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match server {
            IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            IpAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let target = SocketAddr::new(server, PORT);
        // A socket of its own: the kernel chooses a port that is hard to guess, and answers of
        // others than the one who was asked are not let in.
        let socket = match self.inside(server) {
            None => UdpSocket::bind(any).await?,
            Some(namespace) => {
                let socket =
                    in_namespace(namespace, move || std::net::UdpSocket::bind(any)).await?;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)?
            }
        };
        socket.connect(target).await?;
        socket.send(question).await?;
        let mut answer = vec![0; MAX_UDP_BYTES];
        loop {
            let count = socket.recv(&mut answer).await?;
            let received = answer.get(..count).unwrap_or_default();
            if query.is_answered_by(received) {
                return Ok(received.to_vec());
            }
        }
    }

    async fn by_tcp(&self, query: &Query, question: &[u8], server: IpAddr) -> io::Result<Vec<u8>> {
        let target = SocketAddr::new(server, PORT);
        let mut stream = match self.inside(server) {
            None => TcpStream::connect(target).await?,
            Some(namespace) => {
                let connect = move || std::net::TcpStream::connect_timeout(&target, PATIENCE);
                let stream = in_namespace(namespace, connect).await?;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)?
            }
        };
        write_framed(&mut stream, question).await?;
        let answer = read_framed(&mut stream).await?;
        if query.is_answered_by(&answer) {
            Ok(answer)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it answers something else",
            ))
        }
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn in_namespace<T: Send + 'static>(
    namespace: Arc<NetworkNamespace>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let inside = move || namespace.inside(|| Ok(work()));
    tokio::task::spawn_blocking(inside)
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)?
}

/// Reads a message with its length before it (RFC 1035, 4.2.2).
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message with its length before it.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), message].concat())
        .await
}

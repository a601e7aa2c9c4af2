//! Where clients knock: unix sockets, TCP with mutual TLS, and plain TCP for metrics.

use crate::tls::TlsFiles;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take to show its certificate.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Clients that may be about to; others wait for their turn.
const HANDSHAKES: usize = 512;
/// Seconds of silence after which a peer is asked whether it is still there.
const KEEPALIVE_S: libc::c_int = 60;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix {
        listener: Arc<UnixListener>,
        /// Of the first alone: tasks that share the socket may outlive the server.
        _file: Option<SocketFile>,
    },
    Tls(TlsListener),
    Metrics(Arc<TcpListener>),
}

/// Clients must show a certificate.
#[derive(Clone)]
pub(crate) struct TlsListener {
    listener: Arc<TcpListener>,
    acceptor: TlsAcceptor,
    turns: Arc<Semaphore>,
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Removes the file of a socket when it is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// A socket for root and a group only.
    ///
    /// # Errors
    /// `AddrInUse` if another daemon listens there.
    pub(crate) fn unix(path: &Path, group: Option<u32>) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another daemon listens at {}", path.display()),
            ));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Bound under another name with the right mode first: at no moment can others connect.
        let hidden = path.with_extension("new");
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&hidden, None, Some(group))?;
        }
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&hidden, path)?;
        Ok(Self::Unix {
            listener: Arc::new(listener),
            _file: Some(SocketFile(path.to_owned())),
        })
    }

    /// # Errors
    /// Those of bind(2), and what is wrong with the files.
    pub(crate) async fn tls(address: SocketAddr, files: &TlsFiles) -> io::Result<Self> {
        let config = files.server().map_err(io::Error::other)?;
        Ok(Self::Tls(TlsListener {
            listener: Arc::new(TcpListener::bind(address).await?),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            turns: Arc::new(Semaphore::new(HANDSHAKES)),
        }))
    }

    /// # Errors
    /// Those of bind(2).
    pub(crate) async fn metrics(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Metrics(Arc::new(TcpListener::bind(address).await?)))
    }

    /// The same socket once more; its file goes with the first one.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::Unix { listener, .. } => Self::Unix {
                listener: Arc::clone(listener),
                _file: None,
            },
            Self::Tls(listener) => Self::Tls(listener.clone()),
            Self::Metrics(listener) => Self::Metrics(Arc::clone(listener)),
        }
    }
}

/// A client that has not shown its certificate yet.
pub(crate) struct Arriving {
    stream: TcpStream,
    acceptor: TlsAcceptor,
    turn: OwnedSemaphorePermit,
}

impl TlsListener {
    /// # Errors
    /// Those of accept(2).
    pub(crate) async fn accept(&self) -> io::Result<(Arriving, SocketAddr)> {
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, peer) = self.listener.accept().await?;
        let arriving = Arriving {
            stream,
            acceptor: self.acceptor.clone(),
            turn,
        };
        Ok((arriving, peer))
    }
}

impl Arriving {
    /// # Errors
    /// Without a certificate that counts, or if it takes too long.
    pub(crate) async fn finish(self) -> io::Result<TlsStream<TcpStream>> {
        let _ = self.stream.set_nodelay(true);
        keep_alive(&self.stream);
        let stream = tokio::time::timeout(HANDSHAKE_LIMIT, self.acceptor.accept(self.stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        drop(self.turn);
        Ok(stream)
    }
}

/// A peer that vanished without a word must not hold its connection for ever.
fn keep_alive(stream: &TcpStream) {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_S / 4),
    ] {
        // SAFETY: the value outlives the call and its length is passed. Failure leaves the default.
        unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                length,
            )
        };
    }
}

//! The HTTP server on a unix socket.

use crate::reply::Response;
use crate::request::{NEWEST, Request};
use crate::route;
use gamut_engine::{Caller, Engine};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, SERVER, USER_AGENT};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// How long a connection may be idle, or take for the head of a request: hyper does not tell the
/// two apart, and clients keep connections for their next request.
const IDLE_LIMIT: Duration = Duration::from_secs(3600);

/// A listening socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    requests: Arc<AtomicU64>,
}

impl Server {
    /// Listens at `path`, for root (and `group`, a numeric group id) only. A socket file that
    /// nobody listens at is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if another daemon listens there.
    pub fn bind(path: &Path, group: Option<u32>) -> io::Result<Self> {
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
        Ok(Self {
            listener,
            path: path.to_owned(),
            requests: Arc::default(),
        })
    }

    /// Serves until the future is dropped.
    pub async fn serve(&self, engine: Arc<Engine>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let engine = Arc::clone(&engine);
                    let requests = Arc::clone(&self.requests);
                    tokio::spawn(connection(stream, engine, requests));
                }
                Err(error) => {
                    // Out of descriptors, for instance: others are still served.
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Sets its flag when the request's future is dropped because the client has hung up.
struct HangUp {
    cancelled: Arc<AtomicBool>,
    answered: bool,
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if !self.answered {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

async fn connection(stream: UnixStream, engine: Arc<Engine>, requests: Arc<AtomicU64>) {
    let peer_uid = stream
        .peer_cred()
        .map_or(u32::MAX, |peer| engine.outside_uid(peer.uid()));
    let service = service_fn(|http: hyper::Request<Incoming>| {
        let engine = Arc::clone(&engine);
        let number = requests.fetch_add(1, Ordering::Relaxed);
        let client = http
            .headers()
            .get(USER_AGENT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let cancelled = Arc::new(AtomicBool::new(false));
        let caller = Caller {
            request_id: format!("{number:x}"),
            peer_uid,
            client,
            cancelled: Arc::clone(&cancelled),
        };
        async move {
            let mut hang_up = HangUp {
                cancelled,
                answered: false,
            };
            let answer = answer(engine, caller, http).await;
            // Answered: what still streams is ended by its own channel.
            hang_up.answered = true;
            Ok::<Response, Infallible>(answer)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn answer(engine: Arc<Engine>, caller: Caller, http: hyper::Request<Incoming>) -> Response {
    let request_id = caller.request_id.clone();
    let (method, uri) = (http.method().clone(), http.uri().clone());
    let outcome = match Request::new(engine, caller, http) {
        Ok(request) => route::answer(request).await,
        Err(error) => Err(error),
    };
    let mut response = outcome.unwrap_or_else(|error| {
        tracing::debug!(request_id, %method, %uri, status = error.status.as_u16(), message = error.message, "refused");
        error.into_response()
    });
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("api-version"),
        HeaderValue::try_from(NEWEST.to_string()).unwrap_or(HeaderValue::from_static("1.55")),
    );
    headers.insert(
        HeaderName::from_static("docker-experimental"),
        HeaderValue::from_static("false"),
    );
    headers.insert(
        HeaderName::from_static("ostype"),
        HeaderValue::from_static("linux"),
    );
    headers.insert(
        SERVER,
        HeaderValue::from_static(concat!("Gamut/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    response
}

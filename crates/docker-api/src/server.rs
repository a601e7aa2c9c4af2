//! The HTTP server on its sockets.

use crate::listen::{Listener, TlsListener};
use crate::metrics::Metrics;
use crate::reply::Response;
use crate::request::{NEWEST, Request};
use crate::tls::TlsFiles;
use crate::{probes, route};
use gamut_engine::{Caller, Engine};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, SERVER, USER_AGENT};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// How long a connection may be idle, or take for the head of a request: hyper does not tell the
/// two apart, and clients keep connections for their next request.
const IDLE_LIMIT: Duration = Duration::from_secs(3600);
/// The same for whoever asks for metrics.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// Out of descriptors, for instance: others are still served.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listening sockets. The files of unix sockets go when this is dropped.
#[derive(Debug, Default)]
pub struct Server {
    listeners: Vec<Listener>,
    shared: Arc<Shared>,
}

/// What connections have in common.
#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Listens at `path`, for root (and `group`, a numeric group id) only. A socket file that
    /// nobody listens at is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if another daemon listens there.
    pub fn listen_unix(&mut self, path: &Path, group: Option<u32>) -> io::Result<()> {
        self.listeners.push(Listener::unix(path, group)?);
        Ok(())
    }

    /// Listens on TCP for clients that show a certificate.
    ///
    /// # Errors
    /// Those of bind(2), and what is wrong with the files.
    pub async fn listen_tls(&mut self, address: SocketAddr, files: &TlsFiles) -> io::Result<()> {
        self.listeners.push(Listener::tls(address, files).await?);
        Ok(())
    }

    /// Listens on TCP for whoever asks for metrics and health, and nothing else.
    ///
    /// # Errors
    /// Those of bind(2).
    pub async fn listen_metrics(&mut self, address: SocketAddr) -> io::Result<()> {
        self.listeners.push(Listener::metrics(address).await?);
        Ok(())
    }

    /// Serves until the future is dropped.
    pub async fn serve(&self, engine: Arc<Engine>) {
        let serve = |listener| serve_one(listener, Arc::clone(&engine), Arc::clone(&self.shared));
        let mut all = JoinSet::new();
        for listener in &self.listeners {
            all.spawn(serve(listener.share()));
        }
        while all.join_next().await.is_some() {}
        // Nowhere left to listen.
        std::future::pending::<()>().await;
    }
}

async fn serve_one(listener: Listener, engine: Arc<Engine>, shared: Arc<Shared>) {
    match listener {
        Listener::Unix { listener, .. } => loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let peer_uid = stream
                        .peer_cred()
                        .map_or(u32::MAX, |peer| engine.outside_uid(peer.uid()));
                    let (engine, shared) = (Arc::clone(&engine), Arc::clone(&shared));
                    tokio::spawn(connection(stream, peer_uid, engine, shared));
                }
                Err(error) => pause(&error).await,
            }
        },
        Listener::Tls(listener) => serve_tls(&listener, &engine, &shared).await,
        Listener::Metrics(listener) => loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (engine, shared) = (Arc::clone(&engine), Arc::clone(&shared));
                    tokio::spawn(probed(stream, engine, shared));
                }
                Err(error) => pause(&error).await,
            }
        },
    }
}

async fn serve_tls(listener: &TlsListener, engine: &Arc<Engine>, shared: &Arc<Shared>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let (engine, shared) = (Arc::clone(engine), Arc::clone(shared));
        tokio::spawn(async move {
            match stream.finish().await {
                // Who has a certificate of the authority is trusted like root.
                Ok(stream) => connection(stream, 0, engine, shared).await,
                Err(error) => {
                    shared.metrics.refused_handshake();
                    tracing::warn!(%peer, %error, "refused a client without a certificate that counts");
                }
            }
        });
    }
}

async fn pause(error: &io::Error) {
    tracing::error!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
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

/// Counts a connection while it lasts.
struct Connected<'a>(&'a Metrics);

impl<'a> Connected<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.connected();
        Self(metrics)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

async fn connection<S>(stream: S, peer_uid: u32, engine: Arc<Engine>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _connected = Connected::new(&shared.metrics);
    let service = service_fn(|http: hyper::Request<Incoming>| {
        let engine = Arc::clone(&engine);
        let metrics = Arc::clone(&shared.metrics);
        let number = shared.requests.fetch_add(1, Ordering::Relaxed);
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
            let answer = answer(engine, caller, http, &metrics).await;
            // Answered: what still streams is ended by its own channel.
            hang_up.answered = true;
            Ok::<Response, Infallible>(answer)
        }
    });
    serve_http(stream, IDLE_LIMIT, service).await;
}

/// A connection that may ask for metrics and health only.
async fn probed(stream: tokio::net::TcpStream, engine: Arc<Engine>, shared: Arc<Shared>) {
    let service = service_fn(|http: hyper::Request<Incoming>| {
        let (engine, metrics) = (Arc::clone(&engine), Arc::clone(&shared.metrics));
        async move {
            let (method, path) = (http.method().clone(), http.uri().path().to_owned());
            let answer = probes::answer(&engine, &metrics, &method, &path).await;
            let missing = || crate::reply::empty(hyper::StatusCode::NOT_FOUND);
            Ok::<Response, Infallible>(answer.unwrap_or_else(missing))
        }
    });
    serve_http(stream, PROBE_LIMIT, service).await;
}

async fn serve_http<S, H, F>(stream: S, limit: Duration, service: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: hyper::service::Service<
            hyper::Request<Incoming>,
            Response = Response,
            Error = Infallible,
            Future = F,
        >,
    F: Future<Output = Result<Response, Infallible>>,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn answer(
    engine: Arc<Engine>,
    caller: Caller,
    http: hyper::Request<Incoming>,
    metrics: &Arc<Metrics>,
) -> Response {
    let begun = Instant::now();
    let request_id = caller.request_id.clone();
    let (method, uri) = (http.method().clone(), http.uri().clone());
    let probed = probes::answer(&engine, metrics, &method, uri.path()).await;
    let outcome = match (probed, Request::new(engine, caller, http)) {
        (Some(answer), _) => Ok(answer),
        (None, Ok(request)) => route::answer(request).await,
        (None, Err(error)) => Err(error),
    };
    let mut response = outcome.unwrap_or_else(|error| {
        tracing::debug!(request_id, %method, %uri, status = error.status.as_u16(), message = error.message, "refused");
        error.into_response()
    });
    metrics.answered(&method, response.status().as_u16(), begun.elapsed());
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

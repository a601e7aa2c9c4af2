//! HTTP/1.1 over a connection to the engine: requests, answers, streams.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::address::{Address, Endpoint};
use super::autostart;
use super::body::RequestBody;
use super::hijack::Hijacked;
use super::json_stream::Splitter;
use super::query::Query;
use super::stream::{self, Connected};
use crate::error::Error;

/// Version prefix of all requests. Fixed: asking first would cost a round trip per command. Of older
/// versions the engine takes less: annotations, several networks, parts of volumes.
const API_VERSION: &str = "/v1.51";
const JSON_TYPE: &str = "application/json";
/// An answer that is collected as a whole is not longer than this.
const ANSWER_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// A client of one engine. Idle connections are kept for the next request.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    may_start_daemon: bool,
    idle: Mutex<Vec<SendRequest<RequestBody>>>,
}

/// A request under construction.
#[derive(Debug)]
pub struct Call {
    method: Method,
    path: String,
    body: RequestBody,
    content_type: &'static str,
    header: Option<(&'static str, String)>,
}

impl Call {
    /// A request without body; `path` starts with `/` and has no version prefix.
    #[must_use]
    pub fn new(method: Method, path: &str, query: &Query) -> Self {
        // Gamut's own routes carry their own version.
        let prefix = if path.starts_with("/gamut/") {
            ""
        } else {
            API_VERSION
        };
        Self {
            method,
            path: format!("{prefix}{path}{}", query.as_str()),
            body: RequestBody::Empty,
            content_type: JSON_TYPE,
            header: None,
        }
    }

    /// With a further header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.header = Some((name, value.to_owned()));
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, value: &Value) -> Self {
        self.body = RequestBody::json(value);
        self
    }

    /// With a body of another type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: RequestBody) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    fn name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or(&self.path);
        format!("{} {path}", self.method)
    }
}

impl Client {
    /// A client of the engine at `address`; connects with the first request.
    #[must_use]
    pub fn new(address: &Address) -> Self {
        Self {
            endpoint: address.endpoint.clone(),
            may_start_daemon: address.is_default,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// GET, answer as JSON.
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn get(&self, path: &str, query: &Query) -> Result<Value, Error> {
        self.call(Call::new(Method::GET, path, query)).await
    }

    /// POST with a JSON body (none if `null`), answer as JSON (`null` if empty).
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn post(&self, path: &str, query: &Query, body: &Value) -> Result<Value, Error> {
        let call = Call::new(Method::POST, path, query);
        let call = if body.is_null() {
            call
        } else {
            call.json(body)
        };
        self.call(call).await
    }

    /// DELETE, answer as JSON (`null` if empty).
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn delete(&self, path: &str, query: &Query) -> Result<Value, Error> {
        self.call(Call::new(Method::DELETE, path, query)).await
    }

    /// Any request whose answer is JSON or empty.
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn call(&self, call: Call) -> Result<Value, Error> {
        let operation = call.name();
        let text = self.text(call).await?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| Error::Answer {
            operation,
            reason: error.to_string(),
        })
    }

    /// GET, answer as the engine wrote it.
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn get_text(&self, path: &str, query: &Query) -> Result<String, Error> {
        self.text(Call::new(Method::GET, path, query)).await
    }

    async fn text(&self, call: Call) -> Result<String, Error> {
        let operation = call.name();
        let (response, sender) = self.send(call).await?;
        let bytes = collect(response.into_body(), &operation).await?;
        self.keep(sender);
        String::from_utf8(bytes).map_err(|error| Error::Answer {
            operation,
            reason: error.to_string(),
        })
    }

    /// HEAD; returns one header's value.
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors (whose text a HEAD does not carry).
    pub async fn head(
        &self,
        path: &str,
        query: &Query,
        header: &str,
    ) -> Result<Option<String>, Error> {
        let (response, _) = self.send(Call::new(Method::HEAD, path, query)).await?;
        let value = response.headers().get(header);
        Ok(value.and_then(|value| value.to_str().ok().map(str::to_owned)))
    }

    /// Any request whose answer is read as it comes.
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn stream(&self, call: Call) -> Result<Streaming, Error> {
        let operation = call.name();
        let (response, sender) = self.send(call).await?;
        Ok(Streaming {
            response,
            _sender: sender,
            operation,
            splitter: Splitter::default(),
            values: VecDeque::new(),
        })
    }

    /// POST that turns the connection into a raw stream of bytes in both directions.
    ///
    /// # Errors
    /// Connection failures, and the engine's own errors.
    pub async fn hijack(&self, path: &str, query: &Query, body: &Value) -> Result<Hijacked, Error> {
        let mut call = Call::new(Method::POST, path, query);
        if !body.is_null() {
            call = call.json(body);
        }
        let operation = call.name();
        let mut sender = self.connect().await?;
        let mut request = request(call)?;
        let headers = request.headers_mut();
        headers.insert(
            "Connection",
            hyper::header::HeaderValue::from_static("Upgrade"),
        );
        headers.insert("Upgrade", hyper::header::HeaderValue::from_static("tcp"));
        let failed = |source| Error::Http {
            operation: operation.clone(),
            source,
        };
        let response = sender.send_request(request).await.map_err(failed)?;
        match response.status() {
            // 200 was the answer of engines before upgrades were named; no data may follow it
            // through HTTP framing, so only a proper upgrade is taken.
            StatusCode::SWITCHING_PROTOCOLS => {
                let is_multiplexed = response
                    .headers()
                    .get("Content-Type")
                    .is_some_and(|kind| kind == "application/vnd.docker.multiplexed-stream");
                let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
                Ok(Hijacked::new(upgraded, is_multiplexed))
            }
            status if status.is_success() => Err(Error::Answer {
                operation,
                reason: format!("status {status} instead of an upgraded connection"),
            }),
            _ => Err(refused(response, &operation).await),
        }
    }

    async fn send(
        &self,
        call: Call,
    ) -> Result<(Response<Incoming>, SendRequest<RequestBody>), Error> {
        let operation = call.name();
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = request(call)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| Error::Http {
                operation: operation.clone(),
                source,
            })?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            Ok((response, sender))
        } else {
            Err(refused(response, &operation).await)
        }
    }

    fn take_idle(&self) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(sender);
    }

    async fn connect(&self) -> Result<SendRequest<RequestBody>, Error> {
        match self.open().await? {
            Connected::Unix(stream) => handshake(stream).await,
            Connected::Other(stream) => handshake(stream).await,
        }
    }

    /// The engine's bytes, and bytes to the engine.
    ///
    /// # Errors
    /// Connection failures.
    pub async fn dial(&self) -> Result<(Reading, Writing), Error> {
        Ok(match self.open().await? {
            Connected::Unix(stream) => {
                let (reader, writer) = stream.into_split();
                (Box::pin(reader), Box::pin(writer))
            }
            Connected::Other(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                (Box::pin(reader), Box::pin(writer))
            }
        })
    }

    async fn open(&self) -> Result<Connected, Error> {
        let failed = |source| Error::Connect {
            address: self.endpoint.to_string(),
            source,
        };
        match &self.endpoint {
            Endpoint::Unix(socket) => match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Connected::Unix(stream)),
                Err(error) if self.may_start_daemon && is_absent(&error) => {
                    let stream = autostart::start_and_connect(socket).await?;
                    Ok(Connected::Unix(stream))
                }
                Err(source) => Err(failed(source)),
            },
            Endpoint::Tls { host, port, files } => {
                let connected = stream::connect_tls(host, *port, files).await;
                connected.map(Connected::Other).map_err(failed)
            }
            Endpoint::Ssh { destination, port } => {
                let started = stream::start_ssh(destination, *port);
                started.map(Connected::Other).map_err(failed)
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<RequestBody>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|source| Error::Http {
            operation: "connect".into(),
            source,
        })?;
    tokio::spawn(async move {
        // A broken connection shows in the request that uses it.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// Bytes of the engine.
pub type Reading = Pin<Box<dyn AsyncRead + Send>>;
/// Bytes to the engine.
pub type Writing = Pin<Box<dyn AsyncWrite + Send>>;

/// Whether nothing listens at the socket (as opposed to: we may not connect to it).
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn request(call: Call) -> Result<Request<RequestBody>, Error> {
    let operation = call.name();
    let mut builder = Request::builder()
        .method(call.method)
        .uri(call.path)
        .header("Host", "gamut")
        .header("User-Agent", concat!("gamut/", env!("CARGO_PKG_VERSION")));
    if !matches!(call.body, RequestBody::Empty) {
        builder = builder.header("Content-Type", call.content_type);
    }
    if let Some((name, value)) = call.header {
        builder = builder.header(name, value);
    }
    builder
        .body(call.body)
        .map_err(|error| Error::Message(format!("{operation}: {error}")))
}

async fn collect(mut body: Incoming, operation: &str) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| Error::Http {
            operation: operation.to_owned(),
            source,
        })?;
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > ANSWER_LIMIT_BYTES {
                return Err(Error::Answer {
                    operation: operation.to_owned(),
                    reason: format!("longer than {ANSWER_LIMIT_BYTES} bytes"),
                });
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

/// The engine's error: `{"message": …}`, or whatever it wrote instead.
async fn refused(response: Response<Incoming>, operation: &str) -> Error {
    let status = response.status();
    let bytes = match collect(response.into_body(), operation).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let text = String::from_utf8_lossy(&bytes);
    let message = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| text.trim().to_owned());
    let message = if message.is_empty() {
        format!("{operation}: {status}")
    } else {
        message.trim_end().to_owned()
    };
    Error::Api {
        status: status.as_u16(),
        message,
    }
}

/// An answer that is read as it comes. Dropping it closes its connection.
#[derive(Debug)]
pub struct Streaming {
    response: Response<Incoming>,
    _sender: SendRequest<RequestBody>,
    operation: String,
    splitter: Splitter,
    values: VecDeque<Vec<u8>>,
}

impl Streaming {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks before the end.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Some(frame) = self.response.body_mut().frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|source| Error::Http {
                operation: self.operation.clone(),
                source,
            })?;
            match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                _ => {}
            }
        }
    }

    /// The next of a series of JSON values; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or the stream is not JSON.
    pub async fn next_json(&mut self) -> Result<Option<Value>, Error> {
        let Some(raw) = self.next_raw_json().await? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&raw).map_err(|error| self.bad(&error.to_string()))?;
        Ok(Some(value))
    }

    /// The text of the next of a series of JSON values; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or a value is longer than the limit.
    pub async fn next_raw_json(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(value) = self.values.pop_front() {
                return Ok(Some(value));
            }
            match self.next_bytes().await? {
                Some(bytes) => {
                    let values = &mut self.values;
                    if let Err(error) = self.splitter.push(&bytes, |raw| values.push_back(raw)) {
                        return Err(self.bad(&error.to_string()));
                    }
                }
                None => return Ok(self.splitter.finish()),
            }
        }
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    fn bad(&self, reason: &str) -> Error {
        Error::Answer {
            operation: self.operation.clone(),
            reason: reason.to_owned(),
        }
    }
}

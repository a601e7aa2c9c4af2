//! Requests to one server, without a notion of who asks: TLS, redirects, and errors that say what
//! to do.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use gamut_spec::error::ErrorKind;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use super::address::{Url, is_loopback};
use super::certificates::Found;
use super::settings::RegistrySettings;
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A registry may have to verify, or to copy, a large blob before it answers to a PUT.
const PUT_TIMEOUT: Duration = Duration::from_secs(600);
/// A body that stands still for so long has been cut.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// The way to one server.
pub(super) struct Connection {
    agent: Agent,
    /// The server; its path is `/`.
    pub(super) base: Url,
    /// What is worked on, for errors.
    pub(super) object: String,
    /// Whether the server may do without TLS, and lead to others that do.
    is_plain_allowed: bool,
    settings: Arc<RegistrySettings>,
}

/// How far a server is trusted.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) settings: Arc<RegistrySettings>,
    /// Registries on loopback addresses may do without TLS.
    pub(super) insecure_loopback: bool,
}

/// The body of a request.
pub(super) enum Payload<'p> {
    None,
    Bytes(&'p [u8]),
    /// That many bytes of a reader.
    Stream(&'p mut dyn Read, u64),
}

impl Connection {
    /// Prepares the way to `host[:port]`. A server that may do without TLS is asked whether it
    /// does.
    pub(super) fn to_host(host: &str, object: &str, trust: &Trust) -> Result<Self> {
        let found = Found::look(&trust.settings, host)?;
        let is_local = trust.insecure_loopback && is_loopback(host);
        // Who names authorities for a host wants them to be asked.
        let is_lenient = !found.has_authorities() && (is_local || trust.settings.is_insecure(host));
        let scheme = if is_lenient && is_local {
            "http"
        } else {
            "https"
        };
        let base = Url::parse(&format!("{scheme}://{host}/"))?;
        let mut connection = Self::new(base, found, is_lenient, object, trust);
        if is_lenient {
            connection.probe();
        }
        Ok(connection)
    }

    /// Prepares the way to a server whose scheme the administrator chose.
    pub(super) fn to_url(base: &Url, object: &str, trust: &Trust) -> Result<Self> {
        let found = Found::look(&trust.settings, &base.authority)?;
        let is_lenient = !found.has_authorities() && trust.settings.is_insecure(&base.authority);
        let mut connection = Self::new(base.clone(), found, is_lenient, object, trust);
        connection.is_plain_allowed |= base.scheme == "http";
        Ok(connection)
    }

    fn new(base: Url, found: Found, is_lenient: bool, object: &str, trust: &Trust) -> Self {
        let agent: Agent = Agent::config_builder()
            .tls_config(found.tls(!is_lenient))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("gamut/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .timeout_per_write(Some(STALL_TIMEOUT))
            .build()
            .into();
        Self {
            agent,
            base,
            object: object.to_owned(),
            is_plain_allowed: is_lenient,
            settings: Arc::clone(&trust.settings),
        }
    }

    /// Finds out whether the server speaks TLS. No credentials go with the question.
    fn probe(&mut self) {
        let answer = self.send(
            &Method::GET,
            &self.base.at("/v2/"),
            &[],
            None,
            Payload::None,
        );
        match answer {
            // What a server that speaks TLS says to a plain request.
            Ok(answer)
                if self.base.scheme == "http" && answer.status() == StatusCode::BAD_REQUEST =>
            {
                self.base.scheme = "https".to_owned();
            }
            Err(_) if self.base.scheme == "https" => self.base.scheme = "http".to_owned(),
            _ => {}
        }
    }

    /// Whether a server may do without TLS. One that does may lead to others that do, but only
    /// within this machine or by the administrator's word.
    fn may_be_plain(&self, authority: &str) -> bool {
        self.is_plain_allowed
            && (authority == self.base.authority
                || self.settings.is_insecure(authority)
                || (is_loopback(authority) && is_loopback(&self.base.authority)))
    }

    /// Refuses addresses that would have to be spoken to in the clear.
    pub(super) fn check(&self, url: &Url) -> Result<()> {
        url.check_security(self.may_be_plain(&url.authority))
    }

    /// Sends one request, to wherever; nothing is followed.
    pub(super) fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
        payload: Payload<'_>,
    ) -> Result<Response<Body>> {
        self.check(url)?;
        let mut request = Request::builder()
            .method(method.clone())
            .uri(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let built = |request: Result<Request<SendBody<'_>>, ureq::http::Error>| {
            let request = request
                .map_err(|error| Error::malformed(format!("address {url}"), error.to_string()))?;
            let request = if *method == Method::PUT {
                self.agent
                    .configure_request(request)
                    .timeout_recv_response(Some(PUT_TIMEOUT))
                    .build()
            } else {
                request
            };
            self.agent
                .run(request)
                .map_err(|error| self.unreachable(url, error))
        };
        match payload {
            Payload::None if matches!(*method, Method::GET | Method::HEAD) => {
                built(request.body(SendBody::none()))
            }
            Payload::None => built(request.header("content-length", "0").body(SendBody::none())),
            Payload::Bytes(bytes) => {
                let mut reader = bytes;
                let length = bytes.len().to_string();
                built(
                    request
                        .header("content-length", length)
                        .body(SendBody::from_reader(&mut reader)),
                )
            }
            Payload::Stream(reader, length_bytes) => {
                let mut reader = reader.take(length_bytes);
                built(
                    request
                        .header("content-length", length_bytes.to_string())
                        .body(SendBody::from_reader(&mut reader)),
                )
            }
        }
    }

    /// Sends a request and follows redirects, without the credentials where they lead elsewhere.
    /// Only requests that may be repeated are followed.
    pub(super) fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let mut url = url.clone();
        for _ in 0..MAX_REDIRECTS {
            let authorization = authorization.filter(|_| url.is_same_origin(&self.base));
            let payload = body.map_or(Payload::None, Payload::Bytes);
            let answer = self.send(method, &url, headers, authorization, payload)?;
            let status = answer.status();
            if !status.is_redirection() {
                return Ok(answer);
            }
            // The others would turn a PUT into a GET.
            let is_safe = matches!(*method, Method::GET | Method::HEAD);
            if !is_safe && !matches!(status.as_u16(), 307 | 308) {
                return Ok(answer);
            }
            let Some(location) = header_text(&answer, "location") else {
                return Ok(answer);
            };
            let next = url.join(&location)?;
            self.check(&next)?;
            url = next;
        }
        Err(self.error(
            "too many redirects; the registry is misconfigured".to_owned(),
            ErrorKind::Unavailable,
            false,
        ))
    }

    pub(super) fn error(&self, reason: String, kind: ErrorKind, transient: bool) -> Error {
        Error::Registry {
            object: self.object.clone(),
            reason,
            kind,
            transient,
            source: None,
        }
    }

    /// A connection that broke while a body came.
    pub(super) fn cut(&self, object: &str, source: io::Error) -> Error {
        Error::Registry {
            object: object.to_owned(),
            reason: format!("the connection to {} was cut", self.base.authority),
            kind: ErrorKind::Unavailable,
            transient: true,
            source: Some(Box::new(ureq::Error::Io(source))),
        }
    }

    /// What a failed connection means and what to do.
    fn unreachable(&self, url: &Url, error: ureq::Error) -> Error {
        let host = &url.authority;
        let (reason, transient) = match &error {
            ureq::Error::HostNotFound => (
                format!("the host {host} is unknown; check the name and the network's DNS"),
                false,
            ),
            ureq::Error::Timeout(_) => (
                format!("{host} does not answer; check the network or a proxy (HTTPS_PROXY)"),
                true,
            ),
            ureq::Error::Io(source) if source.kind() == io::ErrorKind::ConnectionRefused => (
                format!("connection refused by {host}; is the registry running there?"),
                false,
            ),
            ureq::Error::ConnectionFailed => (
                format!("connection to {host} failed; is the registry running there?"),
                false,
            ),
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => (tls_reason(host), false),
            ureq::Error::Io(source) if is_tls(source) => (tls_reason(host), false),
            ureq::Error::Io(_) => (format!("the connection to {host} was cut"), true),
            ureq::Error::Protocol(_) => (format!("{host} does not speak HTTP as expected"), false),
            _ => (format!("the request to {host} failed"), false),
        };
        Error::Registry {
            object: self.object.clone(),
            reason,
            kind: ErrorKind::Unavailable,
            transient,
            source: Some(Box::new(error)),
        }
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData || error.to_string().contains("certificate")
}

fn tls_reason(host: &str) -> String {
    format!(
        "no secure connection to {host}: its certificate is not trusted or it does not speak TLS; \
         put its authority into /etc/gamut/certs.d/{host}/ca.crt or add it to the system's \
         certificates"
    )
}

/// A header as text.
pub(super) fn header_text(answer: &Response<Body>, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Reads a body of at most `limit_bytes`, which `limit` says in words.
pub(super) fn read_limited(
    answer: &mut Response<Body>,
    limit_bytes: u64,
    object: &str,
    limit: &str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    answer
        .body_mut()
        .as_reader()
        .take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Registry {
            object: object.to_owned(),
            reason: "the connection was cut".to_owned(),
            kind: ErrorKind::Unavailable,
            transient: true,
            source: Some(Box::new(ureq::Error::Io(source))),
        })?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::TooLarge {
            object: object.to_owned(),
            limit: limit.to_owned(),
        });
    }
    Ok(bytes)
}

/// What the body of a refusal explains, as far as it can be read.
pub(super) fn explained(answer: &mut Response<Body>) -> String {
    let mut body = Vec::new();
    let _ = answer
        .body_mut()
        .as_reader()
        .take(MAX_ERROR_BYTES)
        .read_to_end(&mut body);
    explanation(&body)
}

/// The message of a registry's error document, printable and short.
pub(super) fn explanation(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    let text = value
        .pointer("/errors/0/message")
        .or_else(|| value.get("details"))
        .or_else(|| value.get("message"))
        .and_then(|text| text.as_str())
        .unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(base: &str, settings: &str, insecure_loopback: bool) -> Connection {
        let trust = Trust {
            settings: Arc::new(RegistrySettings::parse(settings.as_bytes(), "x").unwrap()),
            insecure_loopback,
        };
        let url = Url::parse(base).unwrap();
        let is_lenient = trust.settings.is_insecure(&url.authority)
            || (insecure_loopback && is_loopback(&url.authority));
        Connection::new(url, Found::default(), is_lenient, "x", &trust)
    }

    #[test]
    fn plain_http_stays_where_it_is_allowed() {
        let ok = |connection: &Connection, url: &str| {
            connection.check(&Url::parse(url).unwrap()).is_ok()
        };
        let local = connection("http://127.0.0.1:5000/", "{}", true);
        assert!(ok(&local, "http://127.0.0.1:5000/"));
        assert!(ok(&local, "http://127.0.0.1:6000/token"));
        assert!(!ok(&local, "http://example.com/"));
        assert!(ok(&local, "https://example.com/"));
        let strict = connection("http://127.0.0.1:5000/", "{}", false);
        assert!(!ok(&strict, "http://127.0.0.1:5000/"));
        // A registry elsewhere leads neither to this machine nor to a third.
        let lan = r#"{"registries":{"lan:5000":{"insecure":true},"store:80":{"insecure":true}}}"#;
        let remote = connection("http://lan:5000/", lan, true);
        assert!(ok(&remote, "http://lan:5000/") && ok(&remote, "http://store:80/blob"));
        assert!(!ok(&remote, "http://127.0.0.1:5000/") && !ok(&remote, "http://evil/"));
        let secure = connection("https://registry.example/", lan, true);
        assert!(!ok(&secure, "http://registry.example/") && !ok(&secure, "http://store:80/"));
    }
}

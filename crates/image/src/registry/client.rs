//! Requests to one registry: authentication, redirects, errors that say what to do.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::address::{Url, api_host, is_loopback};
use super::authentication::{Challenge, basic, escape, token_of, token_url};
use super::{Credentials, PullOptions};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A body that stands still for so long has been cut.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
const MAX_ERROR_BYTES: u64 = 64 * 1024;
const MAX_TOKEN_BYTES: u64 = 256 * 1024;

/// A registry, as one pull sees it.
pub(super) struct Client {
    agent: Agent,
    base: Url,
    repository: String,
    /// What is pulled, for errors.
    object: String,
    insecure_loopback: bool,
    credentials: Option<Credentials>,
    /// The `Authorization` header that was accepted.
    authorization: Mutex<Option<String>>,
}

/// A manifest or index as it came.
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) digest: Digest,
}

impl Client {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Result<Self> {
        let host = api_host(reference.registry());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent: Agent = Agent::config_builder()
            .tls_config(tls)
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
        // Only a registry on this machine may lead to plain http on this machine.
        let insecure_loopback = options.insecure_loopback && is_loopback(host);
        let scheme = if insecure_loopback { "http" } else { "https" };
        let mut client = Self {
            agent,
            base: Url::parse(&format!("{scheme}://{host}/"))?,
            repository: reference.repository().to_owned(),
            object: reference.familiar(),
            insecure_loopback,
            credentials: options.credentials.clone(),
            authorization: Mutex::new(None),
        };
        if insecure_loopback {
            client.probe_tls();
        }
        Ok(client)
    }

    /// A server that speaks TLS answers a plain request with 400.
    fn probe_tls(&mut self) {
        let answer = self.send(
            &Url {
                path: "/v2/".to_owned(),
                ..self.base.clone()
            },
            &[],
            None,
        );
        if let Ok(answer) = answer
            && answer.status() == StatusCode::BAD_REQUEST
        {
            self.base.scheme = "https".to_owned();
        }
    }

    /// Gets a manifest or index by tag or digest and verifies the digest.
    pub(super) fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let path = format!("/v2/{}/manifests/{tag_or_digest}", self.repository);
        let mut answer = self.get(&path, &[("accept", &accept)])?;
        let header = |name: &str| header_text(&answer, name);
        let media_type = header("content-type").unwrap_or_default();
        let promised = header("docker-content-digest");
        let object = format!("{}: manifest {tag_or_digest}", self.object);
        let bytes = read_limited(
            &mut answer,
            MAX_MANIFEST_BYTES,
            &object,
            "4 MiB for a manifest",
        )?;
        let digest = Digest::of(&bytes);
        let expected = if tag_or_digest.contains(':') {
            Some(tag_or_digest.to_owned())
        } else {
            promised.filter(|promised| promised.starts_with("sha256:"))
        };
        match expected {
            Some(expected) if expected != digest.to_string() => Err(Error::DigestMismatch {
                object,
                expected,
                actual: digest.to_string(),
            }),
            _ => Ok(RawManifest {
                bytes,
                media_type,
                digest,
            }),
        }
    }

    /// Opens a blob from `offset_bytes` on. The answer is 206 if the server knows ranges, else 200
    /// and the whole.
    pub(super) fn blob(&self, digest: &Digest, offset_bytes: u64) -> Result<Response<Body>> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        if offset_bytes == 0 {
            return self.get(&path, &[]);
        }
        self.get(&path, &[("range", &format!("bytes={offset_bytes}-"))])
    }

    /// Gets a small blob, verified.
    pub(super) fn small_blob(
        &self,
        digest: &Digest,
        size_bytes: u64,
        what: &str,
    ) -> Result<Vec<u8>> {
        let object = format!("{}: {what} {digest}", self.object);
        let mut answer = self.blob(digest, 0)?;
        let mut bytes = Vec::new();
        answer
            .body_mut()
            .as_reader()
            .take(size_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.cut(&object, error))?;
        if bytes.len() as u64 != size_bytes {
            return Err(Error::SizeMismatch {
                object,
                expected_bytes: size_bytes,
                actual_bytes: bytes.len() as u64,
            });
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(Error::DigestMismatch {
                object,
                expected: digest.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(bytes)
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

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let mut authenticated = false;
        loop {
            let mut answer = self.follow(path, headers)?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            if status == StatusCode::UNAUTHORIZED && !authenticated {
                authenticated = true;
                let challenges: Vec<String> = answer
                    .headers()
                    .get_all("www-authenticate")
                    .iter()
                    .filter_map(|value| value.to_str().ok().map(str::to_owned))
                    .collect();
                drop(answer);
                if let Some(challenge) = Challenge::parse(&challenges) {
                    self.authenticate(&challenge)?;
                    continue;
                }
                return Err(self.refused(path, StatusCode::UNAUTHORIZED, ""));
            }
            let mut body = Vec::new();
            // The body only explains; what can be read of it is enough.
            let _ = answer
                .body_mut()
                .as_reader()
                .take(MAX_ERROR_BYTES)
                .read_to_end(&mut body);
            return Err(self.refused(path, status, &explanation(&body)));
        }
    }

    /// Sends a request and follows redirects, without the credentials where they lead elsewhere.
    fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let authorization = self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut url = Url {
            path: path.to_owned(),
            ..self.base.clone()
        };
        for _ in 0..MAX_REDIRECTS {
            let same = url.scheme == self.base.scheme && url.authority == self.base.authority;
            let authorization = authorization.as_deref().filter(|_| same);
            let answer = self.send(&url, headers, authorization)?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let Some(location) = header_text(&answer, "location") else {
                return Ok(answer);
            };
            let next = url.join(&location)?;
            next.check_security(self.insecure_loopback)?;
            url = next;
        }
        Err(self.error(
            "too many redirects; the registry is misconfigured".to_owned(),
            ErrorKind::Unavailable,
            false,
        ))
    }

    fn send(
        &self,
        url: &Url,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>> {
        url.check_security(self.insecure_loopback)?;
        let mut request = self.agent.get(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.call().map_err(|error| self.unreachable(url, error))
    }

    fn authenticate(&self, challenge: &Challenge) -> Result<()> {
        let header = match challenge {
            Challenge::Basic => match &self.credentials {
                Some(known) => basic(&known.username, &known.password),
                None => return Err(self.refused("/v2/", StatusCode::UNAUTHORIZED, "")),
            },
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let own_scope = format!("repository:{}:pull", self.repository);
                let scope = scope.as_deref().unwrap_or(&own_scope);
                let token = self.token(realm, service.as_deref(), scope)?;
                format!("Bearer {token}")
            }
        };
        *self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(())
    }

    fn token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String> {
        let url = Url::parse(realm)?;
        url.check_security(self.insecure_loopback)?;
        let mut answer = match &self.credentials {
            Some(Credentials {
                identity_token: Some(identity),
                ..
            }) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=gamut&service={}&scope={}&refresh_token={}",
                    escape(service.unwrap_or_default()),
                    escape(scope),
                    escape(identity)
                );
                self.agent
                    .post(url.to_string())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .send(form.as_bytes())
                    .map_err(|error| self.unreachable(&url, error))?
            }
            known => {
                let account = known.as_ref().map(|known| known.username.as_str());
                let url = Url::parse(&token_url(realm, service, scope, account))?;
                let header = known
                    .as_ref()
                    .map(|known| basic(&known.username, &known.password));
                self.send(&url, &[], header.as_deref())?
            }
        };
        let status = answer.status();
        let object = format!("token server {realm}");
        let body = read_limited(&mut answer, MAX_TOKEN_BYTES, &object, "256 KiB for a token")?;
        if !status.is_success() {
            return Err(self.refused(realm, status, &explanation(&body)));
        }
        token_of(&body, realm)
    }

    fn error(&self, reason: String, kind: ErrorKind, transient: bool) -> Error {
        Error::Registry {
            object: self.object.clone(),
            reason,
            kind,
            transient,
            source: None,
        }
    }

    /// What a refusal means and what to do.
    fn refused(&self, path: &str, status: StatusCode, explanation: &str) -> Error {
        let host = &self.base.authority;
        let said = if explanation.is_empty() {
            String::new()
        } else {
            format!(": {explanation}")
        };
        match status.as_u16() {
            401 if self.credentials.is_none() => self.error(
                format!("pull access denied: the repository does not exist or {host} asks for a login (try `docker login {host}`){said}"),
                ErrorKind::Unauthorized,
                false,
            ),
            401 => self.error(
                format!("{host} does not accept the user name or password; log in again{said}"),
                ErrorKind::Unauthorized,
                false,
            ),
            403 => self.error(
                format!("{host} denies this user access to the repository{said}"),
                ErrorKind::Forbidden,
                false,
            ),
            404 if path.contains("/manifests/") => self.error(
                format!("not found on {host}; check name and tag{}", if said.is_empty() { ": manifest unknown" } else { &said }),
                ErrorKind::NotFound,
                false,
            ),
            404 => self.error(
                format!("{host} lacks a blob that the manifest names ({path}); the image there is incomplete{said}"),
                ErrorKind::NotFound,
                false,
            ),
            429 => self.error(
                format!("{host} limits the number of requests; wait, or log in for a higher limit{said}"),
                ErrorKind::Unavailable,
                true,
            ),
            code => self.error(
                format!("{host} answered {status} to {path}{said}"),
                ErrorKind::Unavailable,
                code >= 500 || code == 408,
            ),
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
         add its authority to the system's certificates"
    )
}

/// A header as text.
pub(super) fn header_text(answer: &Response<Body>, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

fn read_limited(
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

/// The message of a registry's error document, printable and short.
fn explanation(body: &[u8]) -> String {
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

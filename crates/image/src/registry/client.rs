//! One repository of one registry: who asks, and what is asked for.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use gamut_spec::error::ErrorKind;
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::Credentials;
use super::address::Url;
use super::authentication::{Challenge, Scopes, basic};
use super::connection::{Connection, Payload, explained, header_text, read_limited};
use super::token;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST};

/// A repository, as one pull or push sees it.
pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) repository: String,
    /// The registry that a mirror answers for.
    namespace: Option<String>,
    /// `pull` or `push`, for errors.
    verb: &'static str,
    credentials: Option<Credentials>,
    scopes: Mutex<Scopes>,
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
    /// A client that pulls, or pushes as well.
    pub(super) fn new(
        connection: Connection,
        repository: String,
        credentials: Option<Credentials>,
        is_push: bool,
    ) -> Self {
        let mut scopes = Scopes::default();
        let actions = if is_push { "pull,push" } else { "pull" };
        scopes.add(&format!("repository:{repository}:{actions}"));
        let authorization = credentials
            .as_ref()
            .and_then(|known| known.registry_token.as_ref())
            .map(|token| format!("Bearer {token}"));
        Self {
            connection,
            repository,
            namespace: None,
            verb: if is_push { "push" } else { "pull" },
            credentials,
            scopes: Mutex::new(scopes),
            authorization: Mutex::new(authorization),
        }
    }

    /// As a mirror of `registry`.
    pub(super) fn mirroring(mut self, registry: &str) -> Self {
        self.namespace = Some(registry.to_owned());
        self
    }

    /// Whether it is not the registry itself.
    pub(super) fn is_mirror(&self) -> bool {
        self.namespace.is_some()
    }

    /// The address of something of the repository.
    pub(super) fn url(&self, rest: &str) -> Url {
        let url = self
            .connection
            .base
            .at(&format!("/v2/{}/{rest}", self.repository));
        match &self.namespace {
            Some(registry) => url.with_query("ns", registry),
            None => url,
        }
    }

    /// Asks tokens to cover another repository, too, to mount blobs from it.
    pub(super) fn widen_scope(&self, repository: &str) {
        self.scopes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&format!("repository:{repository}:pull"));
    }

    /// Gets a manifest or index by tag or digest and verifies the digest.
    pub(super) fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let url = self.url(&format!("manifests/{tag_or_digest}"));
        let mut answer = self.get(&url, &[("accept", &accept)])?;
        let header = |name: &str| header_text(&answer, name);
        let media_type = header("content-type").unwrap_or_default();
        let promised = header("docker-content-digest");
        let object = format!("{}: manifest {tag_or_digest}", self.connection.object);
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
        let url = self.url(&format!("blobs/{digest}"));
        if offset_bytes == 0 {
            return self.get(&url, &[]);
        }
        self.get(&url, &[("range", &format!("bytes={offset_bytes}-"))])
    }

    /// Gets a small blob, verified.
    pub(super) fn small_blob(
        &self,
        digest: &Digest,
        size_bytes: u64,
        what: &str,
    ) -> Result<Vec<u8>> {
        let object = format!("{}: {what} {digest}", self.connection.object);
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
        self.connection.cut(object, source)
    }

    pub(super) fn get(&self, url: &Url, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let mut answer = self.request(&Method::GET, url, headers, None)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.refusal(&url.path, &mut answer))
    }

    /// Sends a request, logging in where that is asked for, and returns whatever the answer is.
    pub(super) fn request(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>> {
        let authorization = self.authorization();
        let answer =
            self.connection
                .follow(method, url, headers, authorization.as_deref(), body)?;
        if answer.status() != StatusCode::UNAUTHORIZED || !self.answer_challenge(&answer)? {
            return Ok(answer);
        }
        drop(answer);
        let authorization = self.authorization();
        self.connection
            .follow(method, url, headers, authorization.as_deref(), body)
    }

    /// Sends a request whose body cannot be sent again. If that needs another login, the failure
    /// is a passing one.
    pub(super) fn stream(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        (reader, length_bytes): (&mut dyn Read, u64),
    ) -> Result<Response<Body>> {
        let authorization = self.authorization();
        let authorization = authorization
            .as_deref()
            .filter(|_| url.is_same_origin(&self.connection.base));
        let payload = Payload::Stream(reader, length_bytes);
        let answer = self
            .connection
            .send(method, url, headers, authorization, payload)?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.answer_challenge(&answer)? {
            return Err(self.connection.error(
                format!("{} asks for another login", self.connection.base.authority),
                ErrorKind::Unavailable,
                true,
            ));
        }
        Ok(answer)
    }

    fn authorization(&self) -> Option<String> {
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Logs in as the registry asks. False if it does not say how, or the credentials it asks for
    /// are not there.
    fn answer_challenge(&self, answer: &Response<Body>) -> Result<bool> {
        let header = match challenge_of(answer) {
            None => return Ok(false),
            Some(Challenge::Basic) => match &self.credentials {
                Some(known) if known.identity_token.is_none() => {
                    basic(&known.username, &known.password)
                }
                _ => return Ok(false),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let scopes = {
                    let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
                    scopes.add(scope.as_deref().unwrap_or_default());
                    scopes.texts()
                };
                let known = self.credentials.as_ref();
                let asked = token::Asked {
                    realm: &realm,
                    service: service.as_deref(),
                    scopes: &scopes,
                };
                let tokens =
                    token::fetch(&self.connection, &asked, known).map_err(|error| match error {
                        token::Failure::Refused(status, said) => {
                            self.refused(&realm, status, &said)
                        }
                        token::Failure::Failed(error) => error,
                    })?;
                format!("Bearer {}", tokens.access)
            }
        };
        *self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(true)
    }

    /// What an answer that is no success means and what to do.
    pub(super) fn refusal(&self, path: &str, answer: &mut Response<Body>) -> Error {
        let said = explained(answer);
        self.refused(path, answer.status(), &said)
    }

    fn refused(&self, path: &str, status: StatusCode, explanation: &str) -> Error {
        let host = &self.connection.base.authority;
        let verb = self.verb;
        let said = if explanation.is_empty() {
            String::new()
        } else {
            format!(": {explanation}")
        };
        let (reason, kind, transient) = match status.as_u16() {
            401 if self.credentials.is_none() => (
                format!(
                    "{verb} access denied: the repository does not exist or {host} asks for a \
                     login (try `gamut login {host}` or `docker login {host}`){said}"
                ),
                ErrorKind::Unauthorized,
                false,
            ),
            401 => (
                format!(
                    "unauthorized: {host} does not accept the user name or password; log in \
                     again{said}"
                ),
                ErrorKind::Unauthorized,
                false,
            ),
            403 => (
                format!("denied: {host} denies this user {verb} access to the repository{said}"),
                ErrorKind::Forbidden,
                false,
            ),
            404 if path.contains("/manifests/") => {
                let said = if said.is_empty() {
                    ": manifest unknown"
                } else {
                    &said
                };
                (
                    format!("not found on {host}; check name and tag{said}"),
                    ErrorKind::NotFound,
                    false,
                )
            }
            404 if path.ends_with("/tags/list") => (
                format!("not found on {host}; check the name{said}"),
                ErrorKind::NotFound,
                false,
            ),
            404 if self.verb == "pull" => (
                format!(
                    "{host} lacks a blob that the manifest names ({path}); the image there is \
                     incomplete{said}"
                ),
                ErrorKind::NotFound,
                false,
            ),
            429 => (
                format!(
                    "{host} limits the number of requests; wait, or log in for a higher limit{said}"
                ),
                ErrorKind::Unavailable,
                true,
            ),
            code => (
                format!("{host} answered {status} to {path}{said}"),
                ErrorKind::Unavailable,
                code >= 500 || code == 408,
            ),
        };
        self.connection.error(reason, kind, transient)
    }
}

/// What an answer with status 401 asks for.
pub(super) fn challenge_of(answer: &Response<Body>) -> Option<Challenge> {
    let headers: Vec<String> = answer
        .headers()
        .get_all("www-authenticate")
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    Challenge::parse(&headers)
}

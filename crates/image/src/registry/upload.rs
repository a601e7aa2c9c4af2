//! Blobs on their way to a registry, resumed where they were cut.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use gamut_spec::error::ErrorKind;
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::address::Url;
use super::client::Client;
use super::connection::header_text;
use super::download::{MAX_ATTEMPTS, REPORT_BYTES, is_transient, pause};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::{Progress, Step, report};
use crate::store::source::LayerSource;

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// A blob to be uploaded.
pub(super) struct Upload<'u> {
    pub(super) client: &'u Client,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// For progress.
    pub(super) id: &'u str,
    pub(super) progress: &'u dyn Progress,
    /// Ends the upload when it fails.
    pub(super) check_stop: &'u (dyn Fn() -> Result<()> + Sync),
}

/// What a registry did when asked to take a blob over from another repository.
pub(super) enum Mounted {
    /// It is there.
    Yes,
    /// It has to be uploaded, in this session if there is one.
    No(Option<Url>),
}

/// Where the bytes of a blob are.
#[derive(Clone, Copy)]
pub(super) enum Content<'c> {
    File(&'c Path),
    Bytes(&'c [u8]),
    /// The plain archive of a layer.
    Plain(&'c LayerSource),
}

impl Client {
    /// Whether the repository has a blob.
    pub(super) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let url = self.url(&format!("blobs/{digest}"));
        let mut answer = self.request(&Method::HEAD, &url, &[], None)?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(&url.path, &mut answer)),
        }
    }

    /// Asks for a blob of another repository of the same registry. A registry that does not do
    /// that is no failure.
    pub(super) fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted> {
        self.widen_scope(from);
        let url = self
            .url("blobs/uploads/")
            .with_query("mount", &digest.to_string())
            .with_query("from", from);
        let answer = self.request(&Method::POST, &url, &[], None)?;
        Ok(match answer.status() {
            StatusCode::CREATED => Mounted::Yes,
            StatusCode::ACCEPTED => Mounted::No(self.session(&url, &answer).ok()),
            _ => Mounted::No(None),
        })
    }

    /// Where an upload goes on. A session may be anywhere, but the login stays here.
    fn session(&self, asked: &Url, answer: &Response<Body>) -> Result<Url> {
        let location = header_text(answer, "location").ok_or_else(|| {
            let reason = "the registry names no place for the upload".to_owned();
            self.connection.error(reason, ErrorKind::Unavailable, false)
        })?;
        let url = asked.join(&location)?;
        self.connection.check(&url)?;
        Ok(url)
    }

    /// Puts a manifest; returns its digest as the registry tells it, if it does.
    pub(super) fn put_manifest(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Option<String>> {
        let url = self.url(&format!("manifests/{tag_or_digest}"));
        let headers = [("content-type", media_type)];
        let mut answer = self.request(&Method::PUT, &url, &headers, Some(bytes))?;
        if !answer.status().is_success() {
            return Err(self.refusal(&url.path, &mut answer));
        }
        Ok(header_text(&answer, "docker-content-digest"))
    }
}

impl Upload<'_> {
    /// Uploads the blob; `session` is one that has been opened for it already.
    pub(super) fn run(&self, content: Content<'_>, mut session: Option<Url>) -> Result<()> {
        let mut sent_bytes = 0u64;
        let mut failures = 0;
        loop {
            let before_bytes = sent_bytes;
            let error = match self.attempt(content, &mut session, &mut sent_bytes) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            (self.check_stop)()?;
            failures = if sent_bytes > before_bytes {
                1
            } else {
                failures + 1
            };
            if !is_transient(&error) || failures >= MAX_ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(blob = self.id, sent_bytes, %error, "upload cut, trying again");
            pause(self.progress, self.id, failures, self.check_stop)?;
        }
    }

    fn attempt(
        &self,
        content: Content<'_>,
        session: &mut Option<Url>,
        sent_bytes: &mut u64,
    ) -> Result<()> {
        let is_resumed = *sent_bytes > 0;
        let mut url = match session.take() {
            Some(open) if !is_resumed => open,
            Some(open) => match self.offset(&open)? {
                Some((url, offset_bytes)) => {
                    *sent_bytes = offset_bytes;
                    url
                }
                None => self.begin(sent_bytes)?,
            },
            None => self.begin(sent_bytes)?,
        };
        let offset_bytes = *sent_bytes;
        if offset_bytes < self.size_bytes || self.size_bytes == 0 {
            // Remembered before it is used: it is what a cut upload goes on with.
            *session = Some(url.clone());
            url = self.send(content, &url, sent_bytes)?;
        }
        *session = Some(url.clone());
        let last = url.with_query("digest", &self.digest.to_string());
        let mut answer = self.client.request(&Method::PUT, &last, &[OCTETS], None)?;
        if answer.status().is_success() {
            return Ok(());
        }
        // A registry that lost its count is given the whole once more.
        *session = None;
        *sent_bytes = 0;
        let refusal = self.client.refusal(&last.path, &mut answer);
        if is_resumed && answer.status().is_client_error() {
            return Err(self.client.connection.error(
                format!("a resumed upload was not accepted: {refusal}"),
                ErrorKind::Unavailable,
                true,
            ));
        }
        Err(refusal)
    }

    fn begin(&self, sent_bytes: &mut u64) -> Result<Url> {
        *sent_bytes = 0;
        let url = self.client.url("blobs/uploads/");
        let mut answer = self.client.request(&Method::POST, &url, &[], None)?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.client.refusal(&url.path, &mut answer));
        }
        self.client.session(&url, &answer)
    }

    /// How far a session has come; `None` if the registry has forgotten it.
    fn offset(&self, session: &Url) -> Result<Option<(Url, u64)>> {
        let answer = self.client.request(&Method::GET, session, &[], None)?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let range = header_text(&answer, "range").unwrap_or_default();
        let last: Option<u64> = range
            .trim_start_matches("bytes=")
            .strip_prefix("0-")
            .and_then(|last| last.parse().ok());
        let offset_bytes = match last {
            // `0-0` is also what is said of nothing at all.
            None | Some(0) => return Ok(None),
            Some(last) => last.saturating_add(1),
        };
        if offset_bytes > self.size_bytes {
            return Ok(None);
        }
        let url = self
            .client
            .session(session, &answer)
            .unwrap_or_else(|_| session.clone());
        Ok(Some((url, offset_bytes)))
    }

    /// Sends what is missing; returns where the session goes on.
    fn send(&self, content: Content<'_>, url: &Url, sent_bytes: &mut u64) -> Result<Url> {
        let offset_bytes = *sent_bytes;
        let mut source: Box<dyn Read> = match content {
            Content::Bytes(bytes) => {
                let offset = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
                Box::new(bytes.get(offset..).unwrap_or_default())
            }
            Content::File(path) => {
                let mut file = File::open(path).map_err(Error::io("open", path))?;
                file.seek(SeekFrom::Start(offset_bytes))
                    .map_err(Error::io("read", path))?;
                Box::new(file)
            }
            Content::Plain(layer) => {
                let mut archive = layer.open()?;
                let sent = (&mut archive).take(offset_bytes);
                io::copy(&mut { sent }, &mut io::sink()).map_err(|error| layer.failed(error))?;
                archive
            }
        };
        let range = format!("{offset_bytes}-{}", self.size_bytes.saturating_sub(1));
        let mut headers = vec![OCTETS];
        if offset_bytes > 0 {
            headers.push(("content-range", &range));
        }
        let mut watched = Watched {
            source: &mut *source,
            upload: self,
            sent_bytes: offset_bytes,
            reported_bytes: offset_bytes,
        };
        let length_bytes = self.size_bytes - offset_bytes;
        let result =
            self.client
                .stream(&Method::PATCH, url, &headers, (&mut watched, length_bytes));
        // What the registry really has is asked before it goes on.
        *sent_bytes = watched.sent_bytes;
        let mut answer = result?;
        if answer.status() != StatusCode::ACCEPTED && !answer.status().is_success() {
            return Err(self.client.refusal(&url.path, &mut answer));
        }
        self.client.session(url, &answer)
    }
}

/// Counts and reports what is read from it.
struct Watched<'w> {
    source: &'w mut dyn Read,
    upload: &'w Upload<'w>,
    sent_bytes: u64,
    reported_bytes: u64,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.upload.check_stop)().map_err(io::Error::other)?;
        let count = self.source.read(buffer)?;
        self.sent_bytes += count as u64;
        let total_bytes = self.upload.size_bytes;
        if self.sent_bytes >= self.reported_bytes + REPORT_BYTES || self.sent_bytes == total_bytes {
            self.reported_bytes = self.sent_bytes;
            let step = Step::Pushing {
                current_bytes: self.sent_bytes,
                total_bytes,
            };
            report(self.upload.progress, self.upload.id, step);
        }
        Ok(count)
    }
}

//! Where an image is fetched from: mirrors first, then the registry itself.

use std::sync::OnceLock;

use gamut_spec::reference::Reference;

use super::address::api_host;
use super::client::{Client, RawManifest};
use super::connection::{Connection, Trust};
use super::download::retrying;
use super::{Credentials, PullOptions};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The places that are asked for an image, in order. What one cannot give, or gives wrongly, is
/// asked of the next.
pub(super) struct Sources {
    mirrors: Vec<Client>,
    /// Made when it is needed: finding out how it is spoken to may take a while.
    origin: OnceLock<Client>,
    reference: Reference,
    credentials: Option<Credentials>,
    trust: Trust,
}

impl Sources {
    /// The mirrors of a reference's registry and the registry itself. Credentials are the
    /// registry's: mirrors never see them.
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Result<Self> {
        let trust = Trust {
            settings: options.settings.clone(),
            insecure_loopback: options.insecure_loopback,
        };
        let registry = reference.registry();
        let object = reference.familiar();
        let mut mirrors = Vec::new();
        for mirror in trust.settings.mirrors(registry) {
            if mirror.url.authority == api_host(registry) && mirror.prefix.is_empty() {
                continue; // the registry itself
            }
            let connection = Connection::to_url(&mirror.url, &object, &trust)?;
            let repository = format!("{}{}", mirror.prefix, reference.repository());
            mirrors.push(Client::new(connection, repository, None, false).mirroring(registry));
        }
        Ok(Self {
            mirrors,
            origin: OnceLock::new(),
            reference: reference.clone(),
            credentials: options.credentials.clone(),
            trust,
        })
    }

    /// The registry itself.
    fn origin(&self) -> Result<&Client> {
        if let Some(origin) = self.origin.get() {
            return Ok(origin);
        }
        let host = api_host(self.reference.registry());
        let connection = Connection::to_host(host, &self.reference.familiar(), &self.trust)?;
        let repository = self.reference.repository().to_owned();
        let made = Client::new(connection, repository, self.credentials.clone(), false);
        Ok(self.origin.get_or_init(|| made))
    }

    /// Asks one after the other; the failure told is the registry's own. A full disk or a caller
    /// who has given up are nobody's fault.
    pub(super) fn first<T>(&self, mut ask: impl FnMut(&Client) -> Result<T>) -> Result<T> {
        for client in &self.mirrors {
            match ask(client) {
                Err(error) if !matches!(error, Error::Cancelled(_) | Error::Io { .. }) => {
                    tracing::warn!(
                        mirror = %client.connection.base, error = %gamut_spec::error::chain(&error),
                        "a mirror did not answer as it should; going on without it"
                    );
                }
                result => return result,
            }
        }
        ask(self.origin()?)
    }

    /// A manifest or index by tag or digest, verified.
    pub(super) fn manifest(
        &self,
        tag_or_digest: &str,
        progress: &dyn Progress,
    ) -> Result<RawManifest> {
        self.first(|client| {
            // A mirror that is down must not hold up what the registry can give at once.
            if client.is_mirror() {
                client.manifest(tag_or_digest)
            } else {
                retrying(progress, || client.manifest(tag_or_digest))
            }
        })
    }

    /// A small blob, verified.
    pub(super) fn small_blob(
        &self,
        digest: &Digest,
        size_bytes: u64,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>> {
        self.first(|client| retrying(progress, || client.small_blob(digest, size_bytes, what)))
    }
}

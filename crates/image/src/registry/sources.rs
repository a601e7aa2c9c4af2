//! Where an image is fetched from: mirrors first, then the registry itself.

use gamut_spec::reference::Reference;

use super::PullOptions;
use super::address::api_host;
use super::client::{Client, RawManifest};
use super::connection::{Connection, Trust};
use super::download::retrying;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The places that are asked for an image, in order. What one cannot give, or gives wrongly, is
/// asked of the next.
pub(super) struct Sources {
    clients: Vec<Client>,
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
        let mut clients = Vec::new();
        for mirror in trust.settings.mirrors(registry) {
            if mirror.url.authority == api_host(registry) && mirror.prefix.is_empty() {
                continue; // the registry itself
            }
            let connection = Connection::to_url(&mirror.url, &object, &trust)?;
            let repository = format!("{}{}", mirror.prefix, reference.repository());
            clients.push(Client::new(connection, repository, None, false).mirroring(registry));
        }
        // Opened even if a mirror will do: that costs a question only on this machine.
        let connection = Connection::to_host(api_host(registry), &object, &trust)?;
        clients.push(Client::new(
            connection,
            reference.repository().to_owned(),
            options.credentials.clone(),
            false,
        ));
        Ok(Self { clients })
    }

    /// All of them, in order.
    pub(super) fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Asks one after the other; the failure told is the last one's, the registry's own.
    fn first<T>(&self, mut ask: impl FnMut(&Client) -> Result<T>) -> Result<T> {
        let mut last = None;
        for client in &self.clients {
            match ask(client) {
                Err(error) if client.is_mirror() && !matches!(error, Error::Cancelled(_)) => {
                    tracing::warn!(
                        mirror = %client.connection.base, error = %gamut_spec::error::chain(&error),
                        "a mirror did not answer as it should; going on without it"
                    );
                    last = Some(error);
                }
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| Error::Worker("asking a registry".to_owned())))
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

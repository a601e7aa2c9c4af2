//! Whom a registry's TLS is trusted by: the system's authorities, and a directory per registry as
//! docker has it (`certs.d/<host[:port]>/{*.crt, *.cert, *.key}`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::settings::RegistrySettings;
use crate::error::{Error, Result};
use crate::store::entries;

/// What was found for a host.
#[derive(Default)]
pub(super) struct Found {
    authorities: Vec<Certificate<'static>>,
    client: Option<ClientCert>,
}

impl Found {
    /// Looks through the directories of the settings; the first that has the host counts.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Malformed`] for a file that holds something else or a
    /// certificate without its key.
    pub(super) fn look(settings: &RegistrySettings, authority: &str) -> Result<Self> {
        // An authority comes from a reference or a URL: it has no slash, but may be dots.
        if authority.is_empty() || authority.starts_with('.') || authority.contains('/') {
            return Ok(Self::default());
        }
        for directory in &settings.certificates {
            let directory = directory.join(authority);
            if directory.is_dir() {
                return Self::read(&directory);
            }
        }
        Ok(Self::default())
    }

    fn read(directory: &Path) -> Result<Self> {
        let mut found = Self::default();
        for path in entries(directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.extend(certificates(&path)?),
                Some("cert") => {
                    let chain = certificates(&path)?;
                    let key = private_key(&path.with_extension("key"))?;
                    found.client = Some(ClientCert::new_with_certs(&chain, key));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether the administrator gave authorities for the host.
    pub(super) fn has_authorities(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// The configuration of TLS; `is_verified` false takes any certificate.
    pub(super) fn tls(self, is_verified: bool) -> TlsConfig {
        let roots = if self.authorities.is_empty() {
            RootCerts::PlatformVerifier
        } else {
            // Beside the system's, as docker has it.
            let mut all = self.authorities;
            let system = rustls_native_certs::load_native_certs().certs;
            all.extend(
                system
                    .iter()
                    .map(|one| Certificate::from_der(one).to_owned()),
            );
            RootCerts::Specific(Arc::new(all))
        };
        TlsConfig::builder()
            .root_certs(roots)
            .client_cert(self.client)
            .disable_verification(!is_verified)
            .build()
    }
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(path),
        _ => Error::io("read", path)(error),
    })?;
    parse_pem(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::malformed(path.display().to_string(), error.to_string()))
}

fn missing(path: &Path) -> Error {
    let beside = PathBuf::from(path).with_extension("cert");
    Error::malformed(
        path.display().to_string(),
        format!("missing; {} needs its key beside it", beside.display()),
    )
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let found: Vec<_> = items(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::malformed(
            path.display().to_string(),
            "it has no certificate in PEM format",
        ));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>> {
    items(path)?
        .into_iter()
        .find_map(|item| match item {
            PemItem::PrivateKey(key) => Some(key),
            _ => None,
        })
        .ok_or_else(|| {
            Error::malformed(
                path.display().to_string(),
                "it has no private key in PEM format",
            )
        })
}

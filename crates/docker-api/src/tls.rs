//! Mutual TLS: both sides show a certificate that one authority has signed.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Files in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities whose word counts.
    pub authority: PathBuf,
    /// The own certificate, with those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    path: String,
    reason: String,
}

impl TlsError {
    fn new(path: &Path, reason: impl Display) -> Self {
        Self {
            path: path.display().to_string(),
            reason: reason.to_string(),
        }
    }
}

impl TlsFiles {
    /// For a server that asks each client for a certificate.
    ///
    /// # Errors
    /// Naming the file that cannot be read or does not fit.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(self.authorities()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| TlsError::new(&self.authority, error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(&self.certificate, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.certificates()?, self.key()?)
            .map_err(|error| TlsError::new(&self.certificate, error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// For a client that shows a certificate and checks the server's.
    ///
    /// # Errors
    /// Naming the file that cannot be read or does not fit.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(&self.certificate, error))?
            .with_root_certificates(self.authorities()?);
        let mut config = config
            .with_client_auth_cert(self.certificates()?, self.key()?)
            .map_err(|error| TlsError::new(&self.certificate, error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&self.authority)? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::new(&self.authority, error))?;
        }
        Ok(roots)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        read_certificates(&self.certificate)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::new(&self.key, error))
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| TlsError::new(path, error))?
        .collect();
    let all = all.map_err(|error| TlsError::new(path, error))?;
    if all.is_empty() {
        return Err(TlsError::new(path, "there is no certificate in it"));
    }
    Ok(all)
}

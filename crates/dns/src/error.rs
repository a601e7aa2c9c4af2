//! What can go wrong.

use gamut_spec::error::ErrorKind;
use std::io;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why names cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation}: {source}")]
    System {
        /// The operation and its object.
        operation: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something about a network namespace failed.
    #[error("the resolver's place in the network namespace: {0}")]
    Network(#[from] gamut_network::Error),
    /// The helper says no.
    #[error("the resolver's helper: {0}")]
    Helper(String),
}

impl Error {
    /// Wraps an I/O error.
    pub(crate) fn system(operation: impl Into<String>, source: io::Error) -> Self {
        Self::System {
            operation: operation.into(),
            source,
        }
    }

    /// What sort of failure this is, for front doors to translate.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Network(error) => error.kind(),
            Self::System { .. } | Self::Helper(_) => ErrorKind::Internal,
        }
    }
}

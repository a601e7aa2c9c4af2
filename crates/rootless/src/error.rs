//! What can go wrong.

use std::io;

use gamut_spec::error::ErrorKind;

/// A failure, with the operation, its cause and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or another program said no.
    #[error("cannot {operation}")]
    System {
        /// What was tried, with its object.
        operation: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something is missing or not as it has to be; the text says what to do.
    #[error("{0}")]
    Setup(String),
    /// A port of the host cannot be had.
    #[error("{message}")]
    Port {
        /// Docker's words where there are any.
        message: String,
        /// `Conflict` if it is taken, `Forbidden` if the user may not have it.
        kind: ErrorKind,
    },
}

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn system(operation: impl Into<String>, source: io::Error) -> Self {
        Self::System {
            operation: operation.into(),
            source,
        }
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Port { kind, .. } => *kind,
            Self::Setup(_) => ErrorKind::Unavailable,
            Self::System { .. } => ErrorKind::Internal,
        }
    }
}

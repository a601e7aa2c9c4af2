//! What can go wrong between a daemon and a supervisor.

use gamut_abi::control::Failure;
use gamut_abi::wire::WireError;
use std::fmt;
use std::io;

/// Why a request was not carried out.
#[derive(Debug)]
pub enum ClientError {
    /// The supervisor refused, or could not.
    Refused(Failure),
    /// The supervisor cannot be reached, or is gone.
    Io {
        /// Operation and object.
        operation: String,
        /// The system's reason.
        source: io::Error,
    },
    /// There was no answer in time. What was asked for may still happen; this connection is of
    /// no use any more.
    Deadline,
    /// An answer came that cannot be read; this connection is of no use any more.
    Wire(WireError),
    /// An answer came that does not fit the request.
    Unexpected,
}

impl ClientError {
    pub(super) fn io(operation: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            operation: operation.into(),
            source,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(failure) => f.write_str(&failure.message),
            Self::Io { operation, source } => write!(f, "{operation}: {source}"),
            Self::Deadline => f.write_str("the supervisor did not answer in time"),
            Self::Wire(error) => write!(f, "read the supervisor's answer: {error}"),
            Self::Unexpected => f.write_str("the supervisor's answer does not fit the request"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Wire(error) => Some(error),
            Self::Refused(_) | Self::Deadline | Self::Unexpected => None,
        }
    }
}

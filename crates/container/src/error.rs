//! What can go wrong, in the vocabulary of the supervisor's protocol.

use crate::sys::Errno;
use gamut_abi::control::{Failure, FailureKind};

/// Why a container or a process in it could not be set up or started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What sort of failure.
    pub kind: FailureKind,
    /// Operation, object, cause and way out, in one sentence.
    pub message: String,
    /// The kernel's error number behind it, 0 if none.
    pub errno: i32,
}

impl Error {
    /// The plan asks for something that cannot be.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Invalid,
            message: message.into(),
            errno: 0,
        }
    }

    /// The kernel refused `operation` (with its object).
    pub(crate) fn system(operation: &str, errno: Errno) -> Self {
        Self::with_detail(operation, errno, "")
    }

    /// The kernel refused `operation`; `detail` says what was asked for, or what to do about it.
    pub(crate) fn with_detail(operation: &str, errno: Errno, detail: &str) -> Self {
        let mut message = String::with_capacity(96);
        message.push_str(operation);
        message.push_str(": ");
        message.push_str(&errno.text());
        if !detail.is_empty() {
            message.push_str(" (");
            message.push_str(detail);
            message.push(')');
        }
        Self {
            kind: FailureKind::System,
            message,
            errno: errno.0,
        }
    }

    /// The same failure, as one of another sort.
    pub(crate) fn of_kind(mut self, kind: FailureKind) -> Self {
        self.kind = kind;
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
            errno: error.errno,
        }
    }
}

/// Names the operation that the kernel refused.
pub(crate) trait Context<T> {
    /// Turns an [`Errno`] into an [`Error`] that names `operation` and `object`.
    fn doing(self, operation: &str, object: &str) -> Result<T, Error>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn doing(self, operation: &str, object: &str) -> Result<T, Error> {
        self.map_err(|errno| {
            if object.is_empty() {
                Error::system(operation, errno)
            } else {
                Error::system(&[operation, " ", object].concat(), errno)
            }
        })
    }
}

//! Why the engine did not do something.

use gamut_spec::error::ErrorKind;

/// Why the engine did not do something. The message is for people; [`Error::kind`] for programs.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of an engine call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind with its whole message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// No such object, in Docker's words: `No such container: web`.
    #[must_use]
    pub fn not_found(object: &str, name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("No such {object}: {name}"))
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// The state of an object stands in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// The system said no while doing `operation`.
    pub fn system(
        operation: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind: ErrorKind::Internal,
            message: operation.into(),
            source: Some(Box::new(source)),
        }
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message with all its causes, as one line.
    #[must_use]
    pub fn full_message(&self) -> String {
        gamut_spec::error::chain(self)
    }
}

impl From<gamut_isolation::Error> for Error {
    fn from(error: gamut_isolation::Error) -> Self {
        let message = gamut_spec::error::chain(&error);
        Self {
            kind: error.kind(),
            message,
            source: None,
        }
    }
}

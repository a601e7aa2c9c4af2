//! Why a machine could not be made, or could not go on.

use std::fmt;
use std::io;

pub use gamut_abi::guest::elf::ImageError;

/// A failure of the monitor or of what it was given. Of the guest's own failures tells
/// [`crate::ending::Ending`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The monitor's configuration cannot be used.
    #[error("monitor configuration {path}: {problem}")]
    Config {
        /// File it was read from.
        path: String,
        /// Field and cause.
        problem: String,
    },
    /// The image cannot be run.
    #[error("unikernel image {path}: {problem}")]
    Image {
        /// Its ELF file.
        path: String,
        /// What is wrong with it.
        problem: ImageError,
    },
    /// The system refused something.
    #[error("{operation}: {source}{advice}")]
    System {
        /// What was to be done, with its object.
        operation: String,
        /// The system's answer.
        source: io::Error,
        /// The way out, after a separator; may be empty.
        advice: Advice,
    },
    /// A network interface cannot be handed to the guest.
    #[error("network interface {interface}: {problem}")]
    Network {
        /// Its name.
        interface: String,
        /// Cause and way out.
        problem: String,
    },
    /// A block device cannot be handed to the guest.
    #[error("block device {name} ({path}): {problem}")]
    Block {
        /// Name for the guest.
        name: String,
        /// The file behind it.
        path: String,
        /// Cause and way out.
        problem: String,
    },
    /// A saved machine cannot be gone on with.
    #[error("saved machine: {0}")]
    Snapshot(String),
}

/// Result of the monitor's parts.
pub type Result<T> = std::result::Result<T, Error>;

/// The way out of a failure. Written after the cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Advice(pub &'static str);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", self.0)
    }
}

impl Error {
    /// The answer of the system to an operation.
    pub fn system(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System {
            operation: operation.into(),
            source: source.into(),
            advice: Advice::default(),
        }
    }

    /// The same, with a way out.
    #[must_use]
    pub fn with_advice(self, text: &'static str) -> Self {
        match self {
            Self::System {
                operation, source, ..
            } => Self::System {
                operation,
                source,
                advice: Advice(text),
            },
            other => other,
        }
    }

    /// The last error of the system.
    pub fn last(operation: impl Into<String>) -> Self {
        Self::system(operation, io::Error::last_os_error())
    }
}

//! Why a verb of the contract did not work.

use gamut_spec::error::ErrorKind;
use gamut_spec::isolation::IsolationLevel;

/// A capability that a level cannot have, shown to users word for word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The level that refuses.
    pub level: IsolationLevel,
    /// The capability, in the words of the command line (`checkpoint`, `exec`).
    pub capability: &'static str,
    /// Why it cannot be.
    pub reason: &'static str,
    /// What to do instead.
    pub alternative: &'static str,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            level,
            capability,
            reason,
            alternative,
        } = self;
        write!(
            f,
            "{capability} is not supported at isolation level {level}: {reason}; {alternative}"
        )
    }
}

/// Why a verb of the contract did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level cannot do it.
    #[error("{0}")]
    Refused(Refusal),
    /// This build has no such level.
    #[error("isolation level {level} is not supported yet: this engine offers {known}")]
    NoSuchLevel {
        /// The level asked for.
        level: IsolationLevel,
        /// Those that there are.
        known: String,
    },
    /// There is no such sandbox, workload or exec session.
    #[error("no such {object}: {id}")]
    NotFound {
        /// What was looked for.
        object: &'static str,
        /// Its id.
        id: String,
    },
    /// Its state stands in the way.
    #[error("cannot {operation} {id}: {reason}")]
    State {
        /// The verb.
        operation: &'static str,
        /// The workload.
        id: String,
        /// What stands in the way.
        reason: String,
    },
    /// The configuration asks for something that makes no sense or that this machine lacks.
    #[error("{field}: {problem}")]
    Invalid {
        /// Field of the OCI runtime configuration, as `process.user.uid`.
        field: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The program to run does not exist (exit code 127 by convention).
    #[error("{0}")]
    ExecutableNotFound(String),
    /// The program to run cannot be executed (exit code 126 by convention).
    #[error("{0}")]
    ExecutableDenied(String),
    /// The time allowed has run out.
    #[error("{operation} {id}: no answer within {allowed_ms} ms")]
    Timeout {
        /// The verb.
        operation: &'static str,
        /// The workload.
        id: String,
        /// Milliseconds allowed.
        allowed_ms: u64,
    },
    /// The caller has given up.
    #[error("{operation} {id}: cancelled by the caller")]
    Cancelled {
        /// The verb.
        operation: &'static str,
        /// The workload.
        id: String,
    },
    /// The system said no.
    #[error("{operation} {id}")]
    System {
        /// The verb.
        operation: &'static str,
        /// The workload.
        id: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) | Self::NoSuchLevel { .. } => ErrorKind::Unsupported,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::State { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } | Self::ExecutableNotFound(_) | Self::ExecutableDenied(_) => {
                ErrorKind::InvalidArgument
            }
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::System { .. } => ErrorKind::Internal,
        }
    }
}

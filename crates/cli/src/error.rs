//! What can go wrong on the command line, in one line each.

use std::io;

/// Exit code of a command that failed: 1, as docker's.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of `run` when the engine, not the workload, failed; also of bad flags.
pub const EXIT_ENGINE: u8 = 125;
/// Exit code when the command exists in the container but cannot be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Exit code when the command does not exist in the container.
pub const EXIT_NOT_FOUND: u8 = 127;

/// A failed command. `Display` is one line (or one per object that failed).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine answered with an error status.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// Nothing listens where the engine should.
    #[error(
        "cannot connect to the Gamut daemon at {address}: {source}. Is it running? Start it with 'gamut daemon'"
    )]
    Connect {
        /// Where it was looked for.
        address: String,
        /// Why it cannot be reached.
        source: io::Error,
    },
    /// The daemon was started on demand, but did not come up.
    #[error("the Gamut daemon did not start: {reason}. Its log is {log}")]
    Daemon {
        /// What was seen.
        reason: String,
        /// Path of its log.
        log: String,
    },
    /// The HTTP exchange broke.
    #[error(
        "{operation}: the connection to the Gamut daemon broke: {}",
        innermost(source)
    )]
    Http {
        /// Request line.
        operation: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The engine answered something that is not understood.
    #[error("{operation}: unexpected answer of the Gamut daemon: {reason}")]
    Answer {
        /// Request line.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A local file, terminal or process operation failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried, with the object's name.
        operation: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Flags or arguments are wrong; nothing was sent.
    #[error("{0}")]
    Usage(String),
    /// A `--format` template is wrong or does not fit its data.
    #[error("template parsing error: {0}")]
    Template(String),
    /// Something else that one line explains.
    #[error("{0}")]
    Message(String),
    /// Standard output is closed: nobody reads the rest.
    #[error("standard output was closed")]
    OutputClosed,
    /// Several objects, each with its own failure; the rest was done.
    #[error("{}", lines(.0))]
    Several(Vec<Error>),
    /// A failure with a certain exit code.
    #[error("{source}")]
    Coded {
        /// Exit code of the process.
        code: u8,
        /// What went wrong.
        source: Box<Error>,
    },
}

impl Error {
    /// Wraps a failed system operation on a named object.
    pub fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }

    /// HTTP status of the engine's answer, if it is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            Self::Coded { source, .. } => source.status(),
            _ => None,
        }
    }

    /// The process's exit code for this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Coded { code, .. } => *code,
            // What a shell shows for a process that SIGPIPE ended.
            Self::OutputClosed => 141,
            _ => EXIT_FAILURE,
        }
    }

    /// Gives the error an exit code of its own.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Self::Coded {
            code,
            source: Box::new(self),
        }
    }
}

/// `Ok` if no object failed.
///
/// # Errors
/// The failure, or all of them.
pub fn all(mut failures: Vec<Error>) -> Result<u8, Error> {
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.remove(0)),
        _ => Err(Error::Several(failures)),
    }
}

fn lines(errors: &[Error]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The last error of a chain: the others of hyper only repeat that something failed.
fn innermost(error: &hyper::Error) -> String {
    let mut current: &dyn std::error::Error = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_and_lines() {
        let missing = || Error::Api {
            status: 404,
            message: "No such container: a".into(),
        };
        assert_eq!(missing().exit_code(), 1);
        assert_eq!(missing().with_code(125).exit_code(), 125);
        assert_eq!(missing().with_code(125).status(), Some(404));
        assert_eq!(Error::Usage("x".into()).exit_code(), 1);
        let several = Error::Several(vec![missing(), missing()]).to_string();
        assert_eq!(several.lines().count(), 2);
    }
}

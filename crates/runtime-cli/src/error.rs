//! Why a command did not work.

use std::io;
use std::path::{Path, PathBuf};

/// See the module's text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}; see gamut-runtime --help")]
    Usage(String),
    /// A verb or option of other runtimes.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// Something about a file.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("read {}: {problem}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no such container.
    #[error("container {id} does not exist in {}", root.display())]
    NotFound {
        /// Its id.
        id: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// Its state stands in the way.
    #[error("cannot {verb} container {id}: {reason}")]
    State {
        /// The verb.
        verb: &'static str,
        /// The container.
        id: String,
        /// What stands in the way, and the way out.
        reason: String,
    },
    /// The bundle asks for something impossible.
    #[error("{0}")]
    Bundle(#[from] gamut_isolation::Error),
    /// The mechanism refused.
    #[error("{0}")]
    Container(#[from] gamut_container::Error),
    /// A control group could not be worked with.
    #[error("{0}")]
    Cgroup(#[from] gamut_cgroup::Error),
    /// Standard output is gone.
    #[error("write the output: {0}")]
    Output(io::Error),
}

impl Error {
    /// For `map_err` of operations on a file.
    pub fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

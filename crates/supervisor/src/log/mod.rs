//! The log of a workload's output: lines in the format of Kubernetes' CRI, rotated by size.

mod file;
mod lines;
mod message;
mod sink;
mod time;
mod writer;

pub(crate) use lines::LineSplitter;
pub use lines::fuzz_line_splitter;
pub(crate) use time::rfc3339;
pub use writer::LogWriter;

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// 0 or 1.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }

    /// 1 or 2, as in Docker's multiplexed stream.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

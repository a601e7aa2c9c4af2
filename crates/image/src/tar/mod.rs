//! Reading and writing tar archives.
//!
//! The parser ([`Parser`]) does no I/O: it is pushed slices of bytes of any length and answers with
//! events. It reads what layers and image archives are made of: v7, ustar, GNU (long names,
//! base-256 numbers, sparse files) and pax (local and global headers, fractional times, extended
//! attributes, sparse files 0.0, 0.1 and 1.0).
//!
//! Where readers disagree about an archive, a scanner and an engine can be shown different files
//! in one and the same layer (RUSTSEC-2026-0145, CVE-2025-62518). Two rules keep that out: the
//! choices follow Go's `archive/tar`, which the field's scanners and engines are built on, and
//! what is ambiguous there is refused (two extended headers for one entry; names and sizes in a
//! global header). The size in a pax header, where there is one, is the size that is skipped; it
//! applies to the file it describes and never to an extension header before it.
//!
//! [`Reader`] drives the parser over a [`std::io::Read`], [`Writer`] makes deterministic archives.
//!
//! Source: POSIX.1-2017 `pax`, GNU tar manual ("Basic Tar Format", "Storing Sparse Files").

mod entry;
mod fuzz;
mod header;
mod join;
mod parser;
mod pax;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod writer;

pub use entry::{Entry, Kind, Timestamp, Xattrs};
pub use fuzz::fuzz_tar;
pub use parser::{Event, Parser, Step};
pub(crate) use reader::BUFFER_BYTES;
pub use reader::{ReadError, Reader};
pub use sparse::Extent;
pub use writer::Writer;

/// Bytes of a block; headers and contents are padded to multiples of it.
pub const BLOCK_BYTES: usize = 512;

/// What an archive may ask of its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most headers in the archive, extension headers that stand for no entry included.
    pub max_entries: u64,
    /// Longest name and longest link target, in bytes.
    pub max_path_bytes: usize,
    /// Longest pax header, in bytes.
    pub max_pax_bytes: usize,
    /// Most extents of one sparse file.
    pub max_sparse_extents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_entries: 8 << 20,
            max_path_bytes: 16 << 10,
            max_pax_bytes: 1 << 20,
            max_sparse_extents: 1 << 18,
        }
    }
}

/// Why an archive cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A header or a record breaks its format.
    #[error("tar archive is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the damaged header begins, in bytes from the start of the archive.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The input ended inside an entry.
    #[error("tar archive is cut short: it ends at byte {offset}, inside {inside}")]
    Truncated {
        /// Length of the input in bytes.
        offset: u64,
        /// What was being read.
        inside: &'static str,
    },
    /// The archive asks for more than its reader allows.
    #[error("tar archive exceeds a limit at byte {offset}: {limit} is {allowed}")]
    Limit {
        /// Where, in bytes from the start of the archive.
        offset: u64,
        /// Field of [`Limits`].
        limit: &'static str,
        /// Its value.
        allowed: u64,
    },
}

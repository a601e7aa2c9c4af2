//! Hardened extraction of one image layer into a directory of its own, in overlayfs' format.
//!
//! A layer is hostile input that root unpacks. [`extract`] keeps it beneath the target: every
//! directory is opened by openat2(2) `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV`
//! relative to the target's descriptor, and every file is made by a call that takes such a
//! descriptor and one name.
//!
//! What the archive's names mean:
//! - leading `/` and `.` components are dropped; `..` is refused;
//! - a parent that is a symbolic link *in this layer* is followed inside the layer as a chroot
//!   would (`lib -> usr/lib`, then `lib/x` is `usr/lib/x`), never out of it; the last component
//!   is never followed;
//! - missing parents are made and reported as implied, see [`adopt_implied_directories`];
//! - a later entry replaces an earlier one of the same name; a directory over a directory only
//!   changes its metadata;
//! - `.wh.NAME` hides NAME of the layers below (character device 0:0, or an attribute where
//!   mknod(2) is forbidden), `.wh..wh..opq` makes its directory opaque. Both act on lower layers
//!   only, wherever in the archive they stand. Other names with `.wh..wh.` are aufs' own and are
//!   skipped;
//! - `trusted.overlay.*` and `user.overlay.*` attributes are skipped, so that an image cannot
//!   forge overlayfs metadata. `user.*` and `security.capability` are kept, others skipped.
//!
//! The writing of large files to disk is begun early, but not waited for: call syncfs(2) once
//! after all layers.
//!
//! Sources: OCI image specification "Image Layer Filesystem Changeset", kernel documentation
//! "Overlay Filesystem", openat2(2).

mod adopt;
mod apply;
mod metadata;
mod remove;
pub mod sys;
#[cfg(test)]
mod tests;
mod tree;
mod whiteout;

use crate::tar;
use gamut_spec::id_map::IdMap;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

pub use adopt::adopt_implied_directories;
pub use remove::{remove_tree, remove_tree_at};

/// What a layer may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of content written.
    pub max_bytes: u64,
    /// Largest file, holes included, in bytes.
    pub max_file_bytes: u64,
    /// Longest archive, padding and trailing bytes included.
    pub max_archive_bytes: u64,
    /// Limits of the archive's format; among them that of the entries.
    pub archive: tar::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 30,
            max_file_bytes: 8 << 40,
            max_archive_bytes: 264 << 30,
            archive: tar::Limits::default(),
        }
    }
}

/// Namespace of overlayfs' attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.`: the usual; needs CAP_SYS_ADMIN in the first user namespace.
    #[default]
    Trusted,
    /// `user.overlay.`: for mounts with `userxattr`, as in a user namespace.
    User,
}

/// How a whiteout is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// As a character device 0:0; where that is forbidden, as [`Self::Xattr`].
    #[default]
    Device,
    /// As an empty file with overlayfs' `whiteout` attribute: Linux 6.8 and later.
    Xattr,
}

/// How to extract.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// What the layer may take.
    pub limits: Limits,
    /// Namespace of overlayfs' attributes.
    pub overlay_xattrs: OverlayXattrs,
    /// How a whiteout is stored.
    pub whiteouts: Whiteouts,
    /// What becomes of files whose owner does not exist in this user namespace.
    pub missing_owners: MissingOwners,
}

/// What becomes of files whose owner does not exist in this user namespace (user_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MissingOwners {
    /// The layer is refused.
    #[default]
    Refuse,
    /// They become this process's own: all that is possible where only one id exists.
    Own,
}

impl ExtractOptions {
    /// What fits the user namespace of this process.
    #[must_use]
    pub fn here() -> Self {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let map = IdMap::parse(&map);
        if map.is_initial() || map.extents().is_empty() {
            return Self::default();
        }
        Self {
            overlay_xattrs: OverlayXattrs::User,
            missing_owners: if map.count() == 1 {
                MissingOwners::Own
            } else {
                MissingOwners::Refuse
            },
            ..Self::default()
        }
    }
}

/// What was extracted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Content written, in bytes, without holes.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Directories that had to be made (mode 0755, root) because the archive has no entry for
    /// them, parents first, relative to the target; the empty path is the target itself.
    pub implied_directories: Vec<PathBuf>,
    /// What could not be stored here and was left out (attributes, devices in a user namespace),
    /// for a warning; at most [`MAX_SKIPPED`].
    pub skipped: Vec<String>,
}

/// Most entries of [`Extracted::skipped`].
pub const MAX_SKIPPED: usize = 64;

/// Why a layer could not be extracted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is damaged, cut short or exceeds one of its format's limits.
    #[error("layer cannot be read")]
    Archive(#[from] tar::Error),
    /// The source of the bytes failed: decompression, network, disk.
    #[error("reading the layer failed")]
    Read(#[source] io::Error),
    /// The layer exceeds one of [`Limits`].
    #[error("layer exceeds a limit at {path}: {limit} is {allowed}")]
    Limit {
        /// The entry that did.
        path: String,
        /// Field of [`Limits`].
        limit: &'static str,
        /// Its value.
        allowed: u64,
    },
    /// A file belongs to somebody who does not exist here.
    #[error(
        "layer has a file of {owner}, who does not exist in this user namespace: {path}; \
         more ids are given by /etc/subuid and /etc/subgid (see docs/rootless.md)"
    )]
    MissingOwner {
        /// The entry's name.
        path: String,
        /// `user:group` in numbers.
        owner: String,
    },
    /// An entry asks for something that no layer may have.
    #[error("layer has an entry that is refused: {path}: {reason}")]
    Refused {
        /// The entry's name.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {operation} {path} of the layer")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The entry's name, or the path on disk.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The target is not a new directory.
    #[error("cannot extract a layer into {path}: it is not an empty directory")]
    TargetNotEmpty {
        /// The target.
        path: PathBuf,
    },
}

impl Error {
    fn io(operation: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: shown(path),
            source,
        }
    }

    fn refused(path: &[u8], reason: impl Into<String>) -> Self {
        Self::Refused {
            path: shown(path),
            reason: reason.into(),
        }
    }
}

/// A name for a message: control and foreign bytes escaped, the middle of long ones left out.
fn shown(path: &[u8]) -> String {
    match path {
        [] => "/".to_owned(),
        [head @ .., _] if head.len() < 300 => path.escape_ascii().to_string(),
        _ => format!(
            "{}[...]{}",
            path[..150].escape_ascii(),
            path[path.len() - 100..].escape_ascii()
        ),
    }
}

/// Is told where every byte of an archive went while it is extracted: `literal` and `content` come in
/// the archive's order.
pub(crate) trait Recorder {
    /// Bytes of the archive that are no file's content.
    fn literal(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Bytes of the archive that are in the file `path` (relative to the target, through no link)
    /// from `offset` on.
    fn content(&mut self, path: &[u8], offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Something is about to be removed because the archive has another entry of its name: what
    /// was told of until now is all still there, below `root`, but will not be.
    fn replacing(&mut self, root: BorrowedFd<'_>) -> io::Result<()>;
}

/// Records nothing.
pub(crate) struct Unrecorded;

impl Recorder for Unrecorded {
    fn literal(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, _path: &[u8], _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn replacing(&mut self, _root: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Extracts the layer that `reader` gives, a plain tar, into `target`: a directory that is empty,
/// or that does not exist and is made in an existing parent. The reader is read to its end.
///
/// # Errors
/// [`Error`]; then nothing is left of `target`, which a warning in the log says if it failed.
/// Only a target that was not empty is left as it was.
pub fn extract(
    reader: impl Read,
    target: &Path,
    options: &ExtractOptions,
) -> Result<Extracted, Error> {
    let mut reader = BufReader::with_capacity(tar::BUFFER_BYTES, reader);
    extract_recorded(&mut reader, target, options, &mut Unrecorded)
}

/// [`extract`], with a recorder that is told where the bytes went.
pub(crate) fn extract_recorded(
    reader: &mut impl BufRead,
    target: &Path,
    options: &ExtractOptions,
    recorder: &mut dyn Recorder,
) -> Result<Extracted, Error> {
    let root = prepare(target)?;
    let result = tree::Tree::new(root, options)
        .and_then(|tree| apply::Extraction::new(tree, options, recorder).run(reader));
    if result.is_err()
        && let Err(error) = remove_tree(target)
    {
        tracing::warn!(
            path = %target.display(), %error,
            "a layer that was refused could not be removed; fsck will"
        );
    }
    result
}

/// Makes or opens the target.
fn prepare(target: &Path) -> Result<std::os::fd::OwnedFd, Error> {
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;
    let failed = |operation| Error::io(operation, target.as_os_str().as_bytes());
    match std::fs::create_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make directory")(error));
        }
        _ => {}
    }
    let directory =
        std::os::fd::OwnedFd::from(std::fs::File::open(target).map_err(failed("open directory"))?);
    match sys::list(directory.as_fd()) {
        Ok(found) if found.is_empty() => Ok(directory),
        Ok(_) => Err(Error::TargetNotEmpty {
            path: target.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::TargetNotEmpty {
            path: target.to_owned(),
        }),
        Err(error) => Err(failed("list directory")(error)),
    }
}

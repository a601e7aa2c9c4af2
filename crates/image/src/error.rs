//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use gamut_spec::error::ErrorKind;
use gamut_spec::form::ImageForm;
use gamut_spec::reference::ReferenceError;

/// The result of an operation on images.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file of the store failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as an infinitive.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The stream given by the caller failed or ended early.
    #[error("cannot read {what}")]
    Read {
        /// What was being read.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Another process uses the store.
    #[error(
        "the image store {} is in use by another process; stop that daemon or choose another root",
        root.display()
    )]
    Locked {
        /// The root of the store.
        root: PathBuf,
    },
    /// No image of that name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The prefix of an id fits several images.
    #[error("ambiguous image id prefix {prefix}: it fits {}; give more digits", candidates.join(", "))]
    AmbiguousId {
        /// What was given.
        prefix: String,
        /// The ids which it fits.
        candidates: Vec<String>,
    },
    /// The image there is of another platform.
    #[error(
        "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    OtherPlatform {
        /// What was asked for.
        name: String,
        /// The platform wanted.
        wanted: String,
        /// The platform of the image.
        actual: String,
    },
    /// The image has no such form.
    #[error(
        "image {name} has no {wanted} form, only a {actual} one: {}",
        match wanted {
            ImageForm::Unikernel => "run it at another level of isolation, or add one with `gamut unikernel pack --add-to`",
            ImageForm::Linux => "run it with --isolation unikernel, or without --isolation",
        }
    )]
    OtherForm {
        /// What was asked for.
        name: String,
        /// The form wanted.
        wanted: ImageForm,
        /// The form there is.
        actual: ImageForm,
    },
    /// An index lists no manifest for the platform.
    #[error("no matching manifest for {wanted} in {name}; available: {available}")]
    NoMatchingPlatform {
        /// The image.
        name: String,
        /// The platform wanted.
        wanted: String,
        /// The platforms that the index lists, joined by commas.
        available: String,
    },
    /// Not a reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The content is not what its digest says.
    #[error("{object}: digest mismatch: expected {expected}, got {actual}; nothing was kept")]
    DigestMismatch {
        /// The blob or layer.
        object: String,
        /// The digest promised.
        expected: String,
        /// The digest found.
        actual: String,
    },
    /// The content is longer or shorter than promised.
    #[error(
        "{object}: size mismatch: expected {expected_bytes} bytes, got {actual_bytes}; nothing was kept"
    )]
    SizeMismatch {
        /// The blob or layer.
        object: String,
        /// The size promised.
        expected_bytes: u64,
        /// The size found (at least).
        actual_bytes: u64,
    },
    /// A document or archive that does not follow its format.
    #[error("{object}: {reason}")]
    Malformed {
        /// The document or archive.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something is larger than Gamut accepts.
    #[error("{object} is larger than the limit of {limit}")]
    TooLarge {
        /// The object.
        object: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// A format or feature that Gamut does not do.
    #[error("{object}: {reason}")]
    Unsupported {
        /// The object.
        object: String,
        /// What is not supported, and what to do instead.
        reason: String,
    },
    /// Names or containers stand in the way.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A registry could not be reached or refused.
    #[error("{object}: {reason}")]
    Registry {
        /// The image, blob or address.
        object: String,
        /// What happened and what to do.
        reason: String,
        /// The sort of failure.
        kind: ErrorKind,
        /// Whether trying again may help.
        transient: bool,
        /// What the transport said.
        source: Option<Box<ureq::Error>>,
    },
    /// A layer cannot be unpacked.
    #[error("{object}: cannot unpack the layer")]
    Layer {
        /// The layer.
        object: String,
        /// Why.
        source: crate::layer::Error,
    },
    /// An archive cannot be read or written.
    #[error("{object}: cannot read the tar archive")]
    Tar {
        /// The archive.
        object: String,
        /// Why.
        source: crate::tar::ReadError,
    },
    /// The caller has given up.
    #[error("{0}: cancelled; nothing was kept")]
    Cancelled(String),
    /// A thread of the store died.
    #[error("{0}: a worker thread ended unexpectedly")]
    Worker(String),
}

impl Error {
    /// The sort of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } if self.is_disk_full() => ErrorKind::Unavailable,
            Self::Io { .. } => ErrorKind::Internal,
            Self::Locked { .. } | Self::Conflict(_) => ErrorKind::Conflict,
            Self::NoSuchImage(_) | Self::OtherPlatform { .. } | Self::NoMatchingPlatform { .. } => {
                ErrorKind::NotFound
            }
            Self::Read { .. }
            | Self::AmbiguousId { .. }
            | Self::OtherForm { .. }
            | Self::Reference(_)
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Tar { .. } => ErrorKind::InvalidArgument,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Registry { kind, .. } => *kind,
            Self::Layer { .. } if self.is_disk_full() => ErrorKind::Unavailable,
            Self::Layer {
                source: crate::layer::Error::Io { .. } | crate::layer::Error::TargetNotEmpty { .. },
                ..
            } => ErrorKind::Internal,
            Self::Layer { .. } => ErrorKind::InvalidArgument,
            Self::Cancelled(_) => ErrorKind::Cancelled,
            Self::Worker(_) => ErrorKind::Internal,
        }
    }

    /// Whether the store's disk, or a quota on it, is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let source = match self {
            Self::Io { source, .. }
            | Self::Layer {
                source: crate::layer::Error::Io { source, .. },
                ..
            } => source,
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Wraps a failure on a file: `.map_err(Error::io("open", path))`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// A document or archive that does not follow its format.
    pub(crate) fn malformed(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            object: object.into(),
            reason: reason.into(),
        }
    }
}

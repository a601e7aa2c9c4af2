//! What pulling, pushing and loading report, in Docker's words.

use std::fmt;

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The layer (twelve digits) or tag that it is about; `None` for the image as a whole.
    pub id: Option<&'a str>,
    /// What happens.
    pub step: Step<'a>,
}

/// What happens to a layer or an image. `Display` gives Docker's status text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// The layer will be fetched.
    PullingFsLayer,
    /// The layer waits for a free connection.
    Waiting,
    /// The layer is being fetched.
    Downloading {
        /// Bytes received so far.
        current_bytes: u64,
        /// Bytes of the compressed layer.
        total_bytes: u64,
    },
    /// The connection was cut; the fetch begins again where it stopped.
    Retrying {
        /// Seconds until the next attempt.
        delay_s: u64,
    },
    /// All bytes are there and are compared with the digest.
    VerifyingChecksum,
    /// The layer has been fetched and is what its digest says.
    DownloadComplete,
    /// The layer is being unpacked.
    Extracting {
        /// Compressed bytes unpacked so far.
        current_bytes: u64,
        /// Compressed bytes in all.
        total_bytes: u64,
    },
    /// The layer is ready.
    PullComplete,
    /// The layer was there before.
    AlreadyExists,
    /// A layer of an archive is being loaded.
    Loading {
        /// Bytes read so far.
        current_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// The layer will be pushed, if the registry does not have it.
    Preparing,
    /// The layer is being sent.
    Pushing {
        /// Bytes sent so far.
        current_bytes: u64,
        /// Bytes of the compressed layer.
        total_bytes: u64,
    },
    /// The registry has the layer now.
    Pushed,
    /// The registry had the layer before.
    LayerAlreadyExists,
    /// The registry took the layer over from this repository.
    MountedFrom(&'a str),
    /// A line about the whole image, for example `Digest: sha256:…`.
    Message(&'a str),
}

impl Step<'_> {
    /// The bytes done and the bytes in all, where the step has them.
    #[must_use]
    pub fn amount_bytes(&self) -> Option<(u64, u64)> {
        match self {
            Self::Downloading {
                current_bytes,
                total_bytes,
            }
            | Self::Extracting {
                current_bytes,
                total_bytes,
            }
            | Self::Loading {
                current_bytes,
                total_bytes,
            }
            | Self::Pushing {
                current_bytes,
                total_bytes,
            } => Some((*current_bytes, *total_bytes)),
            _ => None,
        }
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PullingFsLayer => f.write_str("Pulling fs layer"),
            Self::Waiting => f.write_str("Waiting"),
            Self::Downloading { .. } => f.write_str("Downloading"),
            Self::Retrying { delay_s: 1 } => f.write_str("Retrying in 1 second"),
            Self::Retrying { delay_s } => write!(f, "Retrying in {delay_s} seconds"),
            Self::VerifyingChecksum => f.write_str("Verifying Checksum"),
            Self::DownloadComplete => f.write_str("Download complete"),
            Self::Extracting { .. } => f.write_str("Extracting"),
            Self::PullComplete => f.write_str("Pull complete"),
            Self::AlreadyExists => f.write_str("Already exists"),
            Self::Loading { .. } => f.write_str("Loading layer"),
            Self::Preparing => f.write_str("Preparing"),
            Self::Pushing { .. } => f.write_str("Pushing"),
            Self::Pushed => f.write_str("Pushed"),
            Self::LayerAlreadyExists => f.write_str("Layer already exists"),
            Self::MountedFrom(repository) => write!(f, "Mounted from {repository}"),
            Self::Message(text) => f.write_str(text),
        }
    }
}

/// Takes the reports of a pull, push or load. Called from several threads.
pub trait Progress: Sync {
    /// One report. Must not block for long: the transfer waits for it.
    fn report(&self, event: &Event<'_>);

    /// Whether the caller has given up. Asked often; once true, the operation ends with
    /// [`crate::Error::Cancelled`] and keeps nothing.
    fn is_cancelled(&self) -> bool;
}

/// Takes no reports and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn report(&self, _event: &Event<'_>) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Reports `step` for `id`.
pub(crate) fn report(progress: &dyn Progress, id: &str, step: Step<'_>) {
    progress.report(&Event { id: Some(id), step });
}

/// Reports a line about the whole image.
pub(crate) fn message(progress: &dyn Progress, text: &str) {
    progress.report(&Event {
        id: None,
        step: Step::Message(text),
    });
}

//! The forms in which a program is in an image.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// The feature of the operating system (`os.features` of OCI's image-spec) by which a unikernel
/// is told from a program for Linux.
pub const UNIKERNEL_FEATURE: &str = "gamut.unikernel";

/// The variant of a unikernel's platform, by which clients that know nothing of features tell it
/// from a program for Linux.
pub const UNIKERNEL_VARIANT: &str = "unikernel";

/// In what form a program is in an image. An image of several forms has them under one name, as
/// entries of an index.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ImageForm {
    /// Programs and files for a Linux kernel, the host's or one of its own.
    #[default]
    Linux,
    /// One program linked with its operating system, which a monitor boots.
    Unikernel,
}

impl ImageForm {
    /// The word used in lists and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Unikernel => "unikernel",
        }
    }
}

impl fmt::Display for ImageForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ImageForm {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "linux" => Ok(Self::Linux),
            "unikernel" => Ok(Self::Unikernel),
            _ => Err(UnknownForm(text.to_owned())),
        }
    }
}

/// A word that names no form of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown form of an image {0:?}: use linux or unikernel")]
pub struct UnknownForm(pub String);

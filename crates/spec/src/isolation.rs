//! The levels of isolation.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// A point on the spectrum of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationLevel {
    /// Namespaces and control groups on the host's kernel.
    Container,
    /// A kernel of its own behind a virtual machine monitor.
    MicroVm,
    /// The application linked with a library OS, behind a virtual machine monitor.
    Unikernel,
    /// A plain process with no isolation at all: for the tests of the contract only.
    Process,
}

impl IsolationLevel {
    /// The word used in commands, records and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::MicroVm => "microvm",
            Self::Unikernel => "unikernel",
            Self::Process => "process",
        }
    }

    /// The name of the runtime by which Docker clients ask for the level (`--runtime`).
    #[must_use]
    pub fn runtime_name(self) -> &'static str {
        match self {
            Self::Container => "gamut",
            Self::MicroVm => "gamut-microvm",
            Self::Unikernel => "gamut-unikernel",
            Self::Process => "gamut-process",
        }
    }

    /// The level that a Docker runtime name asks for; the common names of container runtimes
    /// (`runc`, `io.containerd.runc.v2`, none) ask for a container.
    #[must_use]
    pub fn from_runtime_name(name: &str) -> Option<Self> {
        match name {
            "" | "gamut" | "gamut-container" | "runc" | "io.containerd.runc.v2" => {
                Some(Self::Container)
            }
            "gamut-microvm" => Some(Self::MicroVm),
            "gamut-unikernel" => Some(Self::Unikernel),
            "gamut-process" => Some(Self::Process),
            _ => None,
        }
    }
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IsolationLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "container" => Ok(Self::Container),
            "microvm" => Ok(Self::MicroVm),
            "unikernel" => Ok(Self::Unikernel),
            "process" => Ok(Self::Process),
            _ => Err(UnknownLevel(text.to_owned())),
        }
    }
}

/// A word that names no isolation level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown isolation level {0:?}: use container, microvm or unikernel")]
pub struct UnknownLevel(pub String);

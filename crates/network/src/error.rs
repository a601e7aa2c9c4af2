//! What can go wrong, and what sort of failure it is.

use std::io;
use std::net::IpAddr;

use gamut_spec::error::ErrorKind;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed network operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request makes no sense.
    #[error("{0}")]
    InvalidArgument(String),
    /// Something else stands in the way.
    #[error("{0}")]
    Conflict(String),
    /// Not offered by this build or machine.
    #[error("{0}")]
    Unsupported(String),
    /// The object named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Every usable address of the subnet is leased.
    #[error(
        "no free address left in {subnet}: remove containers that are not needed or use a larger subnet"
    )]
    AddressesExhausted {
        /// The subnet that is full.
        subnet: String,
    },
    /// The host port belongs to somebody else.
    #[error("Bind for {} failed: port is already allocated", std::net::SocketAddr::new(*address, *port))]
    PortTaken {
        /// The host address asked for, `0.0.0.0` or `::` for all.
        address: IpAddr,
        /// The host port asked for.
        port: u16,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No port is free to be chosen.
    #[error(
        "no host port between {first} and {last} is free: withdraw some or widen net.ipv4.ip_local_port_range"
    )]
    PortsExhausted {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// The kernel refused a netlink request.
    #[error("cannot {operation}: {source}")]
    Netlink {
        /// The operation and its object.
        operation: String,
        /// The kernel's errno and explanation.
        #[source]
        source: Refusal,
    },
    /// A system call failed.
    #[error("cannot {operation}: {source}")]
    System {
        /// The operation and its object.
        operation: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `nft` could not be started.
    #[error("cannot run nft: {0}; install nftables and see that nft is on the daemon's PATH")]
    NftMissing(#[source] io::Error),
    /// `nft` refused a script; nothing of it was applied.
    #[error("nft refused to {operation}: {output}")]
    Nft {
        /// The operation and its object.
        operation: String,
        /// What nft wrote to its standard error.
        output: String,
    },
}

/// A negative answer of the kernel to a netlink request.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The errno, positive.
    pub errno: i32,
    /// The kernel's own explanation (extended acknowledgement), often empty.
    pub explanation: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cause = io::Error::from_raw_os_error(self.errno);
        if self.explanation.is_empty() {
            write!(f, "{cause}")
        } else {
            write!(f, "{cause}: {}", self.explanation)
        }
    }
}

impl std::error::Error for Refusal {}

impl Error {
    /// What sort of failure this is, for front doors to translate.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Self::Conflict(_) | Self::PortTaken { .. } => ErrorKind::Conflict,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AddressesExhausted { .. } | Self::PortsExhausted { .. } | Self::NftMissing(_) => {
                ErrorKind::Unavailable
            }
            Self::Netlink { source, .. } => errno_kind(Some(source.errno)),
            Self::System { source, .. } => errno_kind(source.raw_os_error()),
            Self::Nft { .. } => ErrorKind::Internal,
        }
    }

    /// The errno behind this error, if the kernel gave one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Netlink { source, .. } => Some(source.errno),
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Wraps the calling thread's errno.
    pub(crate) fn last_os(operation: impl Into<String>) -> Self {
        Self::system(operation, io::Error::last_os_error())
    }

    /// Wraps an I/O error.
    pub(crate) fn system(operation: impl Into<String>, source: io::Error) -> Self {
        Self::System {
            operation: operation.into(),
            source,
        }
    }
}

fn errno_kind(errno: Option<i32>) -> ErrorKind {
    match errno {
        Some(libc::EPERM | libc::EACCES | libc::EROFS) => ErrorKind::Forbidden,
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => ErrorKind::Unsupported,
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOSPC
            | libc::EAGAIN
            | libc::ENOBUFS,
        ) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

//! Published ports: from a port of the host to a workload in the namespaces.
//!
//! The socket on the host is opened by the parent process, the connection to the workload is made
//! in the engine's network namespace, where the forwarder is root: it takes the client's own
//! address as source (`IP_TRANSPARENT`, ip(7)), and [`route`] leads the answers back to it.
//! pasta's own forwarding keeps the source address as well, but the version of Debian 12 takes its
//! ports at its start only, or binds every port on all addresses about a second after it was
//! opened inside, without a word if it is taken.

mod client;
mod route;
mod server;
mod tcp;
mod udp;

pub use client::Forwards;
pub(crate) use client::{await_running, pid};
pub use server::run;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use gamut_spec::error::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::message::{self, Protocol};

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// Its protocol.
    pub protocol: Protocol,
    /// Address of the host, 0.0.0.0 for all.
    pub host_address: Ipv4Addr,
    /// Port of the host.
    pub host_port: u16,
    /// Where it leads.
    pub target: SocketAddrV4,
}

/// A port of the host, by which forwards are told apart.
type Port = (Protocol, Ipv4Addr, u16);

impl Forward {
    fn port(&self) -> Port {
        (self.protocol, self.host_address, self.host_port)
    }
}

/// What is asked of the forwarder: that these be the published ports, and no others.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    forwards: Vec<Forward>,
    /// Leave out what cannot be had, rather than change nothing.
    lenient: bool,
}

/// Its answer: what could not be had.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    refused: Vec<Refused>,
}

/// A port that could not be had.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Refused {
    message: String,
    kind: Kind,
}

/// The sorts of refusal that the engine tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Taken,
    Forbidden,
    Invalid,
    Other,
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Conflict => Self::Taken,
            ErrorKind::Forbidden => Self::Forbidden,
            ErrorKind::InvalidArgument => Self::Invalid,
            _ => Self::Other,
        }
    }
}

impl From<Kind> for ErrorKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Taken => Self::Conflict,
            Kind::Forbidden => Self::Forbidden,
            Kind::Invalid => Self::InvalidArgument,
            Kind::Other => Self::Internal,
        }
    }
}

fn socket(run: &Path) -> PathBuf {
    message::directory(run).join("forwarder.sock")
}

/// The ports, for a forwarder that starts again.
fn list(run: &Path) -> PathBuf {
    message::directory(run).join("forwards.json")
}

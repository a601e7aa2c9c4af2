//! The engine for an ordinary user.
//!
//! Without root's rights an engine needs namespaces of its own: a user namespace in which it is
//! root, with the subordinate ids that newuidmap(1) grants; a mount namespace; and a network
//! namespace that pasta(1) connects with the host's network. In there everything else works as
//! it does for root.
//!
//! Three processes keep that up beside the daemon, and outlive it as workloads do:
//!
//! - [`parent`], outside: holds the namespaces, restarts the others, opens ports of the host;
//! - the [`forward`]er, inside: answers published ports and leads them to the workloads, with the
//!   client's own address as source;
//! - pasta, for everything that goes out.
//!
//! A daemon that starts asks the parent for the namespaces, or starts one first ([`enter`]).

mod account;
mod client;
mod directories;
mod error;
pub mod forward;
mod mapping;
mod message;
mod namespaces;
pub mod parent;
mod subordinate;
mod sys;

pub use account::{Account, is_ordinary_user};
pub use client::{Entered, enter, stop};
pub use directories::Directories;
pub use error::{Error, Result};
pub use mapping::Mappings;
pub use message::{Protocol, State};

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// First argument by which a program that uses this crate becomes the process outside; the run
/// directory follows.
pub const PARENT: &str = "rootless-parent";
/// First argument by which it becomes the forwarder; the run directory follows.
pub const FORWARDER: &str = "rootless-forwarder";

/// Where workloads reach the first resolver of the host, wherever that listens.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Finds a program on `PATH` or where system programs lie.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
}

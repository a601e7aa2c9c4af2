//! The embedded resolver: containers on user-defined networks find each other by name.
//!
//! ```text
//!  daemon ── writes ──▶ RUN/dns/ID.json      what is to be known of a container
//!     │                      │ reads at its start, and when it is told of a change
//!     └── RUN/dns/sock ──▶ helper ── 127.0.0.11 in each container's network namespace
//! ```
//!
//! The helper is two processes of the program that the daemon is, too. The [`keeper`] holds the
//! socket and starts the worker again when that ends; the worker serves, and becomes a keeper if
//! its own is killed. Neither needs the daemon: what is to be known lies in files, and a namespace
//! is found again by the supervisor's status file. When no container is left they end.
//!
//! The worker reads what containers send, so it gives up what the daemon may do ([`confine`]) but for
//! entering network namespaces and leading port 53 there.
//!
//! Messages are parsed by ourselves ([`message`]): a resolver that forwards whole messages needs
//! to read one question and write address records, which is a fraction of a protocol library.

mod book;
mod client;
mod confine;
mod error;
mod forward;
mod keeper;
pub mod message;
mod record;
mod server;
mod worker;

pub use book::{Addresses, Answer, Book};
pub use client::Resolver;
pub use error::{Error, Result};
pub use keeper::run;
pub use record::{Place, Record, fuzz_record};

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// First argument by which a program that uses this crate becomes the helper; the run directory
/// follows. It then calls [`run`], with one thread.
pub const HELPER: &str = "dns-helper";

/// Where containers ask.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

fn directory(run_root: &Path) -> PathBuf {
    run_root.join("dns")
}

fn socket_path(run_root: &Path) -> PathBuf {
    directory(run_root).join("sock")
}

//! Harness of the end-to-end tests.
//!
//! A test starts a real daemon ([`Daemon::start`]) in a network and a mount namespace, a control
//! group and directories of its own, drives it with the real command line, the stock docker client
//! or raw HTTP, and ends with [`Daemon::finish`], which stops everything and asserts that nothing
//! is left: no mount, control group, link, firewall rule, process, open file or directory entry.
//!
//! What the machine lacks is said by [`skipped`], on the real standard error, which the test
//! runner does not swallow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod binaries;
mod bundle;
mod cgroup;
mod daemon;
mod datagrams;
mod http;
mod leaks;
mod namespaces;
mod registry;
mod rootfs;
mod session;
mod skip;
pub mod swagger;
mod sweep;
mod user;
mod wait;

pub use authority::Authority;
pub use binaries::{monitor, on_path, runtime, supervisor, target_binary, unikernel};
pub use bundle::Bundle;
pub use cgroup::Cgroup;
pub use daemon::Daemon;
pub use datagrams::Answering;
pub use http::{Response, exchange};
pub use leaks::Snapshot;
pub use namespaces::Namespaces;
pub use registry::{Registry, skopeo};
pub use rootfs::{Rootfs, busybox, debian, debian_with_postgresql, hostile, probe, two_layers};
pub use session::{Output, PATIENCE, Session};
pub use skip::{has, skipped};
pub use user::{MACHINE_ADDRESS, Machine, NEIGHBOUR_ADDRESS, User};
pub use wait::{eventually, racing_time, until};

//! The engine: what should run, restart and be kept.
//!
//! It owns images, volumes, networks and the record of containers, and drives the levels of
//! isolation through their contract. It holds nothing that a running workload needs: it may be
//! killed and started again at any time, and joins what it finds (run directories) with what
//! should be (records) in [`container::reconcile`].

mod authorization;
pub mod container;
pub mod engine;
pub mod error;
pub mod events;
pub mod files;
pub mod health;
mod host_ports;
mod image_use;
pub mod local_volume;
pub mod logging;
pub mod logs;
mod mount_api;
pub mod networking;
pub mod options;
mod registry_use;
pub mod snapshotter;
pub mod store;
pub mod system;
pub mod volume;
mod volume_block;
mod volume_mount;
mod volume_use;

pub use engine::{Caller, Engine};
pub use error::{Error, Result};
pub use options::{DelegatedGroups, Options, Rootless, find_groups};

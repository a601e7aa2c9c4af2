//! Control groups: one v2 model, with v1 and hybrid hierarchies as translation.
//!
//! [`Hierarchies`] finds what is mounted, once. A [`Group`] is one path below the root of every
//! hierarchy that carries a controller of the model ([`gamut_abi::resources::Resources`]); it is
//! made, limited, joined, measured, frozen, killed and removed as one thing. Each controller is
//! looked up in the hierarchy that has it, so that a hybrid machine needs no code of its own.
//!
//! [`Hierarchies`] and [`Group`] hold descriptors of the host's control group directories, all
//! close-on-exec. A process that takes on the view of a container must close them *before* it
//! changes its working directory (CVE-2024-21626 was such a descriptor left open).
//!
//! Sources: Linux `Documentation/admin-guide/cgroup-v2.rst`, `Documentation/admin-guide/cgroup-v1/`,
//! cgroups(7), bpf(2).

mod apply;
mod apply_network;
mod apply_v1;
mod apply_v2;
mod bpf;
mod controller;
mod convert;
mod delegate;
mod delegation;
mod devices;
mod error;
mod freeze;
mod group;
mod hierarchy;
mod memory_v1;
mod mountinfo;
mod nested;
mod remove;
mod stats;
mod stats_read;
mod sys;
mod systemd;

pub use controller::Controller;
pub use convert::{blkio_to_io_weight, shares_to_weight, weight_to_shares};
pub use delegation::{Delegated, delegated};
pub use error::Error;
pub use group::{Group, list_children};
pub use hierarchy::{Hierarchies, HierarchyRoot, Mode};
pub use mountinfo::fuzz_mountinfo;
pub use stats::{CpuStats, HugetlbStats, IoStats, MemoryStats, PidsStats, Stats, fuzz_stats};
pub use systemd::{fuzz_dbus, systemd_path};

//! What the parts of Gamut say to each other across a process or machine boundary.
//!
//! Everything here is plain data: `no_std`, no I/O, no policy. Every wire and disk format carries
//! [`PROTOCOL_VERSION`], so that a daemon can drive supervisors that were started by its
//! predecessor.

#![no_std]

extern crate alloc;

pub mod calendar;
#[cfg(feature = "host")]
pub mod capability;
#[cfg(feature = "host")]
pub mod control;
pub mod guest;
#[cfg(feature = "host")]
pub mod hooks;
#[cfg(feature = "host")]
pub mod monitor;
#[cfg(feature = "host")]
pub mod oci;
#[cfg(feature = "host")]
pub mod plan;
#[cfg(feature = "host")]
pub mod resources;
#[cfg(feature = "host")]
pub mod status;
#[cfg(feature = "host")]
pub mod wire;

/// Version of the frames, the launch plan and the status file. Raised when a field changes
/// meaning; additions go at the end of an enum, which postcard keeps readable.
pub const PROTOCOL_VERSION: u16 = 1;

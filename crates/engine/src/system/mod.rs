//! The engine as a whole: facts, usage, checks.

pub mod disk_usage;
pub mod dump;
pub mod fsck;
pub mod host;
pub mod info;
pub mod observe;
mod readiness;
pub mod usage;

pub use readiness::{ProcessUsage, process_usage};

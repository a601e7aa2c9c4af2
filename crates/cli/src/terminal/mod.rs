//! The caller's terminal and standard streams while a container uses them.

pub mod raw;
pub mod session;
pub mod signals;
pub mod sink;
pub mod source;

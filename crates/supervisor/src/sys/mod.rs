//! Thin, safe wrappers around the system calls that the standard library lacks.

pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod epoll;
pub(crate) mod io;
pub(crate) mod process;

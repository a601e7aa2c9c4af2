//! Containers and exec sessions.

pub mod archive;
pub mod attach;
pub mod changes;
pub mod create;
pub mod endpoints;
pub mod exec;
mod health;
pub mod inspect;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod mounts;
pub mod observe;
mod ports;
mod requested;
pub mod wait;

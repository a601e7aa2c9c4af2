//! Verbs on containers.

pub mod attach;
pub mod commit;
pub mod config;
pub mod cp;
pub mod debug;
pub mod diff;
pub mod exec;
pub mod extract;
pub mod flags;
pub mod health;
pub mod inspect;
pub mod logs;
pub mod port;
pub mod ps;
pub mod run;
pub mod running;
pub mod signal;
pub mod simple;
pub mod start;
pub mod stats;
pub mod top;
pub mod update;
mod verify;

use crate::client::query::segment;

/// Path of a container's resource: `/containers/NAME/WHAT`.
#[must_use]
pub fn path(name: &str, what: &str) -> String {
    let name = segment(name).replace('/', "%2F");
    if what.is_empty() {
        format!("/containers/{name}")
    } else {
        format!("/containers/{name}/{what}")
    }
}

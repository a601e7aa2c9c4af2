//! The Docker Engine API over HTTP on a unix socket, and Gamut's own verbs below `/gamut/v1`.
//!
//! Wire formats in, domain calls out; no decisions.

#![recursion_limit = "256"]

mod body;
mod builder;
mod compat;
mod containers;
mod credentials;
mod disk_usage;
mod error;
mod events;
mod filters;
mod gamut;
mod hijack;
mod images;
mod networks;
mod plugins;
mod progress;
mod registry;
mod reply;
mod request;
mod route;
pub mod server;
mod swarm;
mod system;
mod volumes;
mod websocket;

pub use server::Server;

/// Entries for fuzz targets.
pub mod fuzz {
    pub use crate::filters::fuzz_filters;
    pub use crate::websocket::frame::fuzz_frames;

    /// Any query string is parsed without panic.
    pub fn fuzz_query(data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            let _ = crate::request::parse_query(text);
        }
    }
}

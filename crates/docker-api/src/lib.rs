//! The Docker Engine API over HTTP, on unix sockets and behind mutual TLS, and Gamut's own verbs below `/gamut/v1`.
//!
//! Wire formats in, domain calls out; no decisions.

#![recursion_limit = "256"]

mod authorization;
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
mod listen;
pub mod metrics;
mod networks;
mod plugins;
mod probes;
mod progress;
mod registry;
mod reply;
mod request;
mod route;
pub mod server;
mod swarm;
mod system;
mod tls;
mod volumes;
mod websocket;

pub use server::Server;
pub use tls::{TlsError, TlsFiles};

/// Entries for fuzz targets.
pub mod fuzz {
    pub use crate::containers::mounts::fuzz_mounts;
    pub use crate::filters::fuzz_filters;
    pub use crate::websocket::frame::fuzz_frames;

    /// Any query string is parsed without panic.
    pub fn fuzz_query(data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            let _ = crate::request::parse_query(text);
        }
    }
}

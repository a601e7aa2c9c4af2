//! Client of the Engine API, over a unix socket, TLS or ssh.

pub mod address;
pub mod autostart;
pub mod body;
pub mod demux;
pub mod hijack;
pub mod http;
pub mod json_stream;
pub mod query;
pub mod stream;

pub use address::Address;
pub use hijack::Hijacked;
pub use http::{Client, Streaming};
pub use query::Query;

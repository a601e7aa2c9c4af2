//! HTTP/1.1 (RFC 9110, RFC 9112): messages without input or output, a server and a client.

mod chunked;
#[cfg(feature = "http-client")]
pub mod client;
mod date;
mod head;
mod request;
mod response;
#[cfg(feature = "http-server")]
pub mod server;

pub use chunked::{Chunk, ChunkDecoder};
pub use date::date;
pub use head::{BodyLength, Header, HttpError, Limits, Parsed};
pub use request::{RequestHead, parse_request};
pub use response::{Response, ResponseHead, StatusCode, parse_response};
#[cfg(feature = "http-server")]
pub use server::{Request, Server};

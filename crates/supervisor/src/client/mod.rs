//! The daemon's side: starting supervisors and talking to them, blocking and thread-safe.

mod connection;
mod error;
mod executable;
mod files;
mod reaper;
mod spawn;
mod watcher;

pub use connection::{Client, Context, launch};
pub use error::ClientError;
pub use executable::Executable;
pub use files::{is_alive, read_status};
pub use reaper::adopt_supervisors;
pub use watcher::{EventDecoder, Watcher};

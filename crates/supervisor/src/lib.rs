//! The parent of one sandbox: stdio, log, exit status, pty and restarts; and its client.
//!
//! One process per sandbox outlives the daemon that started it. [`server`] is that process: a
//! single thread around an epoll loop, without unwinding and without panics. The rest is the
//! blocking client library of the daemon: [`launch`] starts a supervisor, [`Client`] talks to one,
//! [`read_status`] and [`is_alive`] read what it leaves behind.

mod client;
mod hub;
mod log;
pub mod oci;
pub mod server;
mod sys;

pub use client::{
    Client, ClientError, Context, EventDecoder, Executable, Watcher, adopt_supervisors, is_alive,
    launch, read_status,
};
#[doc(hidden)]
pub use log::{LogWriter, Stream, fuzz_line_splitter};

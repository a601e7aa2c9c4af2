//! The gamut command line: a thin client of the Engine API, and the daemon's entry point.
//!
//! Every verb is one type in [`commands`] whose fields are its flags (clap derive), whose `run`
//! makes the requests. [`cli`] hangs them into the tree of nouns and verbs; only the verb that was
//! typed is built, so that start-up stays below a millisecond.

pub mod cli;
pub mod client;
pub mod commands;
pub mod contexts;
pub mod credentials;
pub mod daemon;
pub mod error;
mod notify;
pub mod output;
pub mod parse;
mod rootless;
pub mod terminal;

pub use cli::main;

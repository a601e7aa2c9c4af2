//! End-to-end tests: the real binary on real namespaces, images and sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod copy;
mod docker;
mod escapes;
mod exec;
mod harness;
mod images;
mod isolation;
mod libraries;
mod lifecycle;
mod limits;
mod logs;
mod network;
mod restart;
mod run;
mod security;
mod shares;
mod system;
mod terminal;
mod volumes;

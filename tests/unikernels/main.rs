//! Unikernels in stock QEMU, through the PVH entry and virtio: the same files that Gamut's own
//! monitor runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod build;
mod crash;
mod forward;
mod guest;
mod kv;
mod start;
mod web;

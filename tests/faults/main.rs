//! Fault tests: kills, damage and hostile input, on the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod bad_input;
mod fsck;
mod image;
mod kill_matrix;
mod registry;
mod soak;

//! A small key-value store on a block device.
//!
//! It is a log: what is written is appended in batches with checksums, and acknowledged once it is
//! durable. A guest that is killed, or a machine that loses power, in the middle of a batch loses
//! that batch alone, which nobody was told to be there. The device has two areas; when one is full,
//! what is still valid is copied to the other, and a superblock written last makes the switch.

mod crc;
mod format;
mod log;
#[cfg(feature = "store")]
mod service;
#[cfg(test)]
mod tests;

pub use format::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Operation};
pub use log::{Disk, Log, OpenMode, StoreError};
#[cfg(feature = "store")]
pub use service::{Counters, Store};

pub use format::{BatchHeader, Superblock, decode_operations};

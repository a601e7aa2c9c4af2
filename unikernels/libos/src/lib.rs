//! The library operating system of unikernels.
//!
//! An application links this crate and takes only the features that it names. It is one program
//! with one thread of control: tasks run until they wait, and when all wait, the guest tells the
//! monitor in one request what to transmit, where to put what arrives and until when to wait.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! use gamut_libos::prelude::*;
//!
//! app!(main);
//!
//! async fn main() -> Result<(), Error> {
//!     println!("Hello from a unikernel!");
//!     Ok(())
//! }
//! ```
//!
//! Modules that need no feature `guest` are pure: they do no input or output, and are tested and
//! fuzzed on the host.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "block")]
pub mod block;
#[cfg(feature = "guest")]
mod boot;
#[cfg(feature = "guest")]
mod cell;
#[cfg(feature = "guest")]
pub mod clock;
#[cfg(feature = "guest")]
pub mod console;
#[cfg(feature = "entropy")]
pub mod entropy;
#[cfg(feature = "guest")]
pub mod env;
mod error;
#[cfg(feature = "guest")]
pub mod executor;
#[cfg(feature = "http-message")]
pub mod http;
#[cfg(feature = "guest")]
mod input_output;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "guest")]
pub mod memory;
#[cfg(feature = "guest")]
mod memory_functions;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(any(feature = "net", feature = "dns-message"))]
pub mod net;
#[cfg(feature = "guest")]
mod panic;
#[cfg(feature = "guest")]
mod platform;
#[cfg(feature = "pvh")]
pub mod pvh;
#[cfg(feature = "ramfs")]
pub mod ramfs;
#[cfg(feature = "resp")]
pub mod resp;
#[cfg(feature = "rofs")]
pub mod rofs;
#[cfg(feature = "guest")]
pub mod shutdown;
#[cfg(feature = "guest")]
pub mod start;
#[cfg(feature = "store-format")]
pub mod store;

pub use error::Error;
pub use gamut_abi::guest as abi;

/// What an application usually needs.
pub mod prelude {
    pub use crate::Error;
    #[cfg(feature = "guest")]
    pub use crate::{app, executor::spawn, print, println};
    pub use alloc::borrow::ToOwned;
    pub use alloc::boxed::Box;
    pub use alloc::format;
    pub use alloc::string::{String, ToString};
    pub use alloc::vec;
    pub use alloc::vec::Vec;
}

/// An address as a number of this machine.
#[cfg(any(feature = "guest", feature = "store-format"))]
pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

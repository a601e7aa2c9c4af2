//! Files of containers: copying in and out, and filling volumes.
//!
//! Everything in a container's tree is hostile, and while the container runs it changes under
//! our hands. No path is ever handed to the system as such: names are resolved by openat2(2)
//! with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` from a descriptor of the container's root,
//! and what was found is read or changed through its own descriptor.

pub mod archive;
pub mod changes;
pub mod commit;
pub mod copy;
mod create;
mod extract;
mod fingerprints;
pub mod merge;
mod node;
mod pack;
mod path;
#[cfg(test)]
mod tests;
mod view;
mod walk;

pub use fingerprints::directory_fingerprints;
pub(crate) use view::open_beneath;

use std::io;
use std::path::{Path, PathBuf};

/// Mounts, where nobody else sees it, an overlay of a layer and a directory that holds `upper` and
/// `work`, to see whether that can be done.
///
/// # Errors
/// Why it cannot.
pub fn try_overlay(lower: &Path, writable: &Path) -> io::Result<()> {
    let layers: [PathBuf; 1] = [lower.to_owned()];
    view::View::open(&view::Parts {
        layers: &layers,
        writable: Some(writable),
        ..view::Parts::default()
    })
    .map(drop)
}

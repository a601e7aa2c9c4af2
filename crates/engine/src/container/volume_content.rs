//! What an image has at a mount point goes into a fresh volume first.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Copies what the layers have at `destination` into the empty directory `target`, with owners,
/// modes, times, links and extended attributes. A target that is not empty is left alone.
///
/// # Errors
/// If something cannot be copied.
pub fn copy_up(layers: &[PathBuf], destination: &str, target: &Path) -> Result<()> {
    let fresh = std::fs::read_dir(target)
        .map(|mut entries| entries.next().is_none())
        .map_err(|source| Error::system(format!("read the volume {}", target.display()), source))?;
    if !fresh {
        return Ok(());
    }
    crate::files::copy::from_layers(layers, destination, target)
        .map_err(|source| Error::system(format!("fill the volume at {destination}"), source))
}

//! Bytes on disk.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that a directory tree takes on disk, counted as `du` does: blocks, hard links once, not
/// crossing into other file systems. What vanishes meanwhile counts nothing.
#[must_use]
pub fn tree_bytes(root: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(root) else {
        return 0;
    };
    let device = metadata.dev();
    let mut total = metadata.blocks() * 512;
    let mut linked = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.dev() != device {
                continue;
            }
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
                continue;
            }
            total += metadata.blocks() * 512;
        }
    }
    total
}

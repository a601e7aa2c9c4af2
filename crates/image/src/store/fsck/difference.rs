//! Where two trees of files differ.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The first path where two trees differ: kind, mode, owner, size, target, content.
pub(super) fn difference(expected: &Path, found: &Path) -> io::Result<Option<String>> {
    let mut pending = vec![std::path::PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let (a, b) = (expected.join(&relative), found.join(&relative));
        let shown = || Some(format!("/{}", relative.display()));
        let first = fs::symlink_metadata(&a)?;
        let second = match fs::symlink_metadata(&b) {
            Ok(second) => second,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(shown()),
            Err(error) => return Err(error),
        };
        let kind = first.file_type();
        if first.mode() != second.mode()
            || (first.uid(), first.gid()) != (second.uid(), second.gid())
            || ((kind.is_block_device() || kind.is_char_device()) && first.rdev() != second.rdev())
        {
            return Ok(shown());
        }
        if kind.is_dir() {
            let (mut names, other) = (names(&a)?, names(&b)?);
            if names != other {
                return Ok(shown());
            }
            pending.extend(names.drain(..).map(|name| relative.join(name)));
        } else if kind.is_symlink() {
            if fs::read_link(&a)? != fs::read_link(&b)? {
                return Ok(shown());
            }
        } else if kind.is_file() && (first.len() != second.len() || !same_content(&a, &b)?) {
            return Ok(shown());
        }
    }
    Ok(None)
}

fn names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut first, mut second) = (vec![0u8; 64 * 1024], vec![0u8; 64 * 1024]);
    loop {
        let count = a.read(&mut first)?;
        if count == 0 {
            return Ok(b.read(&mut second)? == 0);
        }
        let other = second.get_mut(..count).unwrap_or_default();
        match b.read_exact(other) {
            Ok(()) if first.get(..count) == Some(other) => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

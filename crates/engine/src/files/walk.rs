//! Going through a tree that may change meanwhile.

use super::node::{BELOW, Node};
use gamut_image::layer::sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What to do about a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Descend,
    Skip,
}

/// A directory being gone through: its path, and the names still to be looked at.
struct Level {
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// Visits everything below `start`, parents first, names in order. Paths are relative to it.
///
/// Only one directory is open at a time, however deep the tree. What vanishes on the way is left
/// out. Every file is reached from `start` downwards without following a link, so that nothing
/// outside is ever shown.
///
/// # Errors
/// The system's, `visit`'s, and `ENAMETOOLONG` for paths that no system call takes.
pub(super) fn walk(
    start: BorrowedFd<'_>,
    visit: &mut dyn FnMut(&[u8], &Node) -> io::Result<Next>,
) -> io::Result<()> {
    let mut levels = Vec::new();
    levels.extend(enter(start, Vec::new())?);
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            continue;
        };
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let Some(node) = present(Node::open(start, &path, BELOW))? else {
            continue;
        };
        if visit(&path, &node)? == Next::Descend && node.is_directory() {
            levels.extend(enter(node.fd.as_fd(), path)?);
        }
    }
    Ok(())
}

fn enter(directory: BorrowedFd<'_>, path: Vec<u8>) -> io::Result<Option<Level>> {
    let opened = sys::openat2(directory, c".", sys::DIRECTORY, sys::BENEATH);
    let Some(directory) = present(opened)? else {
        return Ok(None);
    };
    let mut names: Vec<Vec<u8>> = sys::list(directory.as_fd())?
        .into_iter()
        .map(|found| found.name.into_bytes())
        .collect();
    names.sort_unstable();
    Ok(Some(Level {
        path,
        names: names.into_iter(),
    }))
}

/// What has gone, or has become something else on the way, is not there.
pub(super) fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ESTALE)
            ) =>
        {
            Ok(None)
        }
        found => found.map(Some),
    }
}

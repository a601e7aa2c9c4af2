//! Copying what an image has into a directory.

use super::create::{create, describe, fill, set_time};
use super::node::{IN_ROOT, Node};
use super::path::Asked;
use super::view::View;
use super::walk::{Next, walk};
use gamut_image::layer::sys;
use gamut_image::tar::{Kind, Timestamp};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Copies what the layers of an image (topmost first), taken together, have at `destination` into
/// the existing empty directory `target`: with owners, modes, times, links, attributes, devices
/// and holes. The target takes owner, mode and time of the image's directory. If the image has
/// nothing there, or no directory, nothing is done.
///
/// # Errors
/// If something cannot be read or made; the target may be filled by halves then.
pub fn from_layers(layers: &[PathBuf], destination: &str, target: &Path) -> io::Result<()> {
    if layers.is_empty() {
        return Ok(());
    }
    let view = View::of_layers(layers)?;
    let asked = Asked::parse(destination);
    let source = match Node::open_directory(view.root(), &asked.path, IN_ROOT) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
            ) =>
        {
            return Ok(());
        }
        source => source?,
    };
    let target = File::open(target)?;
    copy(&source, target.as_fd(), view.is_bare())
}

/// Copies a tree. `bare`: the source is a layer itself, with overlayfs' marks in it.
fn copy(source: &Node, target: BorrowedFd<'_>, bare: bool) -> io::Result<()> {
    let is_wanted =
        |name: &[u8]| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.");
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut times: Vec<(Vec<u8>, Timestamp)> = Vec::new();
    walk(source.fd.as_fd(), &mut |path, node| {
        if bare && node.is_whiteout()? {
            return Ok(Next::Skip);
        }
        let Some(mut entry) = node.entry(path.to_vec())? else {
            return Ok(Next::Skip);
        };
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let parent = sys::open_directory(target, parent)?;
        let name = sys::c_string(name)?;
        let is_linked = entry.kind != Kind::Directory && node.stat.st_nlink > 1;
        let identity = (node.stat.st_dev, node.stat.st_ino);
        if is_linked && let Some(first) = links.get(&identity) {
            sys::link((target, &sys::c_string(first)?), (parent.as_fd(), &name))?;
            return Ok(Next::Skip);
        }
        entry.xattrs = node.xattrs(is_wanted)?;
        let made = create(parent.as_fd(), &name, &entry)?;
        if entry.kind == Kind::File {
            // Allocated less than its length: it has holes.
            let allocated = u64::try_from(node.stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512);
            fill(
                made.as_fd(),
                &mut node.reader()?,
                allocated < entry.size_bytes,
            )?;
        }
        describe(made.as_fd(), &entry)?;
        if is_linked {
            links.insert(identity, path.to_vec());
        }
        if entry.kind == Kind::Directory {
            times.push((path.to_vec(), entry.mtime));
        }
        Ok(Next::Descend)
    })?;
    for (path, time) in times.into_iter().rev() {
        set_time(sys::open_directory(target, &path)?.as_fd(), time)?;
    }
    if let Some(mut entry) = source.entry(Vec::new())? {
        entry.xattrs = source.xattrs(is_wanted)?;
        describe(target, &entry)?;
    }
    Ok(())
}

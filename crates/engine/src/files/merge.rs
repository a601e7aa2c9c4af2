//! The layers of an image, put together by copying: for data roots on which overlayfs cannot have
//! its writable layer, such as another overlayfs.
//!
//! The result has owners, modes, times, links, attributes, devices and holes of the layers, so that
//! comparing it with them tells what a container has changed. Content is shared with the layers
//! where the file system can (FICLONE, ioctl_ficlonerange(2)).

use super::create::{create, describe, fill, set_time};
use super::node::{BELOW, Node, check};
use gamut_image::layer::sys;
use gamut_image::tar::{Kind, Timestamp};
use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Attributes by which overlayfs marks a directory that hides those below it.
const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// Puts the layers (directories in overlayfs' format, topmost first) together in `target`, which
/// must not exist; without layers it is an empty directory.
///
/// # Errors
/// If something cannot be read or made; nothing is left of the target then.
pub fn layers(layers: &[PathBuf], target: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(target)?;
    let merged = merge(layers, target);
    if merged.is_err()
        && let Err(error) = gamut_image::layer::remove_tree(target)
    {
        tracing::warn!(path = %target.display(), %error, "a copy that failed could not be removed");
    }
    merged
}

fn merge(layers: &[PathBuf], target: &Path) -> io::Result<()> {
    let Some(top) = layers.first() else {
        return Ok(());
    };
    let open = |path: &Path| File::open(path).map(OwnedFd::from);
    let mut merge = Merge {
        layers: layers
            .iter()
            .map(|layer| open(layer))
            .collect::<io::Result<_>>()?,
        target: open(target)?,
        links: HashMap::new(),
        times: Vec::new(),
        pending: vec![(Vec::new(), (0..layers.len()).collect())],
        shares_content: true,
    };
    while let Some((path, sources)) = merge.pending.pop() {
        merge.directory(&path, &sources)?;
    }
    for (path, time) in std::mem::take(&mut merge.times).into_iter().rev() {
        set_time(
            sys::open_directory(merge.target.as_fd(), &path)?.as_fd(),
            time,
        )?;
    }
    let root = Node::from_fd(open(top)?)?;
    if let Some(mut entry) = root.entry(Vec::new())? {
        entry.xattrs = root.xattrs(is_wanted)?;
        describe(merge.target.as_fd(), &entry)?;
    }
    Ok(())
}

fn is_wanted(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

struct Merge {
    /// The layers' directories, topmost first.
    layers: Vec<OwnedFd>,
    target: OwnedFd,
    /// Where a file with several names was made first.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Times of directories, parents first, to be set once they are filled.
    times: Vec<(Vec<u8>, Timestamp)>,
    /// Directories to be filled, with the layers that have a part in them, topmost first.
    pending: Vec<(Vec<u8>, Vec<usize>)>,
    /// Content can be shared with the layers, as far as is known.
    shares_content: bool,
}

impl Merge {
    fn layer(&self, index: usize) -> io::Result<BorrowedFd<'_>> {
        let layer = self.layers.get(index).map(AsFd::as_fd);
        layer.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    /// Fills a directory: of each name, the topmost layer that has it decides.
    fn directory(&mut self, path: &[u8], sources: &[usize]) -> io::Result<()> {
        let parent = sys::open_directory(self.target.as_fd(), path)?;
        let mut seen = BTreeSet::new();
        for (at, &source) in sources.iter().enumerate() {
            let directory = sys::open_directory(self.layer(source)?, path)?;
            for found in sys::list(directory.as_fd())? {
                let name = found.name.into_bytes();
                if !seen.insert(name.clone()) {
                    continue;
                }
                let node = Node::open(directory.as_fd(), &name, BELOW)?;
                if node.is_whiteout()? {
                    continue;
                }
                let below = sources.get(at + 1..).unwrap_or_default();
                self.file(parent.as_fd(), path, &name, &node, (source, below))?;
            }
        }
        Ok(())
    }

    /// Copies one file, or makes a directory that is filled later.
    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        directory: &[u8],
        name: &[u8],
        node: &Node,
        (source, below): (usize, &[usize]),
    ) -> io::Result<()> {
        let path = if directory.is_empty() {
            name.to_vec()
        } else {
            [directory, b"/", name].concat()
        };
        // A socket is of no use without its process.
        let Some(mut entry) = node.entry(path.clone())? else {
            return Ok(());
        };
        let c_name = sys::c_string(name)?;
        let is_linked = entry.kind != Kind::Directory && node.stat.st_nlink > 1;
        let identity = (node.stat.st_dev, node.stat.st_ino);
        if is_linked && let Some(first) = self.links.get(&identity) {
            return sys::link(
                (self.target.as_fd(), &sys::c_string(first)?),
                (parent, &c_name),
            );
        }
        entry.xattrs = node.xattrs(is_wanted)?;
        let made = create(parent, &c_name, &entry)?;
        if entry.kind == Kind::File && entry.size_bytes > 0 {
            self.content(node, made.as_fd(), entry.size_bytes)?;
        }
        describe(made.as_fd(), &entry)?;
        if is_linked {
            self.links.insert(identity, path.clone());
        }
        if entry.kind == Kind::Directory {
            self.times.push((path.clone(), entry.mtime));
            let parts = self.parts(&path, node, source, below)?;
            self.pending.push((path, parts));
        }
        Ok(())
    }

    /// The layers that have a part in a directory which the topmost of them is known to have.
    fn parts(
        &self,
        path: &[u8],
        top: &Node,
        source: usize,
        below: &[usize],
    ) -> io::Result<Vec<usize>> {
        let mut parts = vec![source];
        if is_opaque(top)? {
            return Ok(parts);
        }
        for &layer in below {
            let node = match Node::open(self.layer(layer)?, path, BELOW) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // One of its parents is no directory there.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                    break;
                }
                node => node?,
            };
            if !node.is_directory() {
                break;
            }
            parts.push(layer);
            if is_opaque(&node)? {
                break;
            }
        }
        Ok(parts)
    }

    fn content(&mut self, node: &Node, made: BorrowedFd<'_>, size_bytes: u64) -> io::Result<()> {
        let mut reader = node.reader()?;
        if self.shares_content {
            // SAFETY: FICLONE takes a descriptor as its argument, and both are open.
            let cloned =
                check(unsafe { libc::ioctl(made.as_raw_fd(), libc::FICLONE, reader.as_raw_fd()) });
            match cloned {
                Ok(()) => return Ok(()),
                // Another file system, or one that cannot: so will it be for the next file.
                Err(_) => self.shares_content = false,
            }
        }
        // Allocated less than its length: it has holes.
        let allocated = u64::try_from(node.stat.st_blocks).unwrap_or(0);
        fill(
            made,
            &mut reader,
            allocated.saturating_mul(512) < size_bytes,
        )?;
        Ok(())
    }
}

/// `y` hides what is below; `x` only says that there are whiteouts stored as attributes.
fn is_opaque(directory: &Node) -> io::Result<bool> {
    let marks = directory.xattrs(|name| OPAQUE.iter().any(|mark| mark.to_bytes() == name))?;
    Ok(marks.iter().any(|(_, value)| value == b"y"))
}

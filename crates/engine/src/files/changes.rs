//! What a container has changed of its image's files: `docker diff`, and the layer of a commit.
//!
//! Told by comparing what is seen with the writable layer and without it, so that it does not
//! depend on how overlayfs keeps a change; the writable layer only says where to look.

use super::node::{BELOW, Node};
use super::pack::Pack;
use super::walk::present;
use gamut_image::layer::sys;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// How a file differs from the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is another, or something below it is.
    Modified,
    /// The image does not have it.
    Added,
    /// The container does not have it any more.
    Deleted,
}

/// A file that differs from the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path without the leading slash.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
}

/// Three looks at a container's files.
pub(super) struct Trees<'t> {
    /// The writable layer as it is on disk.
    pub upper: BorrowedFd<'t>,
    /// With the writable layer.
    pub merged: BorrowedFd<'t>,
    /// Without it.
    pub lower: BorrowedFd<'t>,
    /// Overlayfs' marks can be seen in `lower`.
    pub has_lower_marks: bool,
}

/// Mount points that the engine itself makes; they are no changes while nothing is in them.
const ENGINES_OWN: [&[u8]; 11] = [
    b"dev",
    b"dev/console",
    b"dev/mqueue",
    b"dev/pts",
    b"dev/shm",
    b"etc",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
];

/// Attributes of overlayfs that send a directory elsewhere for its content.
const REDIRECTS: [&[u8]; 2] = [b"trusted.overlay.redirect", b"user.overlay.redirect"];

/// A directory being compared.
struct Level {
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Names in the writable layer; `None` where it does not tell.
    touched: Option<BTreeSet<Vec<u8>>>,
    /// Whether the image has the directory, too.
    in_lower: bool,
    /// Its place in the list, for when something below turns out to have changed.
    slot: Option<usize>,
    /// Changes found before it.
    before: usize,
}

/// Compares; parents come before what is in them, names in order.
///
/// # Errors
/// The system's, and `ENAMETOOLONG` for paths that no system call takes.
pub(super) fn changes(trees: &Trees<'_>) -> io::Result<Vec<Change>> {
    let mut comparison = Comparison {
        trees,
        found: Vec::new(),
        count: 0,
    };
    let mut levels = vec![comparison.enter(Vec::new(), true, true, None)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            if let Some(level) = levels.pop() {
                comparison.leave(&level);
            }
            continue;
        };
        let path = joined(&level.path, &name);
        let is_touched = level
            .touched
            .as_ref()
            .is_none_or(|touched| touched.contains(&name));
        let (in_lower, is_guided) = (level.in_lower, level.touched.is_some());
        if let Some(deeper) = comparison.compare(path, in_lower, is_touched, is_guided)? {
            levels.push(deeper);
        }
    }
    Ok(comparison.found.into_iter().flatten().collect())
}

struct Comparison<'c> {
    trees: &'c Trees<'c>,
    /// Changes, and places of directories that may become some.
    found: Vec<Option<Change>>,
    /// How many of `found` are changes.
    count: usize,
}

impl Comparison<'_> {
    /// Begins a directory that the container has.
    fn enter(
        &mut self,
        path: Vec<u8>,
        in_lower: bool,
        is_guided: bool,
        slot: Option<usize>,
    ) -> io::Result<Level> {
        let mut names: BTreeSet<Vec<u8>> = names_in(self.trees.merged, &path)?;
        if in_lower {
            names.extend(names_in(self.trees.lower, &path)?);
        }
        let touched = if is_guided && !is_redirected(self.trees.upper, &path)? {
            Some(names_in(self.trees.upper, &path)?)
        } else {
            None
        };
        if let Some(touched) = &touched {
            // In an opaque directory everything of the image's has gone without a trace by name.
            let merged = names_in(self.trees.merged, &path)?;
            names.retain(|name| touched.contains(name) || !merged.contains(name));
        }
        Ok(Level {
            path,
            names: names.into_iter().collect::<Vec<_>>().into_iter(),
            touched,
            in_lower,
            slot,
            before: self.count,
        })
    }

    /// Compares one path; returns the directory to go on in.
    fn compare(
        &mut self,
        path: Vec<u8>,
        in_lower: bool,
        is_touched: bool,
        is_guided: bool,
    ) -> io::Result<Option<Level>> {
        let merged = present(Node::open(self.trees.merged, &path, BELOW))?;
        let lower = if in_lower {
            present(Node::open(self.trees.lower, &path, BELOW))?
        } else {
            None
        };
        let lower = match lower {
            Some(node) if self.trees.has_lower_marks && node.is_whiteout()? => None,
            lower => lower,
        };
        let Some(merged) = merged else {
            if lower.is_some() {
                self.add(path, ChangeKind::Deleted);
            }
            return Ok(None);
        };
        let is_directory = merged.is_directory();
        let is_guided = is_guided && is_touched;
        let is_own = ENGINES_OWN.contains(&path.as_slice());
        match lower {
            None if is_own && is_directory => {
                let slot = self.reserve();
                self.enter(path, false, is_guided, Some(slot)).map(Some)
            }
            None if is_own && merged.kind() == libc::S_IFREG && merged.size_bytes() == 0 => {
                Ok(None)
            }
            None => {
                self.add(path.clone(), ChangeKind::Added);
                self.deeper(is_directory, path, false, is_guided)
            }
            Some(lower) if is_directory && lower.is_directory() => {
                if differs(&merged, &lower)? {
                    self.add(path.clone(), ChangeKind::Modified);
                    return self.enter(path, true, is_guided, None).map(Some);
                }
                let slot = self.reserve();
                self.enter(path, true, is_guided, Some(slot)).map(Some)
            }
            Some(lower) => {
                if differs(&merged, &lower)? {
                    self.add(path.clone(), ChangeKind::Modified);
                }
                self.deeper(is_directory, path, false, is_guided)
            }
        }
    }

    fn deeper(
        &mut self,
        is_directory: bool,
        path: Vec<u8>,
        in_lower: bool,
        is_guided: bool,
    ) -> io::Result<Option<Level>> {
        if !is_directory {
            return Ok(None);
        }
        self.enter(path, in_lower, is_guided, None).map(Some)
    }

    fn add(&mut self, path: Vec<u8>, kind: ChangeKind) {
        self.count += 1;
        self.found.push(Some(Change { path, kind }));
    }

    fn reserve(&mut self) -> usize {
        self.found.push(None);
        self.found.len() - 1
    }

    /// Ends a directory: it has changed if something in it has.
    fn leave(&mut self, level: &Level) {
        let Some(slot) = level.slot else {
            return;
        };
        if self.count == level.before {
            return;
        }
        let kind = if level.in_lower {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        if let Some(place) = self.found.get_mut(slot) {
            self.count += 1;
            *place = Some(Change {
                path: level.path.clone(),
                kind,
            });
        }
    }
}

/// Writes changes as a layer: what there is, and a whiteout for what has gone. Says whether there
/// was anything.
///
/// # Errors
/// The system's, and the output's.
pub(super) fn pack_changes(
    merged: BorrowedFd<'_>,
    changes: &[Change],
    output: &mut dyn Write,
) -> io::Result<bool> {
    let mut pack = Pack::new(output);
    let mut is_empty = true;
    for change in changes {
        let (parent, name) = match change.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => change.path.split_at(slash + 1),
            None => (&b""[..], change.path.as_slice()),
        };
        if name.starts_with(b".wh.") {
            // In a layer it would mean something else.
            tracing::warn!(path = %change.path.escape_ascii(), "a file is left out of a layer: its name is a whiteout's");
            continue;
        }
        is_empty = false;
        if change.kind == ChangeKind::Deleted {
            pack.whiteout([parent, b".wh.", name].concat())?;
            continue;
        }
        // What has gone since was there when it was looked for; the next layer may say so.
        let Some(node) = present(Node::open(merged, &change.path, BELOW))? else {
            continue;
        };
        let mut path = change.path.clone();
        if node.is_directory() {
            path.push(b'/');
        }
        pack.append(path, &node)?;
    }
    pack.finish()?;
    Ok(!is_empty)
}

/// Whether two files differ in what an image keeps of them. A directory's time says nothing: it
/// changes with what is in it.
fn differs(one: &Node, other: &Node) -> io::Result<bool> {
    let (a, b) = (&one.stat, &other.stat);
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev) {
        return Ok(true);
    }
    let times = (a.st_mtime, a.st_mtime_nsec) != (b.st_mtime, b.st_mtime_nsec);
    // A further name for a file of the image: both have to be in the layer to stay one file.
    let links = a.st_nlink != b.st_nlink;
    if !one.is_directory() && (times || links || a.st_size != b.st_size) {
        return Ok(true);
    }
    let sorted = |node: &Node| -> io::Result<_> {
        let mut xattrs = node.xattrs(super::pack::is_kept)?;
        xattrs.sort();
        Ok(xattrs)
    };
    Ok(sorted(one)? != sorted(other)?)
}

fn is_redirected(upper: BorrowedFd<'_>, path: &[u8]) -> io::Result<bool> {
    let Some(node) = present(Node::open(upper, path, BELOW))? else {
        return Ok(true);
    };
    Ok(!node.xattrs(|name| REDIRECTS.contains(&name))?.is_empty())
}

/// The names in a directory; none if it is not there or is something else.
fn names_in(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<BTreeSet<Vec<u8>>> {
    let Some(directory) = present(Node::open_directory(root, path, BELOW))? else {
        return Ok(BTreeSet::new());
    };
    let directory = sys::openat2(directory.fd.as_fd(), c".", sys::DIRECTORY, sys::BENEATH)?;
    Ok(sys::list(directory.as_fd())?
        .into_iter()
        .map(|found| found.name.into_bytes())
        .collect())
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, b"/", name].concat()
}

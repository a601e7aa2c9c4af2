//! Unpacks a tar archive into a directory of a container.
//!
//! Parents are resolved as a process inside would, following links within the root; the last
//! component never. A file is always made new, under a descriptor of its directory, and gets its
//! metadata through its own descriptor.

use super::create::{create, describe, fill, kind_of, set_time};
use super::node::{BELOW, IN_ROOT, Node};
use super::path::clean;
use crate::error::{Error, Result};
use gamut_image::layer::{remove_tree_at, sys};
use gamut_image::tar::{Entry, Kind, Limits, ReadError, Reader, Timestamp};
use gamut_spec::error::ErrorKind;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// How to unpack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Refuse to put a directory in place of something else, or something else in place of one.
    pub keep_kind: bool,
    /// Give everything to this user and group instead of what the archive says.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks `input` (plain, gzip or zstd) into the directory `base`, a clean path below `root`.
///
/// Entries: `..` is worked out as text and may not lead out of the directory; `.`, the directory
/// itself, is left as it is; directories are merged; anything else replaces what was there.
///
/// # Errors
/// `InvalidArgument` for a damaged archive or names that lead out, `Forbidden` where the target
/// is read-only; what came before in the archive stays.
pub(super) fn extract(
    root: BorrowedFd<'_>,
    base: &[u8],
    input: &mut (dyn Read + Send),
    options: Options,
) -> Result<()> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidData => {
            Error::invalid(format!("the archive cannot be read: {source}"))
        }
        _ => Error::system("read the archive", source),
    };
    let plain = gamut_image::decompressed(input).map_err(unreadable)?;
    let mut reader = Reader::new(plain, Limits::default());
    let mut extraction = Extraction {
        root,
        base,
        options,
        parent: None,
        times: Vec::new(),
    };
    loop {
        let entry = reader.next_entry().map_err(|error| match error {
            ReadError::Archive(error) => Error::invalid(error.to_string()),
            ReadError::Io(source) => unreadable(source),
        })?;
        let Some(entry) = entry else { break };
        extraction.apply(entry, &mut reader)?;
    }
    extraction.finish();
    Ok(())
}

struct Extraction<'a> {
    root: BorrowedFd<'a>,
    base: &'a [u8],
    options: Options,
    /// The last parent, by its name below the base: archives go directory by directory.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories whose time is set when their content is there.
    times: Vec<(Vec<u8>, Timestamp)>,
}

/// Why an entry could not be unpacked.
fn failed(path: &[u8]) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| {
        let path = path.escape_ascii();
        match source.raw_os_error() {
            Some(libc::EROFS) => Error::new(
                ErrorKind::Forbidden,
                format!("cannot unpack {path}: the file system or volume is marked read-only"),
            ),
            Some(libc::ENAMETOOLONG | libc::ELOOP | libc::ENOTDIR) => {
                Error::invalid(format!("cannot unpack {path}: {source}"))
            }
            _ if source.kind() == io::ErrorKind::InvalidData => {
                Error::invalid(format!("the archive cannot be read at {path}: {source}"))
            }
            _ => Error::system(format!("unpack {path}"), source),
        }
    }
}

impl Extraction<'_> {
    fn apply(&mut self, mut entry: Entry, content: &mut dyn Read) -> Result<()> {
        let path = inside(&entry.path)?;
        if path.is_empty() {
            return if entry.kind == Kind::Directory {
                Ok(())
            } else {
                Err(Error::invalid("the archive's root is not a directory"))
            };
        }
        if let Kind::Other(flag) = entry.kind {
            return Err(Error::invalid(format!(
                "cannot unpack {}: unknown kind of file ({})",
                path.escape_ascii(),
                [flag].escape_ascii()
            )));
        }
        if let Some((uid, gid)) = self.options.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let kind = entry.kind;
        entry.xattrs.retain(|(name, _)| {
            let has_user = matches!(kind, Kind::File | Kind::Directory);
            name == b"security.capability"
                || (has_user && name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        });
        let (named, name) = split(&path);
        let parent = self.parent(named).map_err(failed(&path))?;
        let name = sys::c_string(name).map_err(failed(&path))?;
        if let Some(directory) = self.make_room(&parent, &name, &path, entry.kind)? {
            // Directories are merged.
            describe(directory.as_fd(), &entry).map_err(failed(&path))?;
            self.times.push((path, entry.mtime));
            return Ok(());
        }
        if entry.kind == Kind::HardLink {
            return self.hard_link(&entry, &parent, &name, &path);
        }
        let made = create(parent.as_fd(), &name, &entry).map_err(failed(&path))?;
        if entry.kind == Kind::File {
            fill(made.as_fd(), content, entry.sparse).map_err(failed(&path))?;
        }
        describe(made.as_fd(), &entry).map_err(failed(&path))?;
        if entry.kind == Kind::Directory {
            self.times.push((path, entry.mtime));
        }
        Ok(())
    }

    /// A path below the base as one below the root.
    fn below_root(&self, path: &[u8]) -> Vec<u8> {
        match (self.base, path) {
            (b"", path) => path.to_vec(),
            (base, b"") => base.to_vec(),
            (base, path) => [base, b"/", path].concat(),
        }
    }

    /// Opens a directory below the base, making what is missing.
    fn parent(&mut self, named: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if let Some((known, parent)) = &self.parent
            && known == named
        {
            return Ok(Rc::clone(parent));
        }
        let parent = match self.open(named) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_parents(named)?,
            opened => opened?,
        };
        let parent = Rc::new(parent);
        self.parent = Some((named.to_vec(), Rc::clone(&parent)));
        Ok(parent)
    }

    fn open(&self, named: &[u8]) -> io::Result<OwnedFd> {
        Ok(Node::open_directory(self.root, &self.below_root(named), IN_ROOT)?.fd)
    }

    fn make_parents(&self, named: &[u8]) -> io::Result<OwnedFd> {
        let mut current = self.open(b"")?;
        let ends = named
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([named.len()]) {
            current = match self.open(&named[..end]) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut entry = Entry::new(&named[..end], Kind::Directory, 0o755);
                    (entry.uid, entry.gid) = self.options.owner.unwrap_or_default();
                    let name = sys::c_string(&named[start..end])?;
                    let made = create(current.as_fd(), &name, &entry)?;
                    entry.mtime = now();
                    describe(made.as_fd(), &entry)?;
                    made
                }
                opened => opened?,
            };
            start = end + 1;
        }
        Ok(current)
    }

    /// Removes what is in the way. A directory that is to be merged with is opened instead.
    fn make_room(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        path: &[u8],
        kind: Kind,
    ) -> Result<Option<OwnedFd>> {
        let found = match Node::open(parent.as_fd(), name.to_bytes(), BELOW) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(failed(path))?,
        };
        let becomes_directory = kind_of(kind) == libc::S_IFDIR;
        match (found.is_directory(), becomes_directory) {
            (true, true) => return Ok(Some(found.fd)),
            (true, false) if self.options.keep_kind => {
                return Err(Error::invalid(format!(
                    "cannot overwrite directory \"/{}\" with non-directory \"{}\"",
                    self.below_root(path).escape_ascii(),
                    path.escape_ascii()
                )));
            }
            (false, true) if self.options.keep_kind => {
                return Err(Error::invalid(format!(
                    "cannot overwrite non-directory \"/{}\" with directory \"{}\"",
                    self.below_root(path).escape_ascii(),
                    path.escape_ascii()
                )));
            }
            _ => {}
        }
        // Mounts of another namespace do not protect their mount points: without this check the
        // container would lose the mount.
        let around = Node::open_directory(parent.as_fd(), b"", BELOW).map_err(failed(path))?;
        let mounts = (around.mount_id(), found.mount_id());
        if mounts.0.map_err(failed(path))? != mounts.1.map_err(failed(path))? {
            return Err(Error::conflict(format!(
                "cannot replace /{}: something is mounted there; write to it from inside the \
                 container",
                self.below_root(path).escape_ascii()
            )));
        }
        // A parent that is open may be what goes, or lead through it.
        self.parent = None;
        remove_tree_at(parent.as_fd(), name).map_err(failed(path))?;
        Ok(None)
    }

    /// A further name of a file below the base. Its metadata is the file's.
    fn hard_link(
        &self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &CString,
        path: &[u8],
    ) -> Result<()> {
        let target = inside(&entry.link)?;
        let (named, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(Error::invalid(format!(
                "cannot unpack {}: hard link to a directory",
                path.escape_ascii()
            )));
        }
        let link = || -> io::Result<()> {
            let directory = self.open(named)?;
            sys::link(
                (directory.as_fd(), &sys::c_string(target_name)?),
                (parent.as_fd(), name),
            )
        };
        link().map_err(failed(path))
    }

    /// Sets the times of directories, deepest first.
    fn finish(self) {
        for (path, time) in self.times.iter().rev() {
            let (named, name) = split(path);
            let set = self
                .open(named)
                .and_then(|parent| Node::open(parent.as_fd(), name, BELOW))
                .and_then(|node| set_time(node.fd.as_fd(), *time));
            if let Err(error) = set {
                // Removed or replaced since: by the archive itself or by the container.
                tracing::debug!(path = %path.escape_ascii(), %error, "the time of a directory is not set");
            }
        }
    }
}

fn now() -> Timestamp {
    let now = gamut_spec::time::now_ns();
    Timestamp {
        seconds: i64::try_from(now / 1_000_000_000).unwrap_or(0),
        nanoseconds: u32::try_from(now % 1_000_000_000).unwrap_or(0),
    }
}

/// Parent and last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// A name of the archive, cleaned; one that leads out of the archive's root is refused.
fn inside(path: &[u8]) -> Result<Vec<u8>> {
    let mut depth = 0u32;
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => {
                return Err(Error::invalid(format!(
                    "the archive has a name that leads out of it: {}",
                    path.escape_ascii()
                )));
            }
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    Ok(clean(path))
}

//! The layer's own tree: finding and making directories beneath the target.

use super::whiteout;
use super::{Error, ExtractOptions, sys};
use crate::tar::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Directories kept open. Archives go depth first, so few are enough.
const MAX_CACHED: usize = 16;

/// Symbolic links followed for one name before it is taken for a loop, as in the kernel.
const MAX_LINKS: u32 = 40;

/// An open directory of the layer.
#[derive(Debug)]
pub(super) struct Directory {
    pub fd: OwnedFd,
    /// Where it really is, links resolved; empty for the root.
    pub path: Vec<u8>,
}

impl Directory {
    /// Path of a file in it.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        joined(&self.path, name)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// What must still be done to a directory when all of its content is there.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// Made without an entry of its own.
    pub implied: bool,
    /// Time to set.
    pub mtime: Option<Timestamp>,
    /// Mode to set, where it is in the way before: without rwx an owner who is not root locks
    /// itself out, with setgid new files do not get our group.
    pub mode: Option<u32>,
}

/// What to do about a directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Report,
}

/// The tree being made.
pub(super) struct Tree {
    pub root: Rc<Directory>,
    /// Most recently used first: path as the archive has it, and the directory.
    cache: Vec<(Vec<u8>, Rc<Directory>)>,
    /// Every directory made, by its real path.
    pub directories: BTreeMap<Vec<u8>, Late>,
    pub whiteouts: whiteout::Marks,
}

impl Tree {
    pub fn new(root: OwnedFd, options: &ExtractOptions) -> Result<Self, Error> {
        // The target may be made under any umask and in a setgid directory.
        let (uid, gid) = sys::effective_ids();
        sys::fchown(root.as_fd(), uid, gid).map_err(Error::io("set the owner of", b""))?;
        sys::fchmod(root.as_fd(), 0o755).map_err(Error::io("set the mode of", b""))?;
        let root = Directory {
            fd: root,
            path: Vec::new(),
        };
        let mut directories = BTreeMap::new();
        directories.insert(
            Vec::new(),
            Late {
                implied: true,
                ..Late::default()
            },
        );
        Ok(Self {
            root: Rc::new(root),
            cache: Vec::with_capacity(MAX_CACHED),
            directories,
            whiteouts: whiteout::Marks::new(options),
        })
    }

    /// Opens the directory that an entry's parents name, making what is missing.
    /// `named` has no empty, `.` or `..` components; `entry` is for messages.
    pub fn parent(&mut self, named: &[u8], entry: &[u8]) -> Result<Rc<Directory>, Error> {
        if named.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(at) = self.cache.iter().position(|(path, _)| path == named) {
            self.cache[..=at].rotate_right(1);
            return Ok(Rc::clone(&self.cache[0].1));
        }
        let directory = match sys::open_directory(self.root.fd(), named) {
            Ok(fd) => Rc::new(Directory {
                fd,
                path: named.to_vec(),
            }),
            Err(error) if needs_walk(&error) => self
                .walk(named, Missing::Make, entry)?
                .ok_or_else(|| gone(entry))?,
            Err(error) => return Err(Error::io("open the parent of", entry)(error)),
        };
        self.remember(named.to_vec(), &directory);
        Ok(directory)
    }

    /// Like [`Self::parent`], but makes nothing: `None` if the directory is not there.
    pub fn find(&mut self, named: &[u8], entry: &[u8]) -> Result<Option<Rc<Directory>>, Error> {
        if named.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        if let Some((_, directory)) = self.cache.iter().find(|(path, _)| path == named) {
            return Ok(Some(Rc::clone(directory)));
        }
        self.walk(named, Missing::Report, entry)
    }

    /// Keeps a directory open for the entries that follow.
    pub fn remember(&mut self, named: Vec<u8>, directory: &Rc<Directory>) {
        self.cache.truncate(MAX_CACHED - 1);
        self.cache.insert(0, (named, Rc::clone(directory)));
    }

    /// Opens the directory component by component: follows symbolic links inside the layer as in
    /// a chroot, and makes what is missing.
    fn walk(
        &mut self,
        named: &[u8],
        missing: Missing,
        entry: &[u8],
    ) -> Result<Option<Rc<Directory>>, Error> {
        let mut current = Rc::clone(&self.root);
        let mut ahead: VecDeque<Vec<u8>> = components(named).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                // Only from a link's target: the parent by its real path, or the root again.
                let end = current
                    .path
                    .iter()
                    .rposition(|&byte| byte == b'/')
                    .unwrap_or(0);
                let path = current.path.get(..end).unwrap_or_default().to_vec();
                let fd = sys::open_directory(self.root.fd(), &path)
                    .map_err(Error::io("open the parent of", entry))?;
                current = Rc::new(Directory { fd, path });
                continue;
            }
            let c_name = sys::c_string(&name).map_err(Error::io("open the parent of", entry))?;
            let error = match sys::openat2(current.fd(), &c_name, sys::DIRECTORY, sys::BENEATH) {
                Ok(fd) => {
                    let path = current.join(&name);
                    current = Rc::new(Directory { fd, path });
                    continue;
                }
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::NotFound {
                if missing == Missing::Report {
                    return Ok(None);
                }
                current = self.make_implied(&current, &name, entry)?;
                continue;
            }
            if !needs_walk(&error) {
                return Err(Error::io("open the parent of", entry)(error));
            }
            let stat = sys::lstat(current.fd(), &c_name)
                .map_err(Error::io("look at the parent of", entry))?;
            if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::refused(
                        entry,
                        "its parents are a loop of symbolic links",
                    ));
                }
                let target = sys::readlink(current.fd(), &c_name)
                    .map_err(Error::io("read a symbolic link above", entry))?;
                if target.first() == Some(&b'/') {
                    current = Rc::clone(&self.root);
                }
                for component in components(&target).rev().filter(|&part| part != b".") {
                    ahead.push_front(component.to_vec());
                }
            } else if missing == Missing::Report {
                return Ok(None);
            } else if self.whiteouts.is_whiteout(&current, &name) {
                // The lower one stays hidden: this layer's directory is new.
                self.whiteouts.remove(&current, &name, entry)?;
                let made = self.make_implied(&current, &name, entry)?;
                self.whiteouts.make_opaque(&made, entry)?;
                if let Some(late) = self.directories.get_mut(&made.path) {
                    late.implied = false;
                }
                current = made;
            } else {
                return Err(Error::refused(
                    entry,
                    "one of its parents is not a directory",
                ));
            }
        }
        Ok(Some(current))
    }

    fn make_implied(
        &mut self,
        parent: &Directory,
        name: &[u8],
        entry: &[u8],
    ) -> Result<Rc<Directory>, Error> {
        let failed = || Error::io("make the parent of", entry);
        let c_name = sys::c_string(name).map_err(failed())?;
        sys::mkdir(parent.fd(), &c_name, 0o755).map_err(failed())?;
        let fd =
            sys::openat2(parent.fd(), &c_name, sys::DIRECTORY, sys::BENEATH).map_err(failed())?;
        sys::fchmod(fd.as_fd(), 0o755).map_err(failed())?;
        let path = parent.join(name);
        self.directories.insert(
            path.clone(),
            Late {
                implied: true,
                ..Late::default()
            },
        );
        Ok(Rc::new(Directory { fd, path }))
    }

    /// Makes room for a new file: removes what has its name. A whiteout that stood there is told
    /// by `true`.
    pub fn make_room(
        &mut self,
        parent: &Directory,
        name: &[u8],
        entry: &[u8],
    ) -> Result<bool, Error> {
        let failed = || Error::io("replace", entry);
        let c_name = sys::c_string(name).map_err(failed())?;
        let stat = match sys::lstat(parent.fd(), &c_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            stat => stat.map_err(failed())?,
        };
        if self.whiteouts.is_whiteout(parent, name) {
            self.whiteouts.remove(parent, name, entry)?;
            return Ok(true);
        }
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                self.cache.clear();
                let path = parent.join(name);
                super::remove_tree_at(parent.fd(), &c_name).map_err(failed())?;
                self.forget(&path);
            }
            kind => {
                if kind == libc::S_IFLNK {
                    // Cached names may lead through it.
                    self.cache.clear();
                }
                sys::unlink(parent.fd(), &c_name, 0).map_err(failed())?;
            }
        }
        Ok(false)
    }

    /// Forgets a directory and all below it.
    fn forget(&mut self, path: &[u8]) {
        let mut below = path.to_vec();
        below.push(b'/');
        self.whiteouts.forget(path, &below);
        self.directories.remove(path);
        let gone: Vec<_> = self
            .directories
            .range(below.clone()..)
            .take_while(|(path, _)| path.starts_with(&below))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.directories.remove(&path);
        }
    }

    /// Sets what had to wait until the directories are complete.
    pub fn finish(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let mut implied = Vec::new();
        // Deepest first: a mode may lock us out of what is below.
        for (path, late) in std::mem::take(&mut self.directories).into_iter().rev() {
            if late.mtime.is_some() || late.mode.is_some() {
                let failed = || Error::io("set the time of", &path);
                let fd = sys::open_directory(self.root.fd(), &path).map_err(failed())?;
                if let Some(mode) = late.mode {
                    sys::fchmod(fd.as_fd(), mode).map_err(failed())?;
                }
                if let Some(mtime) = late.mtime {
                    sys::fset_times(fd.as_fd(), mtime.seconds, mtime.nanoseconds)
                        .map_err(failed())?;
                }
            }
            if late.implied {
                implied.push(path);
            }
        }
        implied.reverse();
        Ok(implied)
    }
}

/// Components of a path that are not empty.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|component| !component.is_empty())
}

/// A directory that was just made is not there: somebody else works in the target.
fn gone(entry: &[u8]) -> Error {
    Error::io("open the parent of", entry)(io::Error::from_raw_os_error(libc::ENOENT))
}

/// Whether the path exists otherwise than as plain directories.
fn needs_walk(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ELOOP | libc::ENOTDIR)
    )
}

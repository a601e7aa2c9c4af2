//! Owner, mode, attributes and times, in the order the kernel needs: a change of owner clears
//! setuid bits and capabilities, and a write or an attribute changes the time.

use super::{Error, MAX_SKIPPED, MissingOwners, sys};
use crate::tar::{Entry, Kind};
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

/// What a new file of this process belongs to, and what could not be stored.
#[derive(Debug)]
pub(super) struct Metadata {
    own_ids: (u32, u32),
    missing_owners: MissingOwners,
    pub skipped: Vec<String>,
}

impl Metadata {
    pub fn new(missing_owners: MissingOwners) -> Self {
        Self {
            own_ids: sys::effective_ids(),
            missing_owners,
            skipped: Vec::new(),
        }
    }

    /// Notes what could not be stored.
    pub fn skip(&mut self, what: impl FnOnce() -> String) {
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.push(what());
        }
    }

    /// Sets owner, mode and attributes of an open file or directory. `is_new` says that it was
    /// just made and has our ids.
    pub fn set_open(
        &mut self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        mode: u32,
        is_new: bool,
    ) -> Result<(), Error> {
        if !is_new || (entry.uid, entry.gid) != self.own_ids {
            let set = sys::fchown(fd, entry.uid, entry.gid);
            self.owner_set(entry, set)?;
        }
        sys::fchmod(fd, mode).map_err(Error::io("set the mode of", &entry.path))?;
        for (name, value) in &entry.xattrs {
            self.set_xattr(entry, name, |name| sys::fset_xattr(fd, name, value))?;
        }
        Ok(())
    }

    /// Sets everything of a link, device or pipe that was just made.
    pub fn set_named(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        entry: &Entry,
    ) -> Result<(), Error> {
        if (entry.uid, entry.gid) != self.own_ids {
            let set = sys::chown(directory, name, entry.uid, entry.gid);
            self.owner_set(entry, set)?;
        }
        if entry.kind != Kind::Symlink {
            sys::chmod(directory, name, entry.mode)
                .map_err(Error::io("set the mode of", &entry.path))?;
        }
        for (key, value) in &entry.xattrs {
            self.set_xattr(entry, key, |key| {
                sys::set_xattr(directory, name, key, value)
            })?;
        }
        sys::set_times(
            directory,
            name,
            entry.mtime.seconds,
            entry.mtime.nanoseconds,
        )
        .map_err(Error::io("set the time of", &entry.path))
    }

    /// chown(2) knows only ids that exist in the user namespace.
    fn owner_set(&mut self, entry: &Entry, outcome: io::Result<()>) -> Result<(), Error> {
        let owner = || format!("{}:{}", entry.uid, entry.gid);
        match outcome {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let path = super::shown(&entry.path);
                match self.missing_owners {
                    MissingOwners::Refuse => Err(Error::MissingOwner {
                        path,
                        owner: owner(),
                    }),
                    MissingOwners::Own => {
                        self.skip(|| format!("owner {} of {path}: does not exist here", owner()));
                        Ok(())
                    }
                }
            }
            outcome => outcome.map_err(Error::io("set the owner of", &entry.path)),
        }
    }

    fn set_xattr(
        &mut self,
        entry: &Entry,
        name: &[u8],
        set: impl FnOnce(&CStr) -> io::Result<()>,
    ) -> Result<(), Error> {
        let why = if is_kept(name, entry.kind) {
            let c_name =
                sys::c_string(name).map_err(Error::io("set an attribute of", &entry.path))?;
            match set(&c_name) {
                Ok(()) => return Ok(()),
                Err(error) if is_unsupported(&error) => error.to_string(),
                Err(error) => return Err(Error::io("set an attribute of", &entry.path)(error)),
            }
        } else {
            "not an image's to set".to_owned()
        };
        self.skip(|| {
            let (name, path) = (super::shown(name), super::shown(&entry.path));
            format!("attribute {name} of {path}: {why}")
        });
        Ok(())
    }
}

/// Attributes that an image may set. overlayfs' own would forge its metadata; labels of the
/// host's security modules are the host's.
fn is_kept(name: &[u8], kind: Kind) -> bool {
    // The kernel has user attributes for these two only.
    let has_user = matches!(kind, Kind::File | Kind::Directory);
    name == b"security.capability"
        || (has_user && name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EPERM | libc::EINVAL)
    )
}

//! Whiteouts and opaque directories in overlayfs' format.

use super::tree::Directory;
use super::{Error, ExtractOptions, OverlayXattrs, Whiteouts, sys};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Names of overlayfs' attributes.
struct Names {
    opaque: &'static CStr,
    whiteout: &'static CStr,
}

const TRUSTED: Names = Names {
    opaque: c"trusted.overlay.opaque",
    whiteout: c"trusted.overlay.whiteout",
};
const USER: Names = Names {
    opaque: c"user.overlay.opaque",
    whiteout: c"user.overlay.whiteout",
};

/// Sets and knows overlayfs' marks in the layer.
pub(super) struct Marks {
    names: &'static Names,
    /// Whether mknod(2) of whiteouts is wanted, and permitted as far as is known.
    prefer_device: bool,
    /// Whiteouts made: directory and name.
    whiteouts: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Opaque directories.
    opaque_directories: BTreeSet<Vec<u8>>,
}

impl Marks {
    pub fn new(options: &ExtractOptions) -> Self {
        let names = match options.overlay_xattrs {
            OverlayXattrs::Trusted => &TRUSTED,
            OverlayXattrs::User => &USER,
        };
        Self {
            names,
            prefer_device: options.whiteouts == Whiteouts::Device,
            whiteouts: BTreeSet::new(),
            opaque_directories: BTreeSet::new(),
        }
    }

    /// Hides `name` of the layers below; nothing of that name may be in this layer.
    pub fn hide(&mut self, parent: &Directory, name: &[u8], entry: &[u8]) -> Result<(), Error> {
        let failed = || Error::io("make whiteout", entry);
        if self.opaque_directories.contains(&parent.path) {
            // All below is hidden already, and overlayfs lists an opaque directory as it is: the
            // whiteout would be seen.
            return Ok(());
        }
        let c_name = sys::c_string(name).map_err(failed())?;
        if self.prefer_device {
            match sys::mknod(parent.fd(), &c_name, libc::S_IFCHR, (0, 0)) {
                // Not allowed in this user namespace: attributes from here on.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    self.prefer_device = false;
                }
                result => result.map_err(failed())?,
            }
        }
        if !self.prefer_device {
            let file = sys::create_file(parent.fd(), &c_name).map_err(failed())?;
            self.set(file.as_fd(), |names| names.whiteout, b"y")
                .and_then(|()| self.set(parent.fd(), |names| names.opaque, b"x"))
                .map_err(failed())?;
        }
        self.whiteouts.insert((parent.path.clone(), name.to_vec()));
        Ok(())
    }

    /// Hides all that the layers below have in the directory.
    pub fn make_opaque(&mut self, directory: &Directory, entry: &[u8]) -> Result<(), Error> {
        let failed = || Error::io("make opaque directory", entry);
        if !self.opaque_directories.insert(directory.path.clone()) {
            return Ok(());
        }
        let first = (directory.path.clone(), Vec::new());
        let moot: Vec<_> = self
            .whiteouts
            .range(first..)
            .take_while(|(path, _)| *path == directory.path)
            .cloned()
            .collect();
        for whiteout in moot {
            let name = sys::c_string(&whiteout.1).map_err(failed())?;
            sys::unlink(directory.fd(), &name, 0).map_err(failed())?;
            self.whiteouts.remove(&whiteout);
        }
        self.set(directory.fd(), |names| names.opaque, b"y")
            .map_err(failed())
    }

    /// Sets a mark. A layer that is itself on an overlayfs takes its own kind of mark from Linux
    /// 6.7 on only (overlayfs.rst, "Nested overlayfs mounts"); before, those of `user.` do for
    /// whoever puts layers together by copying.
    fn set(
        &mut self,
        fd: BorrowedFd<'_>,
        name: fn(&Names) -> &'static CStr,
        value: &[u8],
    ) -> io::Result<()> {
        match sys::fset_xattr(fd, name(self.names), value) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.names = &USER;
                sys::fset_xattr(fd, name(self.names), value)
            }
            set => set,
        }
    }

    /// Whether a file of this layer is a whiteout.
    pub fn is_whiteout(&self, parent: &Directory, name: &[u8]) -> bool {
        !self.whiteouts.is_empty()
            && self
                .whiteouts
                .contains(&(parent.path.clone(), name.to_vec()))
    }

    /// Removes a whiteout.
    pub fn remove(&mut self, parent: &Directory, name: &[u8], entry: &[u8]) -> Result<(), Error> {
        let failed = || Error::io("replace whiteout", entry);
        self.whiteouts.remove(&(parent.path.clone(), name.to_vec()));
        let name = sys::c_string(name).map_err(failed())?;
        match sys::unlink(parent.fd(), &name, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(failed()),
        }
    }

    /// Forgets what is in a directory that was removed; `below` is its path and a slash.
    pub fn forget(&mut self, path: &[u8], below: &[u8]) {
        for start in [path, below] {
            let inside = |directory: &[u8]| directory == path || directory.starts_with(below);
            let gone: Vec<_> = self
                .whiteouts
                .range((start.to_vec(), Vec::new())..)
                .take_while(|(directory, _)| inside(directory))
                .cloned()
                .collect();
            for whiteout in gone {
                self.whiteouts.remove(&whiteout);
            }
            let gone: Vec<_> = self
                .opaque_directories
                .range(start.to_vec()..)
                .take_while(|directory| inside(directory))
                .cloned()
                .collect();
            for directory in gone {
                self.opaque_directories.remove(&directory);
            }
        }
    }
}

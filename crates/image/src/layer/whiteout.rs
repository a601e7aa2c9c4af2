//! Whiteouts and opaque directories in overlayfs' format.

use super::tree::Directory;
use super::{Error, ExtractOptions, OverlayXattrs, Whiteouts, sys};
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

/// Sets and knows overlayfs' marks in the layer.
pub(super) struct Marks {
    opaque: &'static CStr,
    whiteout: &'static CStr,
    /// Whether mknod(2) of whiteouts is wanted, and permitted as far as is known.
    prefer_device: bool,
    /// Whiteouts made: directory and name.
    whiteouts: BTreeSet<(Vec<u8>, Vec<u8>)>,
    /// Opaque directories.
    opaque_directories: BTreeSet<Vec<u8>>,
}

impl Marks {
    pub fn new(options: &ExtractOptions) -> Self {
        let (opaque, whiteout) = match options.overlay_xattrs {
            OverlayXattrs::Trusted => (c"trusted.overlay.opaque", c"trusted.overlay.whiteout"),
            OverlayXattrs::User => (c"user.overlay.opaque", c"user.overlay.whiteout"),
        };
        Self {
            opaque,
            whiteout,
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
            sys::fset_xattr(file.as_fd(), self.whiteout, b"y").map_err(failed())?;
            sys::fset_xattr(parent.fd(), self.opaque, b"x").map_err(failed())?;
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
        sys::fset_xattr(directory.fd(), self.opaque, b"y").map_err(failed())
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

//! Paths of /proc and /sys that a container may not see, or may only read.

use crate::error::{Context, Error};
use crate::path::RootDirectory;
use crate::sys::{self, Errno, FilesystemContext, SysResult};
use std::os::fd::{AsFd, OwnedFd};

/// One detached mount shown at several places: the first takes the mount itself, the others
/// copies of it, which older kernels only make of attached mounts.
struct Stencil {
    mount: OwnedFd,
    attached: bool,
}

impl Stencil {
    fn attach(&mut self, target: &OwnedFd) -> SysResult<()> {
        if self.attached {
            let copy = sys::clone_tree(self.mount.as_fd(), c"", false)?;
            return sys::move_mount(copy.as_fd(), target.as_fd());
        }
        sys::move_mount(self.mount.as_fd(), target.as_fd())?;
        self.attached = true;
        Ok(())
    }
}

/// What masked paths are covered with.
pub(crate) struct Cover {
    null: Stencil,
    empty: Option<Stencil>,
}

/// Takes the host's null device, which no container can have replaced (CVE-2025-31133).
pub(crate) fn cover() -> Result<Cover, Error> {
    let mount = sys::clone_tree(sys::cwd(), c"/dev/null", false).doing("copy", "/dev/null")?;
    let stat = sys::fstat(mount.as_fd()).doing("look at", "/dev/null")?;
    if !sys::is_character_device(&stat, 1, 3) {
        return Err(Error::invalid(
            "/dev/null of the host is not the null device; restore it",
        ));
    }
    Ok(Cover {
        null: Stencil {
            mount,
            attached: false,
        },
        empty: None,
    })
}

/// Covers paths: files by the null device, directories by an empty read-only tmpfs. What does not
/// exist needs no cover.
pub(crate) fn mask(root: &RootDirectory, paths: &[String], cover: &mut Cover) -> Result<(), Error> {
    for path in paths {
        let Some(target) = existing(root, path).doing("mask", path)? else {
            continue;
        };
        let stat = sys::fstat(target.as_fd()).doing("mask", path)?;
        let stencil = if sys::is_directory(&stat) {
            if cover.empty.is_none() {
                let mount = empty_directory().doing("mount a tmpfs to mask", path)?;
                cover.empty = Some(Stencil {
                    mount,
                    attached: false,
                });
            }
            cover.empty.as_mut()
        } else {
            Some(&mut cover.null)
        };
        if let Some(stencil) = stencil {
            stencil.attach(&target).doing("mask", path)?;
        }
    }
    Ok(())
}

fn empty_directory() -> SysResult<OwnedFd> {
    let context = FilesystemContext::open(c"tmpfs")?;
    context.set(c"source", Some(c"tmpfs"))?;
    context.set(c"size", Some(c"0"))?;
    context.set(c"nr_inodes", Some(c"1"))?;
    context.set(c"mode", Some(c"755"))?;
    context.mount(
        libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
    )
}

/// Makes paths read-only with everything below, by a mount of themselves over themselves.
pub(crate) fn make_read_only(root: &RootDirectory, paths: &[String]) -> Result<(), Error> {
    for path in paths {
        let Some(target) = existing(root, path).doing("make read-only", path)? else {
            continue;
        };
        sys::clone_tree(target.as_fd(), c"", true)
            .and_then(|copy| {
                sys::mount_setattr(copy.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, true)?;
                sys::move_mount(copy.as_fd(), target.as_fd())
            })
            .doing("make read-only", path)?;
    }
    Ok(())
}

fn existing(root: &RootDirectory, path: &str) -> SysResult<Option<OwnedFd>> {
    match root.open(path, libc::O_PATH) {
        Ok(target) => Ok(Some(target)),
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(errno) => Err(errno),
    }
}

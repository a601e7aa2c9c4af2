//! The root of a container that shares its caller's mounts (a configuration without a mount
//! namespace): mounted where the caller sees it, for as long as the container is there.
//!
//! Nothing but this mount, and those below it, is made or changed in the caller's mount table, and
//! it is taken away by its identity, never by its path alone.

use crate::error::{Context, Error};
use crate::path::RootDirectory;
use crate::root::{self, Opened};
use crate::sys;
use gamut_abi::plan::Root;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The mounted root; unmounted with all below it when dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct HostRoot {
    root: Option<RootDirectory>,
    id: u64,
}

impl HostRoot {
    /// Mounts the root's directory over itself, in this process's mount namespace.
    pub(crate) fn mount(plan: &Root) -> Result<Self, Error> {
        let root = root::mount(plan, Opened::open(plan, Vec::new(), None)?)?;
        let mut mounted = Self {
            root: Some(root),
            id: 0,
        };
        let fd = mounted.descriptor()?;
        // What it was mounted on may be shared, which would have made it shared as well.
        sys::mount_setattr(fd, 0, 0, libc::MS_PRIVATE, true).doing("make root private", "")?;
        mounted.id = sys::mount_id(fd).doing("identify", "the mount of the root")?;
        Ok(mounted)
    }

    /// Its directory.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        match &self.root {
            Some(root) => Ok(root.as_fd()),
            None => Err(Error::invalid("the root is not mounted")),
        }
    }

    /// The kernel's number of the mount, which [`unmount_root`] takes.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Leaves it mounted.
    pub(crate) fn keep(mut self) {
        self.root = None;
    }
}

impl Drop for HostRoot {
    fn drop(&mut self) {
        if let Some(root) = self.root.take() {
            // The error that led here is the one worth telling.
            let _ = sys::detach(root.as_fd());
        }
    }
}

/// Takes the root of a container that shares its caller's mounts away again: the mount at `path`
/// with the number `id`, and all below it. If something else is mounted there, it is gone already.
///
/// # Errors
/// Those of open(2) but for a path that is not there, statx(2) and umount(2).
pub fn unmount_root(path: &str, id: u64) -> Result<(), Error> {
    let opened = sys::c_string(path)
        .and_then(|name| sys::open(sys::cwd(), &name, libc::O_PATH | libc::O_DIRECTORY));
    let directory = match opened {
        Err(sys::Errno(libc::ENOENT)) => return Ok(()),
        other => other.doing("open", path)?,
    };
    if sys::mount_id(directory.as_fd()).doing("identify the mount at", path)? != id {
        return Ok(());
    }
    sys::detach(directory.as_fd()).doing("unmount", path)
}

/// Changes the root of this process to a container's, which shares the mounts of its caller.
pub(crate) fn enter(root: BorrowedFd<'_>) -> Result<(), Error> {
    sys::fchdir(root).doing("enter", "the root")?;
    sys::chroot_here().doing("change", "the root")
}

/// Enters the root of another process, which shares this one's mounts.
pub(crate) fn enter_that_of(pid: u32, process: BorrowedFd<'_>) -> Result<(), Error> {
    let path = ["/proc/", &pid.to_string(), "/root"].concat();
    let root = sys::c_string(&path)
        .and_then(|name| sys::open(sys::cwd(), &name, libc::O_PATH | libc::O_DIRECTORY))
        .doing("open", &path)?;
    // SAFETY: plain call; signal 0 only asks whether the process is there. If it is, its number
    // has been its own all the time.
    let alive = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            0,
            std::ptr::null::<u8>(),
            0,
        )
    };
    if alive < 0 {
        return Err(Error::system(
            "look at the container's first process",
            sys::Errno::last(),
        ));
    }
    enter(root.as_fd())
}

//! The kernel's calls for mounts that are made apart and then moved into place: open_tree(2),
//! fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2), move_mount(2).

use gamut_image::layer::sys;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file system that is being configured.
#[derive(Debug)]
pub(crate) struct Context(OwnedFd);

impl Context {
    /// Of a kind of file system.
    ///
    /// # Errors
    /// Those of fsopen(2).
    pub(crate) fn open(kind: &CStr) -> io::Result<Self> {
        // SAFETY: the name is valid for the call.
        let context =
            unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) };
        descriptor(context).map(Self)
    }

    /// Sets an option, or a flag, which has no value.
    ///
    /// # Errors
    /// Those of fsconfig(2).
    pub(crate) fn set(&self, key: &CStr, value: Option<&CStr>) -> io::Result<()> {
        let (command, pointer) = match value {
            Some(text) => (libc::FSCONFIG_SET_STRING, text.as_ptr()),
            None => (libc::FSCONFIG_SET_FLAG, std::ptr::null()),
        };
        // SAFETY: key and value are valid for the call, or null where the command takes none.
        done(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key.as_ptr(),
                pointer,
                0,
            )
        })
    }

    /// Makes the file system of what was set.
    ///
    /// # Errors
    /// Those of fsconfig(2).
    pub(crate) fn create(&self) -> io::Result<()> {
        // SAFETY: this command takes neither key nor value.
        done(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                libc::FSCONFIG_CMD_CREATE,
                std::ptr::null::<libc::c_char>(),
                std::ptr::null::<libc::c_void>(),
                0,
            )
        })
    }

    /// A mount of it with these attributes (`MOUNT_ATTR_*`), which is nowhere yet.
    ///
    /// # Errors
    /// Those of fsmount(2).
    pub(crate) fn mount(&self, attributes: u64) -> io::Result<OwnedFd> {
        // SAFETY: no memory is passed.
        descriptor(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                attributes,
            )
        })
    }
}

impl AsFd for Context {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A copy of what is mounted at a path, or of the directory there, which is nowhere yet.
///
/// # Errors
/// Those of open_tree(2).
pub(crate) fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = sys::c_string(path.as_os_str().as_bytes())?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: path is valid for the call.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Sets and clears attributes (`MOUNT_ATTR_*`) of a mount, and its propagation (`MS_*`) unless that
/// is 0; of those below it too if `recursive`.
///
/// # Errors
/// Those of mount_setattr(2).
pub(crate) fn set_attributes(
    tree: BorrowedFd<'_>,
    (set, clear): (u64, u64),
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: name and attributes are valid for the call, with the size given.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
}

/// Puts a mount where it is to be seen.
///
/// # Errors
/// Those of move_mount(2).
pub(crate) fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both names are valid for the call; empty, they mean the descriptors themselves.
    done(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
}

/// Opens (`O_PATH`) a directory by a path of the engine's own.
///
/// # Errors
/// Those of openat2(2).
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let name = sys::c_string(path.as_os_str().as_bytes())?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let cwd = File::open(if path.is_absolute() { "/" } else { "." })?;
    sys::openat2(cwd.as_fd(), &name, flags, 0)
}

/// What a call that returns nothing but success says.
///
/// # Errors
/// The kernel's.
pub(crate) fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What a call that returns a descriptor says.
///
/// # Errors
/// The kernel's.
pub(crate) fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    done(result)?;
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

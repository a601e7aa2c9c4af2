//! System calls about mounts (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)).

use super::{Errno, SysResult, check, check_int, owned, read};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// `AT_RECURSIVE` as open_tree(2) and mount_setattr(2) take it.
const AT_RECURSIVE: i32 = 0x8000;

/// Copies a mount, detached (open_tree(2) with `OPEN_TREE_CLONE`).
pub(crate) fn clone_tree(
    directory: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
) -> SysResult<OwnedFd> {
    let mut flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.unsigned_abs();
    if recursive {
        flags |= AT_RECURSIVE.unsigned_abs();
    }
    // SAFETY: path is NUL-terminated.
    owned(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    })
}

/// Attaches a detached mount, or moves one, onto what `target` refers to (move_mount(2)).
pub(crate) fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> SysResult<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty NUL-terminated texts.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })
    .map(drop)
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes attributes and propagation of a mount (mount_setattr(2)); 0 changes nothing.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> SysResult<()> {
    let attributes = MountAttributes {
        set,
        clear,
        propagation,
        userns_fd: 0,
    };
    set_attributes(mount, &attributes, recursive)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &MountAttributes,
    recursive: bool,
) -> SysResult<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated text, the attributes are of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Maps the ids of a detached mount's files by a user namespace (`MOUNT_ATTR_IDMAP`).
pub(crate) fn mount_idmap(
    mount: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    recursive: bool,
) -> SysResult<()> {
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    set_attributes(mount, &attributes, recursive)
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// A file system being configured (fsopen(2)).
pub(crate) struct FilesystemContext(OwnedFd);

impl FilesystemContext {
    /// Begins a new instance of a file system type.
    pub(crate) fn open(fstype: &CStr) -> SysResult<Self> {
        // SAFETY: fstype is NUL-terminated; 1 is FSOPEN_CLOEXEC.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), 1) }).map(Self)
    }

    /// Sets an option, with a value or as a flag.
    pub(crate) fn set(&self, key: &CStr, value: Option<&CStr>) -> SysResult<()> {
        let (command, value) = match value {
            Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
            None => (FSCONFIG_SET_FLAG, std::ptr::null()),
        };
        self.configure(command, key.as_ptr(), value, 0)
    }

    /// Whether this file system type knows only mount(2), so that the kernel collects its options
    /// unseen and judges them at the end, with a line in its log. Such a type refuses descriptors
    /// as options of any name; any other says that this one is not open.
    pub(crate) fn is_legacy(&self) -> bool {
        let option = c"source".as_ptr();
        let answer = self.configure(FSCONFIG_SET_FD, option, std::ptr::null(), i32::MAX);
        matches!(answer, Err(Errno(libc::EOPNOTSUPP)))
    }

    /// Makes the instance and a detached mount of it with `MOUNT_ATTR_*` bits.
    pub(crate) fn mount(&self, attributes: u64) -> SysResult<OwnedFd> {
        self.configure(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null(), 0)?;
        // SAFETY: plain call with a valid descriptor; 1 is FSMOUNT_CLOEXEC.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), 1, attributes) })
    }

    fn configure(
        &self,
        command: u32,
        key: *const libc::c_char,
        value: *const libc::c_char,
        number: i32,
    ) -> SysResult<()> {
        // SAFETY: key and value are null or NUL-terminated, as the command wants.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key,
                value,
                number,
            )
        })
        .map(drop)
    }

    /// What the kernel has to say about the last failure, "" if nothing.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        let mut buffer = [0_u8; 512];
        while let Ok(got) = read(self.0.as_fd(), &mut buffer) {
            if got == 0 || text.len() > 1024 {
                break;
            }
            if !text.is_empty() {
                text.push_str("; ");
            }
            let line = String::from_utf8_lossy(&buffer[..got]);
            // Lines are "e TYPE: text"; the letter is the level.
            text.push_str(line.get(2..).unwrap_or(&line).trim_end());
        }
        text
    }
}

/// mount(2) of a new file system, for kernels that cannot do it by fsopen(2).
pub(crate) fn mount_classic(
    source: &CStr,
    target: &CStr,
    fstype: &CStr,
    flags: u64,
    data: &CStr,
) -> SysResult<()> {
    // SAFETY: all texts are NUL-terminated.
    check_int(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fstype.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Changes the propagation of every mount of this namespace.
pub(crate) fn set_propagation_everywhere(propagation: u64) -> SysResult<()> {
    // SAFETY: the target is NUL-terminated, the other texts are not looked at.
    check_int(unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            propagation | libc::MS_REC,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// `pivot_root(".", ".")`: the working directory becomes the root, the old root lies on top.
pub(crate) fn pivot_root_here() -> SysResult<()> {
    // SAFETY: both paths are NUL-terminated.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Detaches the mount at the working directory and all below it.
pub(crate) fn detach_here() -> SysResult<()> {
    // SAFETY: the path is NUL-terminated.
    check_int(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Detaches the mount that a descriptor of its root refers to, and all below it.
pub(crate) fn detach(root: BorrowedFd<'_>) -> SysResult<()> {
    let path = super::c_string(&["/proc/self/fd/", &root.as_raw_fd().to_string()].concat())?;
    // SAFETY: the path is NUL-terminated.
    check_int(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// `chroot(".")`.
pub(crate) fn chroot_here() -> SysResult<()> {
    // SAFETY: the path is NUL-terminated.
    check_int(unsafe { libc::chroot(c".".as_ptr()) }).map(drop)
}

//! Copying what an image has at a mount point into a new tmpfs.

use crate::sys::{self, Errno, SysResult, resolve};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Deepest directory that is copied: an image is hostile, and each level holds descriptors.
const MAX_DEPTH: usize = 128;

/// Copies everything below one directory into another: directories, files, links and nodes, with
/// owner, mode and modification time. Links are never followed.
pub(crate) fn copy_directory(from: &OwnedFd, to: &OwnedFd) -> SysResult<()> {
    copy_level(from, to, 0)
}

fn copy_level(from: &OwnedFd, to: &OwnedFd, depth: usize) -> SysResult<()> {
    if depth > MAX_DEPTH {
        return Err(Errno(libc::ELOOP));
    }
    for name in names(from)? {
        copy_entry(from, to, &name, depth)?;
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> SysResult<()> {
    let within = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    let handle = match sys::openat2(
        from.as_fd(),
        name,
        libc::O_PATH | libc::O_NOFOLLOW,
        0,
        // A link itself may be referred to: O_NOFOLLOW does not follow it.
        resolve::BENEATH | resolve::NO_XDEV,
    ) {
        // A mount below keeps to itself.
        Err(Errno(libc::EXDEV)) => return Ok(()),
        other => other?,
    };
    let stat = sys::fstat(handle.as_fd())?;
    let (kind, mode) = (stat.st_mode & libc::S_IFMT, stat.st_mode & 0o7777);
    match kind {
        libc::S_IFDIR => {
            sys::mkdir(to.as_fd(), name, 0o700)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let inner_from = sys::openat2(from.as_fd(), name, flags, 0, within)?;
            let inner_to = sys::openat2(to.as_fd(), name, flags, 0, within)?;
            copy_level(&inner_from, &inner_to, depth + 1)?;
            sys::chown(to.as_fd(), name, stat.st_uid, stat.st_gid)?;
            sys::fchmod(inner_to.as_fd(), mode)?;
        }
        libc::S_IFREG => {
            let source = sys::openat2(from.as_fd(), name, libc::O_RDONLY, 0, within)?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
            let target = sys::openat2(to.as_fd(), name, flags, 0o600, within)?;
            copy_bytes(&source, &target)?;
            sys::chown(to.as_fd(), name, stat.st_uid, stat.st_gid)?;
            sys::fchmod(target.as_fd(), mode)?;
        }
        libc::S_IFLNK => {
            let link = CString::new(sys::readlink(handle.as_fd(), c"")?)
                .map_err(|_| Errno(libc::EINVAL))?;
            sys::symlink(&link, to.as_fd(), name)?;
            sys::chown(to.as_fd(), name, stat.st_uid, stat.st_gid)?;
        }
        _ => {
            sys::mknod(to.as_fd(), name, kind | mode, stat.st_rdev)?;
            sys::chown(to.as_fd(), name, stat.st_uid, stat.st_gid)?;
        }
    }
    set_times(to, name, &stat)
}

fn set_times(directory: &OwnedFd, name: &CStr, stat: &libc::stat) -> SysResult<()> {
    let times = [
        libc::timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec,
        },
        libc::timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec,
        },
    ];
    // SAFETY: name is NUL-terminated, times holds the two values the call reads.
    let result = unsafe {
        libc::utimensat(
            directory.as_raw_fd(),
            name.as_ptr(),
            times.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> SysResult<()> {
    loop {
        // SAFETY: both descriptors are valid; no offset is passed, so the file's own is used.
        let sent = unsafe {
            libc::sendfile(
                to.as_raw_fd(),
                from.as_raw_fd(),
                std::ptr::null_mut(),
                1 << 30,
            )
        };
        match sent {
            0 => return Ok(()),
            sent if sent > 0 => {}
            _ if Errno::last() == Errno(libc::EINTR) => {}
            _ => return Err(Errno::last()),
        }
    }
}

/// Names in a directory, without `.` and `..`.
fn names(directory: &OwnedFd) -> SysResult<Vec<CString>> {
    let mut names = Vec::new();
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        // SAFETY: the buffer is writable for its length.
        let got = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        let got = usize::try_from(got).map_err(|_| Errno::last())?;
        if got == 0 {
            return Ok(names);
        }
        let mut rest = &buffer[..got];
        // struct linux_dirent64: inode 8, offset 8, length 2, type 1, then the name.
        while let Some(length) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
            let name = rest
                .get(19..length)
                .and_then(|name| CStr::from_bytes_until_nul(name).ok());
            if let Some(name) = name
                && name != c"."
                && name != c".."
            {
                names.push(name.to_owned());
            }
            rest = rest.get(length.max(19)..).unwrap_or_default();
        }
    }
}

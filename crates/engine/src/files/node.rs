//! A file that was found: held by a descriptor, so that it stays the same file.

use gamut_image::layer::sys;
use gamut_image::tar::{Entry, Kind, Timestamp, Xattrs};
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Resolve as in a chroot; mounts are crossed, links of /proc that lead elsewhere are not.
pub(super) const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// Go down only, follow no link; mounts are crossed.
pub(super) const BELOW: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// Attributes by which overlayfs marks an empty file as a whiteout: the second in user namespaces.
const WHITEOUTS: [&CStr; 2] = [c"trusted.overlay.whiteout", c"user.overlay.whiteout"];

/// A file, and what it was when it was opened. Opening reads nothing and wakes no device.
pub(super) struct Node {
    pub fd: OwnedFd,
    pub stat: libc::stat,
}

impl Node {
    /// Opens a file, a link itself.
    pub fn open(directory: BorrowedFd<'_>, path: &[u8], resolve: u64) -> io::Result<Self> {
        Self::with(directory, path, libc::O_PATH | libc::O_NOFOLLOW, resolve)
    }

    /// Opens a directory; a link at the end is followed if `resolve` allows it.
    pub fn open_directory(
        directory: BorrowedFd<'_>,
        path: &[u8],
        resolve: u64,
    ) -> io::Result<Self> {
        Self::with(directory, path, libc::O_PATH | libc::O_DIRECTORY, resolve)
    }

    fn with(directory: BorrowedFd<'_>, path: &[u8], flags: i32, resolve: u64) -> io::Result<Self> {
        let path = if path.is_empty() { b"." } else { path };
        Self::from_fd(sys::openat2(
            directory,
            &sys::c_string(path)?,
            flags,
            resolve,
        )?)
    }

    /// The file behind a descriptor.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let stat = sys::fstat(fd.as_fd())?;
        Ok(Self { fd, stat })
    }

    /// The bits of `S_IFMT`.
    pub fn kind(&self) -> u32 {
        self.stat.st_mode & libc::S_IFMT
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Opens a regular file or directory for reading: exactly this one, whatever its name has
    /// become since.
    pub fn reader(&self) -> io::Result<File> {
        if !matches!(self.kind(), libc::S_IFREG | libc::S_IFDIR) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let flags = libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(handle_text(self.fd.as_fd()))
    }

    /// Target of a symbolic link.
    pub fn link_target(&self) -> io::Result<Vec<u8>> {
        sys::readlink(self.fd.as_fd(), c"")
    }

    /// Length of the content in bytes.
    pub fn size_bytes(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Whether overlayfs takes this file of one of its layers for a whiteout.
    pub fn is_whiteout(&self) -> io::Result<bool> {
        match self.kind() {
            libc::S_IFCHR => Ok(self.stat.st_rdev == 0),
            libc::S_IFREG if self.stat.st_size == 0 => {
                for name in WHITEOUTS {
                    if get_xattr(self.fd.as_fd(), name)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// What tar says about it, but for a hard link; `None` for a socket, which tar does not have.
    pub fn entry(&self, path: Vec<u8>) -> io::Result<Option<Entry>> {
        let kind = match self.kind() {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFCHR => Kind::CharacterDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            libc::S_IFIFO => Kind::Fifo,
            _ => return Ok(None),
        };
        let mut entry = Entry::new(path, kind, self.stat.st_mode & 0o7777);
        if kind == Kind::Symlink {
            entry.link = self.link_target()?;
        }
        if matches!(kind, Kind::CharacterDevice | Kind::BlockDevice) {
            entry.device = (
                libc::major(self.stat.st_rdev),
                libc::minor(self.stat.st_rdev),
            );
        }
        entry.uid = self.stat.st_uid;
        entry.gid = self.stat.st_gid;
        entry.mtime = Timestamp {
            seconds: self.stat.st_mtime,
            nanoseconds: u32::try_from(self.stat.st_mtime_nsec).unwrap_or(0),
        };
        entry.size_bytes = if kind == Kind::File {
            self.size_bytes()
        } else {
            0
        };
        Ok(Some(entry))
    }

    /// Extended attributes whose names `is_wanted` picks.
    pub fn xattrs(&self, is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<Xattrs> {
        let mut xattrs = Vec::new();
        for name in list_xattrs(self.fd.as_fd())? {
            // One that has just been taken away is no error.
            if is_wanted(&name)
                && let Some(value) = get_xattr(self.fd.as_fd(), &sys::c_string(&name)?)?
            {
                xattrs.push((name, value));
            }
        }
        Ok(xattrs)
    }

    /// The mount it is on.
    pub fn mount_id(&self) -> io::Result<u64> {
        let mut found = MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the name is valid for the call, and found is a statx to be filled.
        let result = unsafe {
            libc::statx(
                self.fd.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                libc::STATX_MNT_ID,
                found.as_mut_ptr(),
            )
        };
        check(result)?;
        // SAFETY: all zeros is a valid statx, and the kernel has filled it.
        Ok(unsafe { found.assume_init() }.stx_mnt_id)
    }

    /// Type of its file system, the magic number.
    pub fn file_system(&self) -> io::Result<i64> {
        let mut found = MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: found is a statfs to be filled.
        check(unsafe { libc::fstatfs(self.fd.as_raw_fd(), found.as_mut_ptr()) })?;
        // SAFETY: all zeros is a valid statfs, and the kernel has filled it.
        Ok(unsafe { found.assume_init() }.f_type)
    }

    /// Whether its mount or its file system is read-only.
    pub fn is_readonly(&self) -> io::Result<bool> {
        let mut found = MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: found is a statvfs to be filled.
        check(unsafe { libc::fstatvfs(self.fd.as_raw_fd(), found.as_mut_ptr()) })?;
        // SAFETY: all zeros is a valid statvfs, and libc has filled it.
        Ok(unsafe { found.assume_init() }.f_flag & libc::ST_RDONLY != 0)
    }
}

/// Path that leads to exactly the file of a descriptor, also one opened with `O_PATH`.
pub(super) fn handle_text(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// [`handle_text`] for a system call.
pub(super) fn handle(fd: BorrowedFd<'_>) -> io::Result<CString> {
    sys::c_string(handle_text(fd).as_bytes())
}

pub(super) fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// XATTR_LIST_MAX and XATTR_SIZE_MAX: no list and no value is longer.
const MAX_XATTR_BYTES: usize = 64 << 10;

fn list_xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let path = handle(fd)?;
    // Most files have none: ask first, without a buffer.
    // SAFETY: path is valid for the call; a length of 0 says that there is no buffer.
    let length = unsafe { libc::listxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut names = vec![0u8; MAX_XATTR_BYTES];
    // SAFETY: path is valid for the call, and names has the length given.
    let length = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            _ => Err(error),
        };
    };
    names.truncate(length);
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn get_xattr(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = handle(fd)?;
    let mut value = vec![0u8; MAX_XATTR_BYTES];
    // SAFETY: path and name are valid for the call, and value has the length given.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    if let Ok(length) = usize::try_from(length) {
        value.truncate(length);
        return Ok(Some(value));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(None),
        _ => Err(error),
    }
}

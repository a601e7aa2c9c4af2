//! System calls on directory descriptors, as thin as they can be. Errors are the kernel's.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Never leave the tree, never follow a link, never cross a mount.
pub const BENEATH: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_XDEV;

/// Flags to open a directory for everything that is done with one.
pub const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// Longest path handed to the kernel at once, below PATH_MAX (4096 with the NUL).
pub const MAX_CALL_PATH_BYTES: usize = 4000;

/// A NUL-terminated copy; a NUL inside is `InvalidInput`.
pub fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Times that an interrupted openat2(2) is tried.
const MAX_OPEN_TRIES: u32 = 10_000;

/// openat2(2), with `resolve` as given.
pub fn openat2(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    let how = OpenHow {
        flags,
        mode: 0,
        resolve,
    };
    let mut tries = 0;
    loop {
        // SAFETY: path and how are valid for the call, the size is that of how.
        let result = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        if result >= 0 {
            return owned(RawFd::try_from(result).map_err(io::Error::other)?);
        }
        let error = io::Error::last_os_error();
        // EAGAIN: a rename elsewhere made the kernel unsure; see openat2(2). Somebody who renames
        // all the time must not keep us here for ever.
        tries += 1;
        let again = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
        if !again || tries == MAX_OPEN_TRIES {
            return Err(error);
        }
    }
}

/// Opens a directory beneath another, however long the path is; see [`BENEATH`].
/// An empty path opens the directory itself.
pub fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    if path.is_empty() {
        return openat2(root, c".", DIRECTORY, BENEATH);
    }
    let (mut current, mut rest): (Option<OwnedFd>, _) = (None, path);
    while rest.len() > MAX_CALL_PATH_BYTES {
        let end = rest.iter().take(MAX_CALL_PATH_BYTES).rposition_slash();
        let end = end.ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
        let at = current.as_ref().map_or(root, AsFd::as_fd);
        current = Some(openat2(at, &c_string(&rest[..end])?, DIRECTORY, BENEATH)?);
        rest = &rest[end + 1..];
    }
    let at = current.as_ref().map_or(root, AsFd::as_fd);
    openat2(at, &c_string(rest)?, DIRECTORY, BENEATH)
}

trait RpositionSlash {
    fn rposition_slash(self) -> Option<usize>;
}

impl<'a, I: Iterator<Item = &'a u8>> RpositionSlash for I {
    fn rposition_slash(self) -> Option<usize> {
        self.enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .last()
            .map(|(at, _)| at)
    }
}

/// Creates a regular file that did not exist, for writing.
pub fn create_file(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: name is valid for the call; the mode is passed because of O_CREAT.
    owned(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, 0o600) })
}

/// lstat(2) of a name in a directory.
pub fn lstat(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::stat> {
    stat(directory, name, libc::AT_SYMLINK_NOFOLLOW)
}

/// fstat(2), also of O_PATH descriptors.
pub fn fstat(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    stat(fd, c"", libc::AT_EMPTY_PATH)
}

fn stat(directory: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<libc::stat> {
    // SAFETY: all zeros is a valid stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: name and stat are valid for the call.
    check(unsafe { libc::fstatat(directory.as_raw_fd(), name.as_ptr(), &raw mut stat, flags) })?;
    Ok(stat)
}

/// mkdirat(2).
pub fn mkdir(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: name is valid for the call.
    check(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) })
}

/// mknodat(2).
pub fn mknod(
    directory: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let device = libc::makedev(major, minor);
    // SAFETY: name is valid for the call.
    check(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), mode, device) })
}

/// symlinkat(2).
pub fn symlink(target: &CStr, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: both names are valid for the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })
}

/// linkat(2); a symbolic link is linked itself, not followed.
pub fn link(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr)) -> io::Result<()> {
    // SAFETY: both names are valid for the call.
    check(unsafe {
        libc::linkat(
            from.0.as_raw_fd(),
            from.1.as_ptr(),
            to.0.as_raw_fd(),
            to.1.as_ptr(),
            0,
        )
    })
}

/// renameat(2).
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr)) -> io::Result<()> {
    // SAFETY: both names are valid for the call.
    check(unsafe {
        libc::renameat(
            from.0.as_raw_fd(),
            from.1.as_ptr(),
            to.0.as_raw_fd(),
            to.1.as_ptr(),
        )
    })
}

/// unlinkat(2); `flags` may be AT_REMOVEDIR.
pub fn unlink(directory: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<()> {
    // SAFETY: name is valid for the call.
    check(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), flags) })
}

/// readlinkat(2).
pub fn readlink(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut target = vec![0u8; 4096];
    // SAFETY: name is valid for the call, and target has the length given.
    let length = unsafe {
        libc::readlinkat(
            directory.as_raw_fd(),
            name.as_ptr(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    target.truncate(length);
    Ok(target)
}

/// fchownat(2) of a name, a link itself.
pub fn chown(directory: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> io::Result<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: name is valid for the call.
    check(unsafe { libc::fchownat(directory.as_raw_fd(), name.as_ptr(), uid, gid, flags) })
}

/// fchown(2).
pub fn fchown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) })
}

/// fchmod(2).
pub fn fchmod(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

/// chmod(2) of a name that is known not to be a symbolic link.
pub fn chmod(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: name is valid for the call.
    check(unsafe { libc::fchmodat(directory.as_raw_fd(), name.as_ptr(), mode, 0) })
}

fn times(seconds: i64, nanoseconds: u32) -> [libc::timespec; 2] {
    let time = libc::timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds),
    };
    [time, time]
}

/// utimensat(2) of a name, a link itself: access and modification.
pub fn set_times(
    directory: BorrowedFd<'_>,
    name: &CStr,
    seconds: i64,
    nanoseconds: u32,
) -> io::Result<()> {
    let times = times(seconds, nanoseconds);
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: name and both times are valid for the call.
    check(unsafe { libc::utimensat(directory.as_raw_fd(), name.as_ptr(), times.as_ptr(), flags) })
}

/// futimens(3): access and modification.
pub fn fset_times(fd: BorrowedFd<'_>, seconds: i64, nanoseconds: u32) -> io::Result<()> {
    let times = times(seconds, nanoseconds);
    // SAFETY: both times are valid for the call.
    check(unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) })
}

/// pwrite(2) until all is written.
pub fn write_all_at(fd: BorrowedFd<'_>, mut bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut offset = i64::try_from(offset).map_err(io::Error::other)?;
    while !bytes.is_empty() {
        // SAFETY: bytes is valid for its length.
        let written =
            unsafe { libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset) };
        if written < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        bytes = bytes.get(written.cast_unsigned()..).unwrap_or_default();
        offset += i64::try_from(written).map_err(io::Error::other)?;
    }
    Ok(())
}

/// ftruncate(2).
pub fn set_length(fd: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(io::Error::other)?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), length) })
}

/// fsetxattr(2).
pub fn fset_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: name and value are valid for the call.
    check(unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}

/// lsetxattr(2) of a name in a directory, a link itself. Needs /proc: there is no *at form before
/// Linux 6.13.
pub fn set_xattr(
    directory: BorrowedFd<'_>,
    file: &CStr,
    name: &CStr,
    value: &[u8],
) -> io::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(file.to_bytes());
    let path = c_string(&path)?;
    // SAFETY: path, name and value are valid for the call.
    check(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}

/// fgetxattr(2); `None` if there is no such attribute or no support for it.
pub fn fget_xattr(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    // XATTR_SIZE_MAX: no value is longer.
    let mut value = vec![0u8; 64 << 10];
    // SAFETY: name is valid for the call, and value has the length given.
    let length = unsafe {
        libc::fgetxattr(
            fd.as_raw_fd(),
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

/// flistxattr(2); empty if there is no support.
pub fn flist_xattr(fd: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    // XATTR_LIST_MAX: no list is longer.
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: names has the length given.
    let length =
        unsafe { libc::flistxattr(fd.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            _ => Err(error),
        };
    };
    names.truncate(length);
    Ok(names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// Effective user and group of this thread.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: neither can fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// A name found in a directory.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: CString,
    /// Whether the file system said that it is a directory; `None` if it said nothing.
    pub is_directory: Option<bool>,
}

/// Lists a directory from its start, without `.` and `..`. The descriptor's position is moved.
pub fn list(directory: BorrowedFd<'_>) -> io::Result<Vec<Found>> {
    // SAFETY: no memory is passed.
    if unsafe { libc::lseek(directory.as_raw_fd(), 0, libc::SEEK_SET) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        // SAFETY: buffer has the length given.
        let length = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        if length == 0 {
            return Ok(found);
        }
        let mut records = buffer.get(..length).unwrap_or_default();
        // struct linux_dirent64: ino u64, off i64, reclen u16, type u8, name.
        while let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            l0,
            l1,
            kind,
            name @ ..,
        ] = records
        {
            let record_bytes = usize::from(u16::from_ne_bytes([*l0, *l1]));
            let name = CStr::from_bytes_until_nul(name).map_err(io::Error::other)?;
            if !matches!(name.to_bytes(), b"." | b"..") {
                let is_directory = match *kind {
                    libc::DT_DIR => Some(true),
                    libc::DT_UNKNOWN => None,
                    _ => Some(false),
                };
                found.push(Found {
                    name: name.to_owned(),
                    is_directory,
                });
            }
            records = records.get(record_bytes.max(1)..).unwrap_or_default();
        }
    }
}

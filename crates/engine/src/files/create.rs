//! Making files, and giving them what an entry says.

use super::node::{check, handle, handle_text};
use gamut_image::layer::sys;
use gamut_image::tar::{Entry, Kind, Timestamp};
use std::ffi::CStr;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

/// Bytes read at once, and the least length of a hole.
const BUFFER_BYTES: usize = 128 << 10;
const BLOCK_BYTES: usize = 4 << 10;

/// Makes a file, directory, link or device that did not exist, closed to everybody else, and
/// opens it. Hard links and unknown kinds are `InvalidInput`.
pub(super) fn create(parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> io::Result<OwnedFd> {
    match entry.kind {
        Kind::File => return sys::create_file(parent, name),
        Kind::Directory => {
            sys::mkdir(parent, name, 0o700)?;
            return sys::openat2(parent, name, sys::DIRECTORY, sys::BENEATH);
        }
        Kind::Symlink => {
            sys::symlink(&sys::c_string(&entry.link)?, parent, name)?;
        }
        Kind::CharacterDevice => {
            sys::mknod(parent, name, libc::S_IFCHR | 0o600, entry.device)?;
        }
        Kind::BlockDevice => sys::mknod(parent, name, libc::S_IFBLK | 0o600, entry.device)?,
        Kind::Fifo => sys::mknod(parent, name, libc::S_IFIFO | 0o600, (0, 0))?,
        Kind::HardLink | Kind::Other(_) => {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
    }
    let made = sys::openat2(parent, name, libc::O_PATH | libc::O_NOFOLLOW, sys::BENEATH)?;
    let kind = sys::fstat(made.as_fd())?.st_mode & libc::S_IFMT;
    if kind != kind_of(entry.kind) {
        // Somebody has put something else there.
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    Ok(made)
}

/// The bits of `S_IFMT` for a kind.
pub(super) fn kind_of(kind: Kind) -> u32 {
    match kind {
        Kind::Directory => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::CharacterDevice => libc::S_IFCHR,
        Kind::BlockDevice => libc::S_IFBLK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::File | Kind::HardLink | Kind::Other(_) => libc::S_IFREG,
    }
}

/// Sets owner, mode, attributes and time, in the order the kernel needs: a change of owner clears
/// setuid bits and capabilities. Attributes that are not supported there are left out.
pub(super) fn describe(fd: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
    // SAFETY: the name is valid for the call; empty, it means the descriptor itself.
    check(unsafe {
        libc::fchownat(
            fd.as_raw_fd(),
            c"".as_ptr(),
            entry.uid,
            entry.gid,
            libc::AT_EMPTY_PATH,
        )
    })?;
    let path = handle(fd)?;
    if entry.kind != Kind::Symlink {
        fs::set_permissions(handle_text(fd), Permissions::from_mode(entry.mode & 0o7777))?;
    }
    for (name, value) in &entry.xattrs {
        let name = sys::c_string(name)?;
        // SAFETY: path, name and value are valid for the call.
        let result = check(unsafe {
            libc::setxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        });
        match result {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::EPERM | libc::EINVAL)
                ) =>
            {
                tracing::debug!(attribute = ?name, %error, "an attribute cannot be stored here");
            }
            result => result?,
        }
    }
    set_time(fd, entry.mtime)
}

/// Sets access and modification time.
pub(super) fn set_time(fd: BorrowedFd<'_>, time: Timestamp) -> io::Result<()> {
    let path = handle(fd)?;
    let time = libc::timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds),
    };
    let times = [time, time];
    // SAFETY: path and both times are valid for the call.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) })
}

/// Fills a new file from a reader. With `holes`, blocks of zeros are not written.
pub(super) fn fill(fd: BorrowedFd<'_>, content: &mut dyn Read, holes: bool) -> io::Result<u64> {
    let mut buffer = vec![0u8; BUFFER_BYTES];
    let mut at = 0u64;
    loop {
        let mut filled = 0;
        while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
            match content.read(free) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = buffer.get(..filled).unwrap_or_default();
        if holes {
            let mut position = at;
            for block in bytes.chunks(BLOCK_BYTES) {
                if block.iter().any(|&byte| byte != 0) {
                    sys::write_all_at(fd, block, position)?;
                }
                position += block.len() as u64;
            }
        } else {
            sys::write_all_at(fd, bytes, at)?;
        }
        at += filled as u64;
        if filled < BUFFER_BYTES {
            break;
        }
    }
    if holes {
        sys::set_length(fd, at)?;
    }
    Ok(at)
}

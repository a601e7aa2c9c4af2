//! The few system calls used, relative to a directory descriptor.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Joins a relative directory and a file name.
pub(crate) fn join(directory: &str, name: &str) -> io::Result<CString> {
    let mut bytes = Vec::with_capacity(directory.len() + name.len() + 2);
    bytes.extend_from_slice(directory.as_bytes());
    if !directory.is_empty() && !name.is_empty() {
        bytes.push(b'/');
    }
    bytes.extend_from_slice(name.as_bytes());
    if bytes.is_empty() {
        bytes.push(b'.');
    }
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens a directory by absolute path, for use as a base only.
pub(crate) fn open_root(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    owned(unsafe {
        libc::open(
            path.as_ptr(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    })
}

/// openat(2), close-on-exec, never following a link at the end.
pub(crate) fn open_at(
    base: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
) -> io::Result<OwnedFd> {
    // SAFETY: `path` is NUL-terminated and outlives the call; no O_CREAT, so no mode is read.
    owned(unsafe {
        libc::openat(
            base.as_raw_fd(),
            path.as_ptr(),
            flags | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        )
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// mkdirat(2) with mode 0755.
pub(crate) fn make_directory(base: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::mkdirat(base.as_raw_fd(), path.as_ptr(), 0o755) })
}

/// rmdir(2) relative to `base`.
pub(crate) fn remove_directory(base: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::unlinkat(base.as_raw_fd(), path.as_ptr(), libc::AT_REMOVEDIR) })
}

/// fchownat(2) of a file's user, not following links.
pub(crate) fn change_owner(base: BorrowedFd<'_>, path: &CStr, uid: u32) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe {
        libc::fchownat(
            base.as_raw_fd(),
            path.as_ptr(),
            uid,
            libc::gid_t::MAX,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })
}

/// Whether something exists at `path`.
pub(crate) fn exists(base: BorrowedFd<'_>, path: &CStr) -> bool {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    unsafe { libc::faccessat(base.as_raw_fd(), path.as_ptr(), libc::F_OK, 0) == 0 }
}

/// Writes a value with one write(2), as control files want it.
pub(crate) fn write_file(base: BorrowedFd<'_>, path: &CStr, value: &[u8]) -> io::Result<()> {
    let file = open_at(base, path, libc::O_WRONLY)?;
    loop {
        // SAFETY: the pointer and length are those of a live slice.
        let written = unsafe { libc::write(file.as_raw_fd(), value.as_ptr().cast(), value.len()) };
        match usize::try_from(written) {
            Ok(count) if count == value.len() => return Ok(()),
            Ok(_) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Largest control file read: far above a `cgroup.procs` of pid_max lines.
const MAX_FILE_BYTES: usize = 64 << 20;

/// Reads an open file from where it stands to its end.
pub(crate) fn read_all(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 4096];
    let mut length = 0;
    loop {
        if length == text.len() {
            if length >= MAX_FILE_BYTES {
                return Err(io::Error::from_raw_os_error(libc::EFBIG));
            }
            text.resize(length * 2, 0);
        }
        let room = &mut text[length..];
        // SAFETY: the pointer and length are those of a live, writable slice.
        let count = unsafe { libc::read(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        match usize::try_from(count) {
            Ok(0) => {
                text.truncate(length);
                return Ok(text);
            }
            Ok(count) => length += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Reads a whole control file.
pub(crate) fn read_file(base: BorrowedFd<'_>, path: &CStr) -> io::Result<Vec<u8>> {
    use std::os::fd::AsFd;
    let file = open_at(base, path, libc::O_RDONLY)?;
    read_all(file.as_fd())
}

/// Whether `list` returns directories or other entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entries {
    Directories,
    Files,
}

/// Names of the entries of one kind in the directory `path` below `base`.
pub(crate) fn list(base: BorrowedFd<'_>, path: &CStr, kind: Entries) -> io::Result<Vec<CString>> {
    use std::os::fd::IntoRawFd;
    let directory = open_at(base, path, libc::O_RDONLY | libc::O_DIRECTORY)?;
    let descriptor = directory.into_raw_fd();
    // SAFETY: `descriptor` is an open directory that we own; on success the stream owns it.
    let stream = unsafe { libc::fdopendir(descriptor) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        // SAFETY: fdopendir failed, so the descriptor is still ours to close.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        return Err(error);
    }
    let mut names = Vec::new();
    loop {
        // SAFETY: `stream` is open, and no other thread reads it.
        let entry = unsafe { libc::readdir(stream) };
        if entry.is_null() {
            break;
        }
        // SAFETY: `entry` is valid until the next readdir; its name is NUL-terminated.
        let (name, entry_type) = unsafe {
            (
                CStr::from_ptr((&raw const (*entry).d_name).cast()),
                (*entry).d_type,
            )
        };
        let is_directory = entry_type == libc::DT_DIR;
        if name == c"." || name == c".." || is_directory != (kind == Entries::Directories) {
            continue;
        }
        names.push(name.to_owned());
    }
    // SAFETY: `stream` was opened above and is closed once; this closes the descriptor too.
    unsafe { libc::closedir(stream) };
    Ok(names)
}

/// Waits until the kernel announces a change of an open control file, or `timeout_ms` has passed.
pub(crate) fn wait_for_change(file: BorrowedFd<'_>, timeout_ms: u64) {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLPRI,
        revents: 0,
    };
    let timeout = libc::c_int::try_from(timeout_ms).unwrap_or(libc::c_int::MAX);
    // SAFETY: one initialised pollfd that lives through the call. The result does not matter:
    // the caller reads the file again whatever woke it.
    unsafe { libc::poll(&raw mut poll, 1, timeout) };
}

/// File system type of an open directory (`statfs.f_type`).
pub(crate) fn file_system_type(directory: BorrowedFd<'_>) -> io::Result<i64> {
    let mut buffer = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the buffer is large enough for the structure and lives through the call.
    check(unsafe { libc::fstatfs(directory.as_raw_fd(), buffer.as_mut_ptr()) })?;
    // SAFETY: fstatfs succeeded and has filled the structure.
    Ok(unsafe { buffer.assume_init() }.f_type)
}

/// The time of CLOCK_MONOTONIC budgets: milliseconds since `start`.
pub(crate) fn elapsed_ms(start: std::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

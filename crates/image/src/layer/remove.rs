//! Removes directory trees whose content is hostile.

use super::sys;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Directories open at one time. Deeper ones are moved up first, so that no depth is too deep.
const MAX_OPEN_DIRECTORIES: u32 = 64;

/// Removes a file or a directory with all that is in it; nothing there is no error.
///
/// No symbolic link is followed, no mount is crossed, directories without permissions and trees
/// deeper than PATH_MAX are removed too. Only the path to the parent is resolved as usual.
///
/// # Errors
/// `ResourceBusy` or `CrossesDevices` if something is mounted at or below `path` (what is not
/// below the mount may be gone then); otherwise the operating system's.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "path does not end in a name")
    })?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = match std::fs::File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => OwnedFd::from(opened?),
    };
    remove_tree_at(parent.as_fd(), &sys::c_string(name.as_bytes())?)
}

/// [`remove_tree`] of a name, without slashes, in an open directory.
///
/// # Errors
/// Like [`remove_tree`].
pub fn remove_tree_at(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if matches!(name.to_bytes(), b"" | b"." | b"..") || name.to_bytes().contains(&b'/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not the name of a file",
        ));
    }
    match sys::unlink(parent, name, 0) {
        Err(error) if is_directory(&error) => {}
        result => return ignore_missing(result),
    }
    let Some(top) = open(parent, name)? else {
        return Ok(());
    };
    let mut moved = 0u64;
    // Each round empties the top; what it had to move up there is left for the next.
    loop {
        let before = moved;
        empty(top.as_fd(), top.as_fd(), 1, &mut moved)?;
        if moved == before {
            break;
        }
    }
    ignore_missing(sys::unlink(parent, name, libc::AT_REMOVEDIR))
}

/// Empties a directory but for the deep directories it moves to `top`.
fn empty(
    directory: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: u32,
    moved: &mut u64,
) -> io::Result<()> {
    for found in sys::list(directory)? {
        if found.is_directory != Some(true) {
            match sys::unlink(directory, &found.name, 0) {
                Err(error) if is_directory(&error) => {}
                result => {
                    ignore_missing(result)?;
                    continue;
                }
            }
        }
        if depth < MAX_OPEN_DIRECTORIES {
            match sys::unlink(directory, &found.name, libc::AT_REMOVEDIR) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
                Ok(()) => continue,
            }
            let Some(child) = open(directory, &found.name)? else {
                continue;
            };
            empty(child.as_fd(), top, depth + 1, moved)?;
            drop(child);
            ignore_missing(sys::unlink(directory, &found.name, libc::AT_REMOVEDIR))?;
        } else {
            move_up(directory, &found.name, top, moved)?;
        }
    }
    Ok(())
}

/// Moves a deep directory to the top under a name that is free there.
fn move_up(
    directory: BorrowedFd<'_>,
    name: &CStr,
    top: BorrowedFd<'_>,
    moved: &mut u64,
) -> io::Result<()> {
    loop {
        *moved += 1;
        let new_name = CString::new(format!(".removing-{moved}")).map_err(io::Error::other)?;
        // Moving a directory changes its `..`, so the mover must be allowed to write it.
        match sys::rename((directory, name), (top, &new_name)) {
            // An empty directory of that name is replaced, which is as good.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR)
                ) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if open(directory, name)?.is_none() {
                    return Ok(());
                }
                return sys::rename((directory, name), (top, &new_name));
            }
            result => return ignore_missing(result),
        }
    }
}

/// Opens a directory on the same mount and makes it accessible; `None` if it is gone.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let opened = match sys::openat2(parent, name, sys::DIRECTORY, sys::BENEATH) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_accessible(parent, name)?;
            sys::openat2(parent, name, sys::DIRECTORY, sys::BENEATH)
        }
        result => result,
    };
    match opened {
        Ok(directory) => {
            let (uid, _) = sys::effective_ids();
            // Root needs no permission bits; others need all of theirs to empty it.
            if uid != 0 {
                let stat = sys::fstat(directory.as_fd())?;
                if stat.st_uid == uid && stat.st_mode & 0o700 != 0o700 {
                    sys::fchmod(directory.as_fd(), 0o700)?;
                }
            }
            Ok(Some(directory))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => Err(io::Error::new(
            io::ErrorKind::CrossesDevices,
            format!(
                "something is mounted on {}: unmount it first",
                name.to_string_lossy()
            ),
        )),
        Err(error) => Err(error),
    }
}

fn make_accessible(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = sys::openat2(parent, name, flags, sys::BENEATH)?;
    let path = sys::c_string(
        format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&directory)
        )
        .as_bytes(),
    )?;
    // The path is absolute: the directory given does not matter.
    sys::chmod(parent, &path, 0o700)
}

fn is_directory(error: &io::Error) -> bool {
    // Linux says this where POSIX has EPERM, which here is a true refusal (an immutable file).
    error.raw_os_error() == Some(libc::EISDIR)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

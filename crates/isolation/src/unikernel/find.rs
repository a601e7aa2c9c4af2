//! Finding a file of an image without mounting it: the walk that overlayfs would do.
//!
//! Each part of the path is looked up by itself in every layer, so that a link never leads out of
//! the image. Source: Linux, Documentation/filesystems/overlayfs.rst ("Upper and Lower",
//! "whiteouts and opaque directories").

use crate::contract::RootSource;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::{self, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Most links that are followed (path_resolution(7): `ELOOP`).
const MAX_LINKS: u32 = 40;

/// The attributes by which a directory hides those below it: overlayfs's as root, and in a user
/// namespace.
const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];

/// What a path means in one or several layers.
enum Found {
    /// The directories that are shown as one, topmost first.
    Directory(Vec<PathBuf>),
    /// A link and its target.
    Link(PathBuf),
    /// Anything else.
    File(PathBuf, FileType),
}

/// The path on the host of a program of a root.
///
/// # Errors
/// As [`file`], and `PermissionDenied` if nobody may execute it.
pub(super) fn program(root: &RootSource, path: &str) -> io::Result<PathBuf> {
    let found = file(root, path)?;
    if fs::symlink_metadata(&found)?.mode() & 0o111 == 0 {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "nobody may execute it",
        ));
    }
    Ok(found)
}

/// The path on the host of a regular file of a root.
///
/// # Errors
/// `NotFound`, `PermissionDenied` if it is no regular file, and those of lstat(2) and readlink(2).
pub(super) fn file(root: &RootSource, path: &str) -> io::Result<PathBuf> {
    let layers = match root {
        RootSource::Directory(directory) => vec![directory.clone()],
        RootSource::Layers {
            lower, writable, ..
        } => {
            let mut layers = vec![writable.join("upper")];
            layers.extend(lower.iter().cloned());
            layers.retain(|layer| layer.is_dir());
            layers
        }
    };
    let (found, kind) = walk(layers, path)?;
    if !kind.is_file() {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "it is no regular file",
        ));
    }
    Ok(found)
}

fn walk(layers: Vec<PathBuf>, path: &str) -> io::Result<(PathBuf, FileType)> {
    let missing = || io::Error::from(ErrorKind::NotFound);
    let mut parts = split(path);
    // The directories on the way, so that `..` finds back.
    let mut stack = vec![layers];
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        if part == ".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let here = stack.last().ok_or_else(missing)?;
        match look_up(here, &part)?.ok_or_else(missing)? {
            Found::Directory(directories) => stack.push(directories),
            Found::File(path, kind) if parts.is_empty() => return Ok((path, kind)),
            Found::File(..) => return Err(ErrorKind::NotADirectory.into()),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many links lead to it"));
                }
                let target = target.to_str().ok_or_else(missing)?;
                if target.starts_with('/') {
                    stack.truncate(1);
                }
                for part in split(target).into_iter().rev() {
                    parts.push_front(part);
                }
            }
        }
    }
    Err(io::Error::new(
        ErrorKind::PermissionDenied,
        "it is a directory",
    ))
}

fn split(path: &str) -> VecDeque<String> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
        .collect()
}

/// Looks for a name in directories that are shown as one, topmost first.
fn look_up(directories: &[PathBuf], name: &str) -> io::Result<Option<Found>> {
    let mut shown = Vec::new();
    for directory in directories {
        let path = directory.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let opaque = is_opaque(&path);
            shown.push(path);
            if opaque {
                break;
            }
            continue;
        }
        // A file or a whiteout ends what is shown of directories below it.
        let is_whiteout = kind.is_char_device() && metadata.rdev() == 0;
        if !shown.is_empty() || is_whiteout {
            break;
        }
        return Ok(Some(if kind.is_symlink() {
            Found::Link(fs::read_link(&path)?)
        } else {
            Found::File(path, kind)
        }));
    }
    Ok((!shown.is_empty()).then_some(Found::Directory(shown)))
}

fn is_opaque(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    OPAQUE.iter().any(|name| {
        let mut value = [0_u8; 1];
        // SAFETY: both names are C strings; at most one byte is written into `value`.
        let length = unsafe {
            libc::lgetxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        length == 1 && &value == b"y"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn write(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn whiteout(path: &Path) -> bool {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string and numbers.
        unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR, 0) == 0 }
    }

    #[test]
    fn the_topmost_layer_wins_and_links_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        let (top, bottom) = (directory.path().join("1"), directory.path().join("0"));
        write(&top.join("bin/a"), 0o555);
        write(&bottom.join("bin/a"), 0o555);
        write(&bottom.join("bin/b"), 0o555);
        write(&bottom.join("bin/data"), 0o444);
        write(&directory.path().join("secret"), 0o555);
        symlink("../../../secret", top.join("out")).unwrap();
        symlink("/bin/../bin/b", top.join("in")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        let root = RootSource::Layers {
            lower: vec![top.clone(), bottom.clone()],
            writable: directory.path().join("writable"),
            volatile: false,
        };
        let find = |path: &str| program(&root, path);
        assert_eq!(find("/bin/a").unwrap(), top.join("bin/a"));
        assert_eq!(find("bin/./b").unwrap(), bottom.join("bin/b"));
        assert_eq!(find("/in").unwrap(), bottom.join("bin/b"));
        for (path, kind) in [
            ("/out", ErrorKind::NotFound),
            ("/bin/c", ErrorKind::NotFound),
            ("/bin", ErrorKind::PermissionDenied),
            ("/bin/data", ErrorKind::PermissionDenied),
            ("/bin/a/b", ErrorKind::NotADirectory),
            ("/loop", ErrorKind::Other),
            ("", ErrorKind::PermissionDenied),
        ] {
            assert_eq!(find(path).unwrap_err().kind(), kind, "{path}");
        }
        // What was written on top is what runs, and what was removed there does not.
        write(&directory.path().join("writable/upper/bin/b"), 0o755);
        assert!(find("/in").unwrap().ends_with("upper/bin/b"));
        let gone = directory.path().join("writable/upper/bin/a");
        if whiteout(&gone) {
            assert_eq!(find("/bin/a").unwrap_err().kind(), ErrorKind::NotFound);
        } else {
            println!("SKIPPED: whiteouts need CAP_MKNOD");
        }
    }

    #[test]
    fn opaque_directories_and_files_hide_what_is_below() {
        let directory = tempfile::tempdir().unwrap();
        let (top, bottom) = (directory.path().join("1"), directory.path().join("0"));
        write(&bottom.join("a/b"), 0o555);
        write(&bottom.join("c/d"), 0o555);
        write(&top.join("c"), 0o555);
        fs::create_dir(top.join("a")).unwrap();
        let root = RootSource::Layers {
            lower: vec![top.clone(), bottom],
            writable: directory.path().join("none"),
            volatile: false,
        };
        assert!(program(&root, "/a/b").is_ok());
        assert_eq!(
            program(&root, "/c/d").unwrap_err().kind(),
            ErrorKind::NotADirectory
        );
        let path = CString::new(top.join("a").as_os_str().as_bytes()).unwrap();
        // SAFETY: C strings, and a value of one byte.
        let set = unsafe {
            libc::setxattr(
                path.as_ptr(),
                OPAQUE[0].as_ptr(),
                b"y".as_ptr().cast(),
                1,
                0,
            )
        };
        if set == 0 {
            assert_eq!(
                program(&root, "/a/b").unwrap_err().kind(),
                ErrorKind::NotFound
            );
        } else {
            println!("SKIPPED: trusted attributes need CAP_SYS_ADMIN");
        }
    }
}

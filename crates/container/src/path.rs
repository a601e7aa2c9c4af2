//! Paths inside a container: resolved beneath its root, whatever links an image put there.

use crate::error::Error;
use crate::sys::{self, Errno, SysResult, resolve};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Links followed in one path before it is taken for a loop, as the kernel does.
const MAX_LINKS: usize = 40;

/// What to make where a path ends in nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644.
    File,
}

/// The root directory of a container.
#[derive(Debug)]
pub(crate) struct RootDirectory(pub OwnedFd);

impl RootDirectory {
    /// Opens a path as the container sees it: `..` and absolute links stop at the root, and magic
    /// links of /proc are refused.
    pub(crate) fn open(&self, path: &str, flags: i32) -> SysResult<OwnedFd> {
        let path = sys::c_string(path)?;
        sys::openat2(
            self.0.as_fd(),
            &path,
            flags,
            0,
            resolve::IN_ROOT | resolve::NO_MAGICLINKS,
        )
    }

    /// The same, but any link on the way is an error.
    pub(crate) fn open_without_links(&self, path: &str, flags: i32) -> SysResult<OwnedFd> {
        let path = sys::c_string(path)?;
        sys::openat2(
            self.0.as_fd(),
            &path,
            flags,
            0,
            resolve::IN_ROOT | resolve::NO_MAGICLINKS | resolve::NO_SYMLINKS,
        )
    }

    /// Refers to a path (`O_PATH`), making what is missing of it. Answers whether it was there.
    ///
    /// Nothing is ever made through a link that leads out: each missing part is made in a
    /// directory that was resolved beneath the root, and opened without following links.
    pub(crate) fn open_or_make(
        &self,
        path: &str,
        missing: Missing,
    ) -> Result<(OwnedFd, bool), Error> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            match self.open(&path, libc::O_PATH) {
                Ok(found) => return Ok((found, true)),
                Err(Errno(libc::ENOENT)) => {}
                Err(errno) => {
                    return Err(Error::system(
                        &["open ", &path, " in the container"].concat(),
                        errno,
                    ));
                }
            }
            match self.make(&path, missing)? {
                Step::Made(made) => return Ok((made, false)),
                Step::Again => {}
                Step::Link(elsewhere) => path = elsewhere,
            }
        }
        Err(Error::system(
            &["make ", &path, " in the container"].concat(),
            Errno(libc::ELOOP),
        ))
    }

    /// Makes what is missing of a path, from its deepest existing directory on.
    fn make(&self, path: &str, missing: Missing) -> Result<Step, Error> {
        let failed = |errno| Error::system(&["make ", path, " in the container"].concat(), errno);
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let (mut directory, existing) = self.deepest(&parts).map_err(failed)?;
        for (index, part) in parts.iter().enumerate().skip(existing) {
            if *part == ".." {
                return Err(Error::invalid(
                    [
                        "make ",
                        path,
                        " in the container: \"..\" behind a missing directory",
                    ]
                    .concat(),
                ));
            }
            let name = sys::c_string(part).map_err(failed)?;
            let last = index + 1 == parts.len();
            let made = if last && missing == Missing::File {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
                sys::openat2(directory.as_fd(), &name, flags, 0o644, resolve::BENEATH).map(drop)
            } else {
                sys::mkdir(directory.as_fd(), &name, 0o755)
            };
            match made {
                Ok(()) => {}
                Err(Errno(libc::EEXIST)) => {
                    return Ok(self.existing(&directory, &parts, index, &name));
                }
                Err(errno) => return Err(failed(errno)),
            }
            directory = sys::openat2(
                directory.as_fd(),
                &name,
                libc::O_PATH | libc::O_NOFOLLOW,
                0,
                resolve::BENEATH | resolve::NO_SYMLINKS,
            )
            .map_err(failed)?;
        }
        Ok(Step::Made(directory))
    }

    /// The deepest existing directory of a path, and how many of its parts that takes.
    fn deepest(&self, parts: &[&str]) -> SysResult<(OwnedFd, usize)> {
        let mut count = parts.len().saturating_sub(1);
        loop {
            let prefix = ["/", &parts[..count].join("/")].concat();
            match self.open(&prefix, libc::O_PATH | libc::O_DIRECTORY) {
                Ok(directory) => return Ok((directory, count)),
                Err(Errno(libc::ENOENT)) if count > 0 => count -= 1,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A part that could neither be resolved nor made: a link to nowhere (its target is then
    /// made, inside the root), or something that has come into being meanwhile.
    fn existing(&self, directory: &OwnedFd, parts: &[&str], index: usize, name: &CString) -> Step {
        let Ok(link) = sys::readlink(directory.as_fd(), name) else {
            return Step::Again;
        };
        let link = String::from_utf8_lossy(&link).into_owned();
        let rest = parts[index + 1..].join("/");
        Step::Link(if link.starts_with('/') {
            [&*link, "/", &rest].concat()
        } else {
            ["/", &parts[..index].join("/"), "/", &link, "/", &rest].concat()
        })
    }

    /// A descriptor of the root itself.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

enum Step {
    Made(OwnedFd),
    Again,
    Link(String),
}

/// An absolute path without `.`, `..`, double and trailing slashes.
pub(crate) fn clean(path: &str) -> Result<String, Error> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::invalid(
            ["path \"", path, "\" in the container is not absolute"].concat(),
        ));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(["/", &parts.join("/")].concat())
}

/// Directory and name of a cleaned path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => ("/", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean("/a//b/./../c/").unwrap(), "/a/c");
        assert_eq!(clean("/../../x").unwrap(), "/x");
        assert_eq!(clean("/").unwrap(), "/");
        assert!(clean("a/b").is_err());
        assert!(clean("/a\0b").is_err());
    }

    #[test]
    fn paths_are_split() {
        assert_eq!(split("/dev/null"), ("/dev", "null"));
        assert_eq!(split("/x"), ("/", "x"));
    }

    #[test]
    fn missing_parts_are_made_inside_whatever_the_links_say() {
        let base = std::env::temp_dir().join(format!("gamut-path-{}", std::process::id()));
        std::fs::create_dir_all(base.join("root/etc")).unwrap();
        std::os::unix::fs::symlink("/run", base.join("root/var")).unwrap();
        std::os::unix::fs::symlink("../../../../up", base.join("root/etc/up")).unwrap();
        std::os::unix::fs::symlink("loop", base.join("root/loop")).unwrap();
        let root = RootDirectory(std::fs::File::open(base.join("root")).unwrap().into());
        let (_, there) = root.open_or_make("/var/lib/x", Missing::Directory).unwrap();
        assert!(!there);
        assert!(base.join("root/run/lib/x").is_dir());
        root.open_or_make("/etc/up/file", Missing::File).unwrap();
        assert!(base.join("root/up/file").is_file());
        assert!(!base.join("up").exists());
        assert!(root.open_or_make("/loop/x", Missing::File).is_err());
        assert!(root.open_or_make("/gone/../x", Missing::File).is_err());
        assert!(root.open_or_make("/etc", Missing::Directory).unwrap().1);
        std::fs::remove_dir_all(&base).unwrap();
    }
}

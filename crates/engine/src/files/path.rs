//! Paths as clients give them.

use super::node::{IN_ROOT, Node};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

/// Symbolic links followed for one path before it is taken for a loop, as in the kernel.
const MAX_LINKS: u32 = 40;

/// A path in a container, cleaned the way Docker does: `..` and `.` are worked out as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Relative to the container's root, without empty, `.` and `..` components; empty: the root.
    pub path: Vec<u8>,
    /// It ended in `/` or `/.`: a link at its end is followed, and it must be a directory.
    pub directory: bool,
    /// Docker's name of it: the last component; `.` if it ended in that, `/` for the root.
    pub name: String,
}

impl Asked {
    /// Cleans a path.
    pub fn parse(text: &str) -> Self {
        let path = clean(text.as_bytes());
        let dot = text == "." || text.ends_with("/.");
        let name = match path.rsplit(|&byte| byte == b'/').next() {
            _ if dot => ".".to_owned(),
            Some(b"") | None => "/".to_owned(),
            Some(last) => String::from_utf8_lossy(last).into_owned(),
        };
        Self {
            directory: dot || path.is_empty() || text.ends_with('/'),
            path,
            name,
        }
    }

    /// Opens what is there. A link at the end is opened itself unless a directory is asked for.
    pub fn open(&self, root: BorrowedFd<'_>) -> io::Result<Node> {
        if self.directory {
            Node::open_directory(root, &self.path, IN_ROOT)
        } else {
            Node::open(root, &self.path, IN_ROOT)
        }
    }
}

/// The path without empty and `.` components; `..` takes the component before it away.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Where a path ends when every link in it is followed inside the root, as far as that exists:
/// absolute. Only for showing: it may be out of date at once.
pub(super) fn follow(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let components = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&byte| byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect()
    };
    let mut ahead = VecDeque::from(components(path));
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == b".." {
            found.pop();
            continue;
        }
        found.push(part);
        let target = match Node::open(root, &found.join(&b'/'), IN_ROOT) {
            Ok(node) if node.kind() == libc::S_IFLNK => node.link_target()?,
            _ => continue,
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if target.first() == Some(&b'/') {
            found.clear();
        } else {
            found.pop();
        }
        for part in components(&target).into_iter().rev() {
            ahead.push_front(part);
        }
    }
    Ok([b"/".as_slice(), &found.join(&b'/')].concat())
}

//! What files come down to: so that two runs of the same can be compared.

use super::changes::ChangeKind;
use super::node::{BELOW, Node};
use super::walk::{Next, present, walk};
use crate::engine::Engine;
use crate::error::{Error, Result};
use gamut_image::Digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

impl Engine {
    /// Each file that a container has changed of its image's, by its absolute path, with what it is
    /// now, as [`directory_fingerprints`] has it; `deleted` if it has gone.
    ///
    /// # Errors
    /// `NotFound`, or if the files cannot be read.
    pub fn fingerprints(&self, name_or_id: &str) -> Result<BTreeMap<String, String>> {
        let container = self.index.find(name_or_id)?;
        self.with_sides(&container, |sides| {
            let read = || -> io::Result<BTreeMap<String, String>> {
                let mut found = BTreeMap::new();
                for change in sides.changes()? {
                    let path = format!("/{}", change.path.escape_ascii());
                    if change.kind == ChangeKind::Deleted {
                        found.insert(path, "deleted".to_owned());
                        continue;
                    }
                    let node = present(Node::open(sides.merged(), &change.path, BELOW))?;
                    if let Some(node) = node {
                        found.insert(path, fingerprint(&node)?);
                    }
                }
                Ok(found)
            };
            read().map_err(|source| {
                Error::system(format!("read the files of container {name_or_id}"), source)
            })
        })
    }
}

/// Each file of a directory and the directory itself, by its path below `shown`, with what it is: kind,
/// permission bits, owner and, of files, length and SHA-256. Times are left out.
///
/// # Errors
/// If something of it cannot be read.
pub fn directory_fingerprints(
    directory: &Path,
    shown: &str,
) -> io::Result<BTreeMap<String, String>> {
    let top = Node::from_fd(OwnedFd::from(File::open(directory)?))?;
    let shown = shown.trim_end_matches('/');
    let mut found = BTreeMap::from([(shown.to_owned(), fingerprint(&top)?)]);
    walk(top.fd.as_fd(), &mut |path, node| {
        let path = format!("{shown}/{}", path.escape_ascii());
        found.insert(path, fingerprint(node)?);
        Ok(Next::Descend)
    })?;
    Ok(found)
}

fn fingerprint(node: &Node) -> io::Result<String> {
    let stat = &node.stat;
    let (mode, owner) = (
        format!("{:04o}", stat.st_mode & 0o7777),
        format!("{}:{}", stat.st_uid, stat.st_gid),
    );
    Ok(match node.kind() {
        libc::S_IFREG => {
            let (digest, bytes) = Digest::of_reader(&mut node.reader()?)?;
            format!("file {mode} {owner} {bytes} {digest}")
        }
        libc::S_IFDIR => format!("directory {mode} {owner}"),
        libc::S_IFLNK => format!("link {owner} to {}", node.link_target()?.escape_ascii()),
        libc::S_IFIFO => format!("fifo {mode} {owner}"),
        libc::S_IFSOCK => format!("socket {mode} {owner}"),
        libc::S_IFBLK => format!("block device {mode} {owner} {:#x}", stat.st_rdev),
        _ => format!("character device {mode} {owner} {:#x}", stat.st_rdev),
    })
}

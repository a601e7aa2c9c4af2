//! What a container's changes come down to: so that two runs of the same can be compared.

use super::changes::ChangeKind;
use super::node::{BELOW, Node};
use super::walk::present;
use crate::engine::Engine;
use crate::error::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};

/// Read at once while hashing, in bytes.
const PIECE_BYTES: usize = 128 << 10;

impl Engine {
    /// Each file that a container has changed of its image's, by its absolute path, with what it is
    /// now: kind, permission bits, owner and the SHA-256 of its content; `deleted` if it has gone.
    /// Times are left out, and directories that have changed only by what is in them.
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

fn fingerprint(node: &Node) -> io::Result<String> {
    let stat = &node.stat;
    let (mode, owner) = (
        format!("{:04o}", stat.st_mode & 0o7777),
        format!("{}:{}", stat.st_uid, stat.st_gid),
    );
    Ok(match node.kind() {
        libc::S_IFREG => {
            let (bytes, hash) = hash(node.reader()?)?;
            format!("file {mode} {owner} {bytes} sha256:{hash}")
        }
        libc::S_IFDIR => format!("directory {mode} {owner}"),
        libc::S_IFLNK => format!("link {owner} to {}", node.link_target()?.escape_ascii()),
        libc::S_IFIFO => format!("fifo {mode} {owner}"),
        libc::S_IFSOCK => format!("socket {mode} {owner}"),
        libc::S_IFBLK => format!("block device {mode} {owner} {:#x}", stat.st_rdev),
        _ => format!("character device {mode} {owner} {:#x}", stat.st_rdev),
    })
}

fn hash(mut reader: impl Read) -> io::Result<(u64, String)> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0_u64);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece)? {
            0 => break,
            count => {
                bytes += count as u64;
                hasher.update(piece.get(..count).unwrap_or_default());
            }
        }
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok((bytes, text))
}

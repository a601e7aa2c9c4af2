//! Directories of the host: copies of them, and what they come down to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// Read at once while hashing, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// Copies a directory with owners, permission bits, times and links. Content is shared where the
/// file system can.
///
/// # Errors
/// The system's; and for what is neither file, directory nor link.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let mut waiting = vec![(from.to_owned(), to.to_owned())];
    let mut directories = Vec::new();
    while let Some((from, to)) = waiting.pop() {
        let failed = |source| Error::io(format!("copy {}", from.display()))(source);
        let data = fs::symlink_metadata(&from).map_err(failed)?;
        if data.is_dir() {
            fs::create_dir(&to).map_err(failed)?;
            for entry in fs::read_dir(&from).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                waiting.push((entry.path(), to.join(entry.file_name())));
            }
            // Its time, and bits that forbid writing, come last.
            directories.push((to, data));
        } else if data.is_symlink() {
            let target = fs::read_link(&from).map_err(failed)?;
            symlink(target, &to).map_err(failed)?;
            lchown(&to, Some(data.uid()), Some(data.gid())).map_err(failed)?;
        } else if data.is_file() {
            fs::copy(&from, &to).map_err(failed)?;
            dress(&to, &data).map_err(failed)?;
        } else {
            return Err(Error::Message(format!(
                "{} is neither a file nor a directory nor a link, and cannot be copied",
                from.display()
            )));
        }
    }
    for (to, data) in directories.into_iter().rev() {
        dress(&to, &data).map_err(Error::io(format!("copy to {}", to.display())))?;
    }
    Ok(())
}

/// Owner, permission bits and times. (A change of owner takes bits away, so they come after it.)
fn dress(to: &Path, data: &Metadata) -> io::Result<()> {
    chown(to, Some(data.uid()), Some(data.gid()))?;
    let times = FileTimes::new().set_modified(data.modified()?);
    File::open(to)?.set_times(times)?;
    fs::set_permissions(to, data.permissions())
}

/// Adds each path below `directory`, which is `shown` in the container, with what it is.
///
/// # Errors
/// The system's.
pub(super) fn fingerprints(
    directory: &Path,
    shown: &str,
    found: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    let mut waiting: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let failed = |source| Error::io(format!("read {}", path.display()))(source);
        let data = fs::symlink_metadata(&path).map_err(failed)?;
        if data.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed)? {
                waiting.push(entry.map_err(failed)?.path());
            }
        }
        let rest = path.strip_prefix(directory).unwrap_or(&path);
        let rest = rest.as_os_str().as_bytes().escape_ascii();
        let name = format!("{}/{rest}", shown.trim_end_matches('/'));
        let what = fingerprint(&path, &data).map_err(failed)?;
        found.insert(name.trim_end_matches('/').to_owned(), what);
    }
    Ok(())
}

fn fingerprint(path: &Path, data: &Metadata) -> io::Result<String> {
    let mode = format!("{:04o}", data.mode() & 0o7777);
    let owner = format!("{}:{}", data.uid(), data.gid());
    let kind = data.file_type();
    Ok(if kind.is_file() {
        let (bytes, hash) = hash(File::open(path)?)?;
        format!("file {mode} {owner} {bytes} sha256:{hash}")
    } else if kind.is_dir() {
        format!("directory {mode} {owner}")
    } else if kind.is_symlink() {
        let target = fs::read_link(path)?;
        format!(
            "link {owner} to {}",
            target.as_os_str().as_bytes().escape_ascii()
        )
    } else if kind.is_fifo() {
        format!("fifo {mode} {owner}")
    } else if kind.is_socket() {
        format!("socket {mode} {owner}")
    } else {
        format!("device {mode} {owner} {:#x}", data.rdev())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_copy_comes_down_to_the_same() {
        let place = tempfile::tempdir().unwrap();
        let from = place.path().join("from");
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/file"), "content").unwrap();
        fs::set_permissions(from.join("a/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("../file", from.join("a/b/link")).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
        let to = place.path().join("to");
        copy(&from, &to).unwrap();
        let all = |directory: &Path| {
            let mut found = BTreeMap::new();
            fingerprints(directory, "/data/", &mut found).unwrap();
            found
        };
        let (one, other) = (all(&from), all(&to));
        assert_eq!(one, other);
        let names: Vec<&str> = one.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "/data",
                "/data/a",
                "/data/a/b",
                "/data/a/b/link",
                "/data/a/file"
            ]
        );
        fs::write(to.join("a/file"), "Content").unwrap();
        assert_ne!(all(&to), one);
    }
}

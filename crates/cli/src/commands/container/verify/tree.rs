//! Copies of directories of the host.

use std::fs::{self, File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::Path;

use crate::error::Error;

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

#[cfg(test)]
mod tests {
    use super::*;
    use gamut_engine::files::directory_fingerprints;
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
        let all = |directory: &Path| directory_fingerprints(directory, "/data/").unwrap();
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

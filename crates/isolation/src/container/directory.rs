//! The run root: one directory per workload, and the empty directory over which roots are
//! mounted.

use gamut_abi::plan::{Seccomp, SeccompListener};
use gamut_abi::wire;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest id that is taken.
const MAX_ID_BYTES: usize = 128;

/// What the level itself has to know about a workload later, whichever daemon asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its control group.
    pub(super) cgroup_path: String,
    /// Its system call filter, which further processes get as well.
    pub(super) seccomp: Option<Seccomp>,
    /// Who hears of its notifications.
    pub(super) seccomp_listener: Option<SeccompListener>,
}

/// Paths below the run root.
#[derive(Debug)]
pub(super) struct RunRoot {
    sandboxes: PathBuf,
    /// Empty, and only ever covered inside a container's own mount namespace.
    pub(super) mount_point: PathBuf,
}

/// Whether an id can be the name of a directory and a control group.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

impl RunRoot {
    /// Makes what is missing, for root's eyes only.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = Self {
            sandboxes: path.join("sandboxes"),
            mount_point: path.join("mnt"),
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&root.sandboxes)?;
        builder.create(&root.mount_point)?;
        Ok(root)
    }

    /// The run directory of a workload. `id` must pass [`is_id`].
    pub(super) fn of(&self, id: &str) -> PathBuf {
        self.sandboxes.join(id)
    }

    /// Makes the run directory of a workload.
    ///
    /// # Errors
    /// Those of mkdir(2), `AlreadyExists` among them.
    pub(super) fn make(&self, id: &str) -> io::Result<PathBuf> {
        let path = self.of(id);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Ids of every workload with a run directory, sorted.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.sandboxes)? {
            let entry = entry?;
            match entry.file_name().into_string() {
                Ok(name) if is_id(&name) && entry.file_type()?.is_dir() => ids.push(name),
                _ => {}
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes the run directory of a workload; links in it are removed, not followed.
    ///
    /// # Errors
    /// Those of unlinkat(2). That it is gone already is no error.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.of(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Writes the level's own record.
///
/// # Errors
/// Those of open(2) and write(2).
pub(super) fn write_record(run_directory: &Path, record: &Record) -> io::Result<()> {
    let frame = wire::encode(record)
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))?;
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(run_directory.join("record"))?;
    file.write_all(&frame)
}

/// Reads the level's own record; `None` if there is none.
///
/// # Errors
/// Those of open(2) and read(2), and `InvalidData` if it is damaged.
pub(super) fn read_record(run_directory: &Path) -> io::Result<Option<Record>> {
    let path = run_directory.join("record");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut frame = Vec::new();
    file.read_to_end(&mut frame)?;
    wire::decode(&frame).map(Some).map_err(|error| {
        io::Error::new(
            ErrorKind::InvalidData,
            format!("{}: {error}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_paths_are_refused() {
        for bad in ["", ".", "..", "a/b", "-a", "a b", "a\0", &"a".repeat(129)] {
            assert!(!is_id(bad), "{bad:?}");
        }
        assert!(is_id(&"f".repeat(64)) && is_id("a.b_c-1"));
    }

    #[test]
    fn records_survive_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = RunRoot::open(&directory.path().join("run")).unwrap();
        let path = root.make("w").unwrap();
        assert_eq!(read_record(&path).unwrap(), None);
        let seccomp = Some(Seccomp {
            program: vec![6],
            flags: 0,
        });
        let record = Record {
            cgroup_path: "/g/w".to_owned(),
            seccomp,
            seccomp_listener: None,
        };
        write_record(&path, &record).unwrap();
        assert_eq!(read_record(&path).unwrap(), Some(record));
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, path.join("link")).unwrap();
        assert_eq!(root.list().unwrap(), ["w"]);
        root.remove("w").unwrap();
        root.remove("w").unwrap();
        assert!(outside.join("file").exists() && root.list().unwrap().is_empty());
    }
}

//! The state store: what should be.
//!
//! One file per object, `<root>/<collection>/<id>.rec` — a header line with kind, version and
//! checksum, then JSON. A record is replaced by writing a temporary file and renaming it, so that
//! a killed daemon finds the old or the new one, never a torn one; with [`Durability::Disk`] it is
//! also on disk before the call returns. Separate files keep damage local: one lost record never
//! takes another along, and every record can be read with `cat`.

use crate::error::{Error, Result};
use gamut_spec::error::ErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

const SUFFIX: &str = ".rec";

/// How safe a record must be before the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of the daemon.
    Process,
    /// Survives a power cut as well.
    Disk,
}

/// One kind of record on disk.
#[derive(Debug)]
pub struct Collection {
    directory: PathBuf,
    kind: &'static str,
    version: u32,
    sequence: AtomicU64,
    /// Held shared while a temporary file is there on purpose.
    writing: RwLock<()>,
}

/// Records, by id.
pub type Loaded<T> = Vec<(String, T)>;

/// A record file that cannot be read as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Collection {
    /// Opens (or makes) the collection `kind` below `root`.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn open(root: &Path, kind: &'static str, version: u32) -> Result<Self> {
        let directory = root.join(kind);
        fs::create_dir_all(&directory).map_err(|source| {
            Error::system(
                format!("make the state directory {}", directory.display()),
                source,
            )
        })?;
        let sequence = AtomicU64::new(0);
        Ok(Self {
            directory,
            kind,
            version,
            sequence,
            writing: RwLock::default(),
        })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}{SUFFIX}"))
    }

    /// Writes (or replaces) the record of `id`.
    ///
    /// # Errors
    /// If it cannot be written; the old record, if any, is still there then.
    pub fn put<T: Serialize>(&self, id: &str, record: &T, durability: Durability) -> Result<()> {
        let path = self.path(id);
        self.write(&path, record, durability)
            .map_err(|source| Error::system(format!("write the record {}", path.display()), source))
    }

    fn write<T: Serialize>(
        &self,
        path: &Path,
        record: &T,
        durability: Durability,
    ) -> io::Result<()> {
        let body = serde_json::to_vec(record)?;
        let mut text =
            format!("gamut-{} {} {}\n", self.kind, self.version, checksum(&body)).into_bytes();
        text.extend_from_slice(&body);
        text.push(b'\n');
        let _writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!(".{number}.tmp"));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&text)?;
            if durability == Durability::Disk {
                file.sync_all()?;
            }
            fs::rename(&temporary, path)?;
            if durability == Durability::Disk {
                File::open(&self.directory)?.sync_all()?;
            }
            Ok(())
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the record of `id`; one that is not there is no error.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, id: &str, durability: Durability) -> Result<()> {
        let path = self.path(id);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(()) if durability == Durability::Disk => {
                File::open(&self.directory).and_then(|directory| directory.sync_all())
            }
            other => other,
        };
        removed.map_err(|source| {
            Error::system(format!("remove the record {}", path.display()), source)
        })
    }

    /// Temporary files that a killed daemon has left.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>> {
        // Nobody writes now, so that none is in use.
        let _still = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let entries = fs::read_dir(&self.directory).map_err(|source| {
            Error::system(format!("read {}", self.directory.display()), source)
        })?;
        Ok(entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| entry.path())
            .collect())
    }

    /// Removes what [`Self::leftovers`] finds.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn sweep(&self) -> Result<()> {
        for path in self.leftovers()? {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a leftover");
            }
        }
        Ok(())
    }

    /// Reads every record; what cannot be read is told, not dropped silently.
    ///
    /// # Errors
    /// If the directory itself cannot be read.
    pub fn load<T: DeserializeOwned>(&self) -> Result<(Loaded<T>, Vec<Damaged>)> {
        let mut records = Vec::new();
        let mut damaged = Vec::new();
        let entries = fs::read_dir(&self.directory).map_err(|source| {
            Error::system(format!("read {}", self.directory.display()), source)
        })?;
        for entry in entries {
            let entry = entry.map_err(|source| {
                Error::system(format!("read {}", self.directory.display()), source)
            })?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let Some(id) = name.strip_suffix(SUFFIX) else {
                damaged.push(Damaged {
                    path,
                    problem: "is no record of ours".to_owned(),
                });
                continue;
            };
            let text = match fs::read(&path) {
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other,
            };
            match text
                .map_err(|error| error.to_string())
                .and_then(|text| parse::<T>(&text, self.kind, self.version))
            {
                Ok(record) => records.push((id.to_owned(), record)),
                Err(problem) => damaged.push(Damaged { path, problem }),
            }
        }
        Ok((records, damaged))
    }

    /// Moves a damaged record out of the way, to `<name>.damaged` beside the collection.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn set_aside(&self, damaged: &Damaged) -> Result<PathBuf> {
        let name = damaged
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let place = self
            .directory
            .with_file_name(format!("damaged-{}", self.kind));
        let target = place.join(name);
        fs::create_dir_all(&place)
            .and_then(|()| fs::rename(&damaged.path, &target))
            .map_err(|source| {
                Error::system(format!("set {} aside", damaged.path.display()), source)
            })?;
        Ok(target)
    }
}

fn checksum(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    gamut_spec::id::hex(digest.get(..8).unwrap_or(&digest))
}

/// Parses a record file. No I/O, for any bytes.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    kind: &str,
    version: u32,
) -> std::result::Result<T, String> {
    let newline = text
        .iter()
        .position(|c| *c == b'\n')
        .ok_or("has no header line")?;
    let (header, body) = text.split_at(newline);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let header = std::str::from_utf8(header).map_err(|_| "has no header line")?;
    let mut words = header.split(' ');
    let (magic, found, sum) = (words.next(), words.next(), words.next());
    if magic.and_then(|magic| magic.strip_prefix("gamut-")) != Some(kind) {
        return Err(format!("is not a {kind} record"));
    }
    match found.and_then(|found| found.parse::<u32>().ok()) {
        Some(found) if found == version => {}
        Some(found) => {
            return Err(format!(
                "has version {found}, this daemon reads version {version}"
            ));
        }
        None => return Err("has no version".to_owned()),
    }
    if sum != Some(checksum(body).as_str()) {
        return Err("is damaged (checksum)".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| format!("is damaged ({error})"))
}

/// An exclusive lock on a data directory, so that there is one writer.
///
/// # Errors
/// [`ErrorKind::Conflict`] if another daemon holds it.
pub fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| Error::system(format!("open {}", path.display()), source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "another daemon uses {}: stop it, or choose another --data-root",
                root.display()
            ),
        )),
        Err(fs::TryLockError::Error(source)) => {
            Err(Error::system(format!("lock {}", path.display()), source))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_damage_is_told() {
        let root = tempfile::tempdir().unwrap();
        let store = Collection::open(root.path(), "thing", 1).unwrap();
        store.put("a", &vec![1, 2, 3], Durability::Disk).unwrap();
        store.put("b", &vec![4], Durability::Process).unwrap();
        store.put("c", &vec![5], Durability::Process).unwrap();
        store.remove("c", Durability::Disk).unwrap();
        store.remove("c", Durability::Disk).unwrap();
        fs::write(root.path().join("thing/.9.tmp"), b"half").unwrap();
        let mut text = fs::read(root.path().join("thing/b.rec")).unwrap();
        let last = text.len() - 2;
        text[last] ^= 1;
        fs::write(root.path().join("thing/b.rec"), text).unwrap();

        let (records, damaged) = store.load::<Vec<u32>>().unwrap();

        assert_eq!(records, [("a".to_owned(), vec![1, 2, 3])]);
        assert_eq!(damaged.len(), 1);
        assert!(damaged[0].problem.contains("checksum"));
        let aside = store.set_aside(&damaged[0]).unwrap();
        assert!(aside.exists());
        assert!(store.load::<Vec<u32>>().unwrap().1.is_empty());
        assert!(
            root.path().join("thing/.9.tmp").exists(),
            "it may be in use"
        );
        assert_eq!(
            store.leftovers().unwrap(),
            [root.path().join("thing/.9.tmp")]
        );
        store.sweep().unwrap();
        assert!(store.leftovers().unwrap().is_empty());
    }

    #[test]
    fn one_writer() {
        let root = tempfile::tempdir().unwrap();
        let first = lock(root.path()).unwrap();
        assert_eq!(lock(root.path()).unwrap_err().kind(), ErrorKind::Conflict);
        drop(first);
        lock(root.path()).unwrap();
    }

    #[test]
    fn any_bytes_are_refused_without_panic() {
        for text in [
            &b""[..],
            b"\n",
            b"gamut-thing\n",
            b"gamut-thing 1\n{}",
            b"gamut-thing 2 x\n1",
        ] {
            assert!(parse::<u32>(text, "thing", 1).is_err());
        }
    }
}

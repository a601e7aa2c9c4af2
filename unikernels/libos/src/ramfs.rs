//! Files in memory.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::error::becomes_error;

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileError {
    /// There is no such file.
    NotFound(String),
    /// The name is empty, or has an empty part, `.` or `..`.
    BadName(String),
    /// A part of the path is a file, or the file is a folder.
    NotAFolder(String),
    /// More bytes than the file system may hold.
    NoSpace,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => write!(f, "{path}: no such file"),
            Self::BadName(path) => write!(f, "{path:?}: not a path of a file"),
            Self::NotAFolder(path) => write!(
                f,
                "{path}: a file where a folder would be, or the other way round"
            ),
            Self::NoSpace => f.write_str("no space left in the file system in memory"),
        }
    }
}

becomes_error!(FileError);

/// Files by their paths. Folders are there because of the files in them.
#[derive(Debug, Clone)]
pub struct RamFs {
    files: BTreeMap<String, Vec<u8>>,
    used_bytes: usize,
    limit_bytes: usize,
}

/// The path without slashes around it.
fn normal(path: &str) -> Result<&str, FileError> {
    let trimmed = path.trim_matches('/');
    let is_bad = |part: &str| matches!(part, "" | "." | "..");
    if trimmed.split('/').any(is_bad) {
        return Err(FileError::BadName(path.to_owned()));
    }
    Ok(trimmed)
}

impl RamFs {
    /// An empty file system that may hold so many bytes of content and names.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            files: BTreeMap::new(),
            used_bytes: 0,
            limit_bytes,
        }
    }

    /// Bytes of content and names.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// The content of a file.
    ///
    /// # Errors
    /// If there is none of that path.
    pub fn read(&self, path: &str) -> Result<&[u8], FileError> {
        let content = self.files.get(normal(path)?);
        content
            .map(Vec::as_slice)
            .ok_or_else(|| FileError::NotFound(path.to_owned()))
    }

    /// Makes or replaces a file.
    ///
    /// # Errors
    /// If the path is none, leads through a file or to a folder, or there is no space; nothing has
    /// changed then.
    pub fn write(&mut self, path: &str, content: Vec<u8>) -> Result<(), FileError> {
        let name = normal(path)?;
        let conflict = || FileError::NotAFolder(path.to_owned());
        let mut parents = name.match_indices('/').map(|(at, _)| at);
        if parents.any(|at| {
            name.get(..at)
                .is_some_and(|part| self.files.contains_key(part))
        }) {
            return Err(conflict());
        }
        if self.list(name).next().is_some() {
            return Err(conflict());
        }
        let old_bytes = self.files.get(name).map_or(0, |old| old.len() + name.len());
        let used_bytes = self.used_bytes - old_bytes + content.len() + name.len();
        if used_bytes > self.limit_bytes {
            return Err(FileError::NoSpace);
        }
        self.used_bytes = used_bytes;
        self.files.insert(name.to_owned(), content);
        Ok(())
    }

    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn append(&mut self, path: &str, more: &[u8]) -> Result<(), FileError> {
        let name = normal(path)?;
        let Some(content) = self.files.get_mut(name) else {
            return self.write(path, more.to_vec());
        };
        if self.used_bytes + more.len() > self.limit_bytes {
            return Err(FileError::NoSpace);
        }
        content.extend_from_slice(more);
        self.used_bytes += more.len();
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// If there is none of that path.
    pub fn remove(&mut self, path: &str) -> Result<(), FileError> {
        let name = normal(path)?;
        let content = self
            .files
            .remove(name)
            .ok_or_else(|| FileError::NotFound(path.to_owned()))?;
        self.used_bytes -= content.len() + name.len();
        Ok(())
    }

    /// The paths of all files below a folder, in order; of all if it is empty.
    pub fn list<'fs>(&'fs self, folder: &str) -> impl Iterator<Item = &'fs str> + use<'fs> {
        let mut prefix = folder.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let begin = prefix.clone();
        self.files
            .range(begin..)
            .map(|(path, _)| path.as_str())
            .take_while(move |path| path.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::{FileError, RamFs};
    use alloc::vec::Vec;

    #[test]
    fn files_are_written_read_listed_and_removed() {
        let mut files = RamFs::new(100);
        files.write("/a/b", b"1".to_vec()).expect("there is space");
        files.append("a/c", b"22").expect("there is space");
        files.append("a/c", b"3").expect("there is space");
        files.write("ab", Vec::new()).expect("there is space");
        assert_eq!(files.read("a//c"), Err(FileError::BadName("a//c".into())));
        assert_eq!(files.read("a/c/"), Ok(&b"223"[..]));
        assert_eq!(files.list("/a").collect::<Vec<_>>(), ["a/b", "a/c"]);
        assert_eq!(files.list("").count(), 3);
        assert_eq!(files.used_bytes(), 12);
        files.remove("a/b").expect("it is there");
        assert!(matches!(files.remove("a/b"), Err(FileError::NotFound(_))));
        assert_eq!(files.used_bytes(), 8);
    }

    #[test]
    fn files_and_folders_do_not_mix_and_space_ends() {
        let mut files = RamFs::new(10);
        files.write("a/b", b"123".to_vec()).expect("there is space");
        assert!(matches!(
            files.write("a/b/c", Vec::new()),
            Err(FileError::NotAFolder(_))
        ));
        assert!(matches!(
            files.write("a", Vec::new()),
            Err(FileError::NotAFolder(_))
        ));
        assert_eq!(files.write("x", b"1234".to_vec()), Err(FileError::NoSpace));
        assert_eq!(files.append("a/b", b"12345"), Err(FileError::NoSpace));
        files
            .write("a/b", b"1234567".to_vec())
            .expect("it replaces");
        assert_eq!(files.used_bytes(), 10);
        for path in ["", "/", ".", "a/../b", "a//b"] {
            assert!(matches!(
                files.write(path, Vec::new()),
                Err(FileError::BadName(_))
            ));
        }
    }
}

//! The image of a guest's read-only file system: made on the host, read in place by the guest.
//!
//! ```text
//! header (32 bytes)   magic, number of files, bytes of names, bytes of the image
//! entries (32 bytes each), sorted by path
//! names, one after the other
//! contents, each aligned to 4096 bytes
//! ```
//!
//! Paths have no slash at their ends; folders are there because of the files in them. All numbers
//! are little-endian.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// First bytes of an image.
pub const MAGIC: [u8; 8] = *b"GAMUTRO1";

const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
const ALIGNMENT: usize = 4096;

/// What is wrong with an image, or with files that are to become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RofsError {
    /// It is no such image, or damaged.
    Damaged(&'static str),
    /// The path is empty, or has an empty part, `.` or `..`.
    BadPath(String),
    /// Two files have this path, or one lies below the other.
    Conflict(String),
    /// More than the format can hold.
    TooLarge,
}

impl fmt::Display for RofsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "the image of the file system is damaged: {what}"),
            Self::BadPath(path) => write!(f, "{path:?} is not a path of a file"),
            Self::Conflict(path) => write!(f, "{path}: there twice, or both file and folder"),
            Self::TooLarge => f.write_str("more files or bytes than the file system can hold"),
        }
    }
}

impl core::error::Error for RofsError {}

/// Whether a path is as the image has them: without slashes around it, empty parts and dots.
fn is_path(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn double(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

/// A file system, in place.
#[derive(Debug, Clone, Copy)]
pub struct Rofs<'image> {
    image: &'image [u8],
    count: usize,
}

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File<'image> {
    /// Its path.
    pub path: &'image str,
    /// Its content.
    pub content: &'image [u8],
}

impl<'image> Rofs<'image> {
    /// Checks an image: every entry lies in it, and paths are sorted.
    ///
    /// # Errors
    /// If it is no such image, or damaged.
    pub fn parse(image: &'image [u8]) -> Result<Self, RofsError> {
        if image.get(..8) != Some(&MAGIC) {
            return Err(RofsError::Damaged("no magic"));
        }
        let header = || Some((word(image, 8)?, double(image, 24)?));
        let (count, bytes) = header().ok_or(RofsError::Damaged("no header"))?;
        let image = image
            .get(..bytes)
            .ok_or(RofsError::Damaged("its end is missing"))?;
        let this = Self { image, count };
        let mut last = "";
        for index in 0..count {
            let file = this
                .file(index)
                .ok_or(RofsError::Damaged("an entry leads out of it"))?;
            if file.path <= last {
                return Err(RofsError::Damaged("its paths are not sorted"));
            }
            if !is_path(file.path) {
                return Err(RofsError::Damaged(
                    "an entry has a path that no file can have",
                ));
            }
            last = file.path;
        }
        Ok(this)
    }

    fn file(&self, index: usize) -> Option<File<'image>> {
        let at = HEADER_BYTES.checked_add(index.checked_mul(ENTRY_BYTES)?)?;
        let entry = self.image.get(at..at.checked_add(ENTRY_BYTES)?)?;
        let (name, name_bytes) = (word(entry, 0)?, word(entry, 4)?);
        let (content, content_bytes) = (double(entry, 8)?, double(entry, 16)?);
        let path = self.image.get(name..name.checked_add(name_bytes)?)?;
        Some(File {
            path: core::str::from_utf8(path).ok()?,
            content: self
                .image
                .get(content..content.checked_add(content_bytes)?)?,
        })
    }

    /// All files, in order of their paths.
    pub fn files(&self) -> impl Iterator<Item = File<'image>> + use<'image> {
        let this = *self;
        (0..this.count).filter_map(move |index| this.file(index))
    }

    /// The content of a file; slashes around the path do not matter.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<&'image [u8]> {
        let path = path.trim_matches('/');
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let file = self.file(middle)?;
            match file.path.cmp(path) {
                core::cmp::Ordering::Equal => return Some(file.content),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Makes an image of files: paths, without or with slashes around them, and contents. The same
/// files give the same bytes, in whatever order they come.
///
/// # Errors
/// If a path is none, is there twice, or is both file and folder; or if they are too many.
pub fn build(files: &[(&str, &[u8])]) -> Result<Vec<u8>, RofsError> {
    let mut sorted = Vec::with_capacity(files.len());
    for &(path, content) in files {
        let trimmed = path.trim_matches('/');
        if !is_path(trimmed) {
            return Err(RofsError::BadPath(path.to_owned()));
        }
        sorted.push((trimmed, content));
    }
    sorted.sort_unstable_by_key(|&(path, _)| path);
    let has = |path: &str| {
        sorted
            .binary_search_by_key(&path, |&(known, _)| known)
            .is_ok()
    };
    for (index, &(path, _)) in sorted.iter().enumerate() {
        let is_twice = index > 0 && sorted.get(index - 1).is_some_and(|&(last, _)| last == path);
        let is_below = path
            .match_indices('/')
            .any(|(at, _)| path.get(..at).is_some_and(has));
        if is_twice || is_below {
            return Err(RofsError::Conflict(path.to_owned()));
        }
    }
    let short = |number: usize| u32::try_from(number).map_err(|_| RofsError::TooLarge);
    let names_bytes: usize = sorted.iter().map(|(path, _)| path.len()).sum();
    let mut name = HEADER_BYTES + sorted.len() * ENTRY_BYTES;
    let mut content = (name + names_bytes).next_multiple_of(ALIGNMENT);
    let mut image = Vec::new();
    image.extend_from_slice(&MAGIC);
    image.extend_from_slice(&short(sorted.len())?.to_le_bytes());
    image.extend_from_slice(&short(names_bytes)?.to_le_bytes());
    image.extend_from_slice(&[0; 16]);
    for (path, data) in &sorted {
        image.extend_from_slice(&short(name)?.to_le_bytes());
        image.extend_from_slice(&short(path.len())?.to_le_bytes());
        image.extend_from_slice(&(content as u64).to_le_bytes());
        image.extend_from_slice(&(data.len() as u64).to_le_bytes());
        image.extend_from_slice(&[0; 8]);
        name += path.len();
        content = (content + data.len()).next_multiple_of(ALIGNMENT);
    }
    for (path, _) in &sorted {
        image.extend_from_slice(path.as_bytes());
    }
    for (_, data) in &sorted {
        image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
        image.extend_from_slice(data);
    }
    let bytes = (image.len() as u64).to_le_bytes();
    if let Some(place) = image.get_mut(24..32) {
        place.copy_from_slice(&bytes);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::{File, Rofs, RofsError, build};
    use alloc::collections::BTreeMap;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn files_are_found_in_place() {
        let files: [(&str, &[u8]); 3] =
            [("/www/index.html", b"hi"), ("b", b""), ("a/b", &[7; 5000])];
        let image = build(&files).expect("good files");
        let fs = Rofs::parse(&image).expect("a good image");
        assert_eq!(fs.read("www/index.html"), Some(&b"hi"[..]));
        assert_eq!(fs.read("/b"), Some(&b""[..]));
        assert_eq!(fs.read("www"), None);
        let paths: Vec<&str> = fs.files().map(|file| file.path).collect();
        assert_eq!(paths, ["a/b", "b", "www/index.html"]);
        for File { content, .. } in fs.files() {
            let offset = content.as_ptr().addr() - image.as_ptr().addr();
            assert_eq!(offset % 4096, 0);
        }
        let reversed: Vec<_> = files.iter().rev().copied().collect();
        assert_eq!(build(&reversed).as_ref(), Ok(&image));
    }

    #[test]
    fn files_that_contradict_each_other_are_refused() {
        let conflict = |files: &[(&str, &[u8])]| build(files).expect_err("a conflict");
        assert!(matches!(
            conflict(&[("a", b""), ("/a", b"")]),
            RofsError::Conflict(_)
        ));
        assert!(matches!(
            conflict(&[("a", b""), ("a-b", b""), ("a/b", b"")]),
            RofsError::Conflict(_)
        ));
        for path in ["", "/", "a//b", "../a", "."] {
            assert!(matches!(conflict(&[(path, b"")]), RofsError::BadPath(_)));
        }
    }

    #[test]
    fn paths_that_could_not_be_looked_up_are_damage() {
        let mut image = build(&[("a/b", b"1")]).expect("a good file");
        let name = image.windows(3).position(|part| part == b"a/b");
        let name = name.expect("the name is in it");
        assert!(Rofs::parse(&image).is_ok());
        image[name..name + 3].copy_from_slice(b":a/");
        assert!(matches!(Rofs::parse(&image), Err(RofsError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(
            files in proptest::collection::btree_map("[a-c]{1,3}", proptest::collection::vec(any::<u8>(), 0..50), 0..20),
        ) {
            let files: BTreeMap<String, Vec<u8>> = files;
            let list: Vec<(&str, &[u8])> =
                files.iter().map(|(path, data)| (path.as_str(), data.as_slice())).collect();
            let image = build(&list).expect("good files");
            let fs = Rofs::parse(&image).expect("a good image");
            for (path, data) in &list {
                prop_assert_eq!(fs.read(path), Some(*data));
            }
            prop_assert_eq!(fs.files().count(), list.len());
        }

        #[test]
        fn no_bytes_make_it_panic(damage: Vec<(usize, u8)>, cut: usize) {
            let mut image = build(&[("a", b"1"), ("b/c", b"2")]).expect("good files");
            for (at, byte) in damage {
                let length = 200.min(image.len());
                image[at % length] = byte;
            }
            let cut = cut % (image.len() + 1);
            for bytes in [&image[..], &image[..cut]] {
                if let Ok(fs) = Rofs::parse(bytes) {
                    let _ = (fs.files().count(), fs.read("a"), fs.read("zz"));
                }
            }
        }
    }
}

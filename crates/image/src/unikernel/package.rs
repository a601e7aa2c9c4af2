//! What a unikernel is packed from: a tar archive of its program and files.

use std::io::{self, Read};

use super::MAX_UNIKERNEL_BYTES;
use crate::error::{Error, Result};
use crate::tar::{Kind, Limits, ReadError, Reader};

/// Name of the program in the archive.
const PROGRAM: &str = "unikernel";
/// Before the names of files.
const FILES: &str = "files/";

/// A program, and files that it can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// The ELF file.
    pub program: Vec<u8>,
    /// Paths in its read-only file system, and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Package {
    /// Reads an archive with the member `unikernel` and, for each file, `files/PATH`. Directories
    /// are passed over.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is no program or anything else, or all of it is larger than
    /// [`MAX_UNIKERNEL_BYTES`]; [`Error::Read`].
    pub fn read(archive: impl Read) -> Result<Self> {
        let malformed = |problem: String| Error::malformed("the archive of the unikernel", problem);
        let failed = |error| match error {
            ReadError::Archive(error) => malformed(error.to_string()),
            ReadError::Io(source) => reading(source),
        };
        let mut reader = Reader::new(archive, Limits::default());
        let mut package = Self::default();
        let mut left_bytes = MAX_UNIKERNEL_BYTES;
        let mut has_program = false;
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let name = String::from_utf8(entry.path)
                .map_err(|_| malformed("the name of a file is not UTF-8".to_owned()))?;
            if entry.kind == Kind::Directory {
                continue;
            }
            if entry.kind != Kind::File {
                return Err(malformed(format!("{name} is neither file nor directory")));
            }
            left_bytes = left_bytes.checked_sub(entry.size_bytes).ok_or_else(|| {
                malformed(format!(
                    "program and files are larger than {MAX_UNIKERNEL_BYTES} bytes together"
                ))
            })?;
            let mut content = Vec::new();
            reader.read_to_end(&mut content).map_err(reading)?;
            if name == PROGRAM && !has_program {
                package.program = content;
                has_program = true;
            } else if let Some(path) = name.strip_prefix(FILES) {
                package.files.push((path.to_owned(), content));
            } else {
                return Err(malformed(format!(
                    "{name} is neither {PROGRAM} nor below {FILES}"
                )));
            }
        }
        if !has_program {
            return Err(malformed(format!("there is no {PROGRAM}")));
        }
        Ok(package)
    }
}

/// Entry for fuzzing: any bytes are a package or none.
pub fn fuzz_unikernel_package(data: &[u8]) {
    if let Ok(package) = Package::read(data) {
        let _ = package.files.len();
    }
}

fn reading(source: io::Error) -> Error {
    Error::Read {
        what: "the archive of the unikernel".to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Entry, Writer};
    use proptest::prelude::*;

    fn archive(members: &[(&str, Kind, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (name, kind, content) in members {
            let entry = Entry::new(*name, kind.clone(), 0o644);
            writer.append(&entry, content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn refusal(members: &[(&str, Kind, &[u8])]) -> String {
        Package::read(&archive(members)[..])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn program_and_files_are_told_apart() {
        let bytes = archive(&[
            ("files/a/", Kind::Directory, b""),
            ("files/a/b", Kind::File, b"1"),
            ("unikernel", Kind::File, b"ELF"),
            ("files/c", Kind::File, b""),
        ]);
        let package = Package::read(&bytes[..]).unwrap();
        assert_eq!(package.program, b"ELF");
        let files = [("a/b".to_owned(), b"1".to_vec()), ("c".to_owned(), vec![])];
        assert_eq!(package.files, files);
    }

    #[test]
    fn what_is_neither_is_refused() {
        let program = ("unikernel", Kind::File, &b"ELF"[..]);
        assert!(refusal(&[]).contains("there is no unikernel"));
        let other = refusal(&[program.clone(), ("other", Kind::File, b"")]);
        assert!(other.contains("other is neither"), "{other}");
        let twice = refusal(&[program.clone(), program.clone()]);
        assert!(twice.contains("unikernel is neither"), "{twice}");
        let link = refusal(&[program, ("files/l", Kind::Symlink, b"")]);
        assert!(link.contains("neither file nor directory"), "{link}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>, at in 0_usize..2000, byte: u8) {
            let _ = Package::read(&bytes[..]);
            let mut whole = archive(&[("unikernel", Kind::File, b"ELF"), ("files/c", Kind::File, b"2")]);
            if let Some(place) = whole.get_mut(at) {
                *place = byte;
            }
            let _ = Package::read(&whole[..]);
        }
    }
}

//! The files of a log: open, append, rotate.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The newest file of a log.
pub(super) struct LogFile {
    file: File,
    pub(super) bytes: u64,
    /// The file does not end with a newline, because of an earlier mishap.
    torn: bool,
}

impl LogFile {
    /// Opens for appending, and makes the file if need be.
    ///
    /// # Errors
    /// Those of open(2), and `InvalidInput` for anything but a regular file, which might block.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let bytes = metadata.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(Self {
            file,
            bytes,
            torn: last != [b'\n'],
        })
    }

    /// Appends whole lines. On failure returns how many bytes of `lines`, up to the end of a
    /// line, are in the file nevertheless.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.file.write_all(b"\n").map_err(|error| (0, error))?;
            self.bytes += 1;
            self.torn = false;
        }
        let mut written = 0;
        while let Some(rest @ [_, ..]) = lines.get(written..) {
            match self.file.write(rest) {
                Ok(count) if count > 0 => written += count,
                Ok(_) => return Err((self.undo(lines, written), io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((self.undo(lines, written), error)),
            }
        }
        self.bytes += bytes_u64(lines.len());
        Ok(())
    }

    /// Cuts off the line that was written in part only.
    fn undo(&mut self, lines: &[u8], written: usize) -> usize {
        let head = lines.get(..written).unwrap_or(lines);
        let whole = super::lines::find_last_newline(head).map_or(0, |end| end + 1);
        let kept = self.bytes + bytes_u64(whole);
        if whole < written && self.file.set_len(kept).is_err() {
            self.torn = true;
            self.bytes += bytes_u64(written);
        } else {
            self.bytes = kept;
        }
        whole
    }
}

fn bytes_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Path of the n-th older file.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// Moves every file of a log one place on; the oldest of `max_files` falls off. The newest is
/// gone afterwards.
pub(super) fn rotate(path: &Path, max_files: u32) -> io::Result<()> {
    if max_files <= 1 {
        return ignore_missing(fs::remove_file(path));
    }
    for number in (1..max_files - 1).rev() {
        ignore_missing(fs::rename(
            numbered(path, number),
            numbered(path, number + 1),
        ))?;
    }
    ignore_missing(fs::rename(path, numbered(path, 1)))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

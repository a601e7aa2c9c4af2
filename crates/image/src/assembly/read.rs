//! Putting an archive together again from its recipe and the layer's files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use flate2::Crc;

use super::format::{Content, MAGIC, MAX_PART_BYTES, Part, decode};
use crate::compression::Compression;
use crate::layer::sys;

const READ_BYTES: usize = 64 << 10;

/// Flags to open a file of the layer. Not to wait, should it have become a pipe.
const FILE: i32 = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Reads the archive. A failure names the layer, and the file that is missing or changed.
pub(crate) struct Assembled {
    label: String,
    root: OwnedFd,
    recipe: Box<dyn Read + Send>,
    /// What was read of the recipe and is not used up yet: from `start` on.
    buffer: Vec<u8>,
    start: usize,
    current: Current,
}

enum Current {
    /// The next part is to be read.
    Nothing,
    /// Bytes of the buffer, from its start on.
    Literal(usize),
    Content(Piece),
    End,
}

struct Piece {
    file: File,
    path: Vec<u8>,
    offset: u64,
    left: u64,
    crc: Crc,
    expected_crc32: u32,
}

impl Assembled {
    /// Reads the archive whose recipe is `recipe` and whose files are below `root`; `label` names
    /// the layer in errors.
    pub(crate) fn new(recipe: File, root: OwnedFd, label: &str) -> io::Result<Self> {
        let mut recipe = BufReader::with_capacity(READ_BYTES, recipe);
        let mut magic = vec![0; MAGIC.len()];
        let read = recipe.read_exact(&mut magic);
        if read.is_err() || magic != MAGIC {
            let what = "its recipe is of another version, or none";
            return Err(damaged(label, what));
        }
        Ok(Self {
            label: label.to_owned(),
            root,
            recipe: Compression::Zstd.decoder(recipe)?,
            buffer: Vec::new(),
            start: 0,
            current: Current::Nothing,
        })
    }

    /// Reads the next part of the recipe.
    fn next_part(&mut self) -> io::Result<Current> {
        loop {
            let input = self.buffer.get(self.start..).unwrap_or_default();
            if let Some((length, part)) = decode(input).map_err(|what| self.malformed(what))? {
                return match part {
                    Part::End => Ok(Current::End),
                    Part::Literal(bytes) => {
                        let count = bytes.len();
                        // The bytes are the last of the part.
                        self.start += length - count;
                        Ok(Current::Literal(count))
                    }
                    Part::Content(content) => {
                        let piece =
                            open(&self.root, content).map_err(|error| self.named(&error))?;
                        self.start += length;
                        Ok(Current::Content(piece))
                    }
                };
            }
            if input.len() > MAX_PART_BYTES {
                return Err(self.malformed("a part is too long"));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let before = self.buffer.len();
            self.buffer.resize(before + READ_BYTES, 0);
            let free = self.buffer.get_mut(before..).unwrap_or_default();
            let read = self.recipe.read(free);
            self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(self.malformed("it is cut short")),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    fn malformed(&self, what: &str) -> io::Error {
        damaged(&self.label, &format!("its recipe is damaged: {what}"))
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.label))
    }
}

impl Read for Assembled {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.current {
                Current::Nothing => self.current = self.next_part()?,
                Current::End => return Ok(0),
                Current::Literal(0) => self.current = Current::Nothing,
                Current::Literal(left) => {
                    let end = self.start + *left;
                    let mut bytes = self.buffer.get(self.start..end).unwrap_or_default();
                    let count = bytes.read(to)?;
                    self.start += count;
                    *left -= count;
                    return Ok(count);
                }
                Current::Content(piece) if piece.left == 0 => {
                    let checked = piece.check();
                    checked.map_err(|error| self.named(&error))?;
                    self.current = Current::Nothing;
                }
                Current::Content(piece) => {
                    let read = piece.read(to);
                    return read.map_err(|error| self.named(&error));
                }
            }
        }
    }
}

impl Piece {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = to.len().min(most);
        let to = to.get_mut(..length).unwrap_or_default();
        let count = self
            .file
            .read_at(to, self.offset)
            .map_err(|error| of_file(&self.path, error.kind(), &error.to_string()))?;
        if count == 0 {
            return Err(changed(&self.path, "it has become shorter"));
        }
        self.crc.update(to.get(..count).unwrap_or_default());
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }

    fn check(&self) -> io::Result<()> {
        if self.crc.sum() == self.expected_crc32 {
            return Ok(());
        }
        Err(changed(&self.path, "its content has changed"))
    }
}

/// Opens the file that a piece is in.
fn open(root: &OwnedFd, content: Content<'_>) -> io::Result<Piece> {
    let path = content.path;
    let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => path.split_at(slash + 1),
        None => (&[][..], path),
    };
    let failed = |error: io::Error| of_file(path, error.kind(), &error.to_string());
    let parent = parent.strip_suffix(b"/").unwrap_or(parent);
    let parent = sys::open_directory(root.as_fd(), parent).map_err(failed)?;
    let name = sys::c_string(name).map_err(failed)?;
    let file = sys::openat2(parent.as_fd(), &name, FILE, sys::BENEATH).map_err(failed)?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(changed(path, "it is no regular file any more"));
    }
    Ok(Piece {
        file,
        path: path.to_vec(),
        offset: content.offset,
        left: content.length,
        crc: Crc::new(),
        expected_crc32: content.crc32,
    })
}

fn changed(path: &[u8], how: &str) -> io::Error {
    of_file(path, io::ErrorKind::InvalidData, how)
}

fn of_file(path: &[u8], kind: io::ErrorKind, what: &str) -> io::Error {
    let path = path.escape_ascii();
    io::Error::new(kind, format!("unpacked file /{path}: {what}"))
}

fn damaged(label: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{label}: {what}"))
}

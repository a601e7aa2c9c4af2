//! The parser driven over a reader.

use super::{Entry, Error, Event, Limits, Parser};
use std::io::{self, BufRead, Read};

/// Bytes asked of the reader at once: large enough that calls cost nothing.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;

/// What holes are read from.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The archive is damaged or exceeds a limit.
    #[error(transparent)]
    Archive(#[from] Error),
    /// The source failed.
    #[error("reading the tar archive failed")]
    Io(#[source] io::Error),
}

/// Reads an archive entry by entry:
/// [`next_entry`](Self::next_entry), then the content by [`Read`] or [`BufRead`], which give holes
/// as zeros.
pub struct Reader<R> {
    source: R,
    parser: Parser,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Length of the current entry's content, and how much of it was given.
    size_bytes: u64,
    position: u64,
    /// Data that the parser found and that was not given yet: offset, start in the buffer, length.
    data: Option<(u64, usize, usize)>,
    in_entry: bool,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from `source`, which must not be compressed any more.
    #[must_use]
    pub fn new(source: R, limits: Limits) -> Self {
        Self {
            source,
            parser: Parser::new(limits),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            size_bytes: 0,
            position: 0,
            data: None,
            in_entry: false,
            ended: false,
        }
    }

    /// Skips what is left of the current entry and gives the next, `None` after the last. Then
    /// the source has been read to its end.
    ///
    /// # Errors
    /// [`ReadError`] if the archive is damaged or cut short, or if the source fails.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        self.data = None;
        while !self.ended {
            match self.step()? {
                Found::Entry(entry) => {
                    self.size_bytes = entry.size_bytes;
                    self.position = 0;
                    self.in_entry = true;
                    return Ok(Some(*entry));
                }
                Found::Data | Found::EntryEnd => self.data = None,
            }
        }
        Ok(None)
    }

    /// The source, wherever it stands.
    pub fn into_inner(self) -> R {
        self.source
    }

    fn step(&mut self) -> Result<Found, ReadError> {
        loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let step = self.parser.step(input)?;
            let start = self.start;
            self.start += step.consumed;
            match step.event {
                Event::Entry(entry) => return Ok(Found::Entry(entry)),
                Event::Data { offset, bytes } => {
                    // The data is the last that was consumed.
                    let behind = start + step.consumed;
                    self.data = Some((offset, behind - bytes.len(), bytes.len()));
                    return Ok(Found::Data);
                }
                Event::EntryEnd => {
                    self.in_entry = false;
                    return Ok(Found::EntryEnd);
                }
                Event::NeedInput | Event::End if self.start < self.end => {}
                Event::NeedInput | Event::End => {
                    if !self.fill().map_err(ReadError::Io)? {
                        self.parser.finish()?;
                        self.in_entry = false;
                        self.ended = true;
                        return Ok(Found::EntryEnd);
                    }
                }
            }
        }
    }

    /// Reads more; `false` at the end of the source.
    fn fill(&mut self) -> io::Result<bool> {
        self.start = 0;
        self.end = read_some(&mut self.source, &mut self.buffer)?;
        Ok(self.end > 0)
    }
}

enum Found {
    Entry(Box<Entry>),
    Data,
    EntryEnd,
}

impl<R: Read> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.size_bytes - self.position;
        if left == 0 {
            return Ok(&[]);
        }
        while self.data.is_none() && self.in_entry {
            self.step().map_err(|error| match error {
                ReadError::Io(error) => error,
                ReadError::Archive(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            })?;
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        Ok(match self.data {
            Some((offset, start, length)) if offset <= self.position => {
                let end = start + length.min(most);
                self.buffer.get(start..end).unwrap_or_default()
            }
            data => {
                // A hole, up to the data or to the end of the file.
                let hole = data.map_or(left, |(offset, _, _)| offset - self.position);
                let length = usize::try_from(hole).unwrap_or(usize::MAX).min(most);
                ZEROS.get(..length).unwrap_or(&ZEROS)
            }
        })
    }

    fn consume(&mut self, count: usize) {
        if let Some((offset, start, length)) = self.data
            && offset <= self.position
        {
            let left = length.saturating_sub(count);
            self.data = (left > 0).then_some((offset + count as u64, start + count, left));
        }
        self.position += count as u64;
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let count = available.read(to)?;
        self.consume(count);
        Ok(count)
    }
}

/// Reads once, again if interrupted.
fn read_some(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

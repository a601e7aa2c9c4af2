//! The parser: a state machine that is pushed bytes and answers with events. No I/O.

use super::header::{Block, Header, text};
use super::join::{Extensions, Joined, MissingMap, join};
use super::pax::Records;
use super::sparse::{self, Extent, LeadingMap};
use super::{BLOCK_BYTES, Entry, Error, Limits};

/// What the parser found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All input is consumed and more is needed.
    NeedInput,
    /// An entry begins; its content, if any, follows as [`Event::Data`].
    Entry(Box<Entry>),
    /// Content of the entry. What lies between two such pieces is a hole.
    Data {
        /// Where in the file, in bytes.
        offset: u64,
        /// The content, borrowed from the input; never empty.
        bytes: &'a [u8],
    },
    /// The entry is complete.
    EntryEnd,
    /// The archive is complete. Later input is padding and is consumed unseen.
    End,
}

/// An event and how much of the input led to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes of the input that must not be pushed again.
    pub consumed: usize,
    /// What was found.
    pub event: Event<'a>,
}

#[derive(Debug)]
enum State {
    /// Reading a header block.
    Header,
    /// Reading the body of an extension header.
    Extension {
        flag: u8,
        remaining: u64,
        padding: u64,
    },
    /// Reading an extension block of an old GNU sparse header.
    OldSparse(Box<Joined>),
    /// Reading the map in front of a sparse file's data.
    LeadingMap(Box<Joined>, LeadingMap),
    /// Reading content.
    Content,
    /// Reporting the end of an entry.
    EntryEnd,
    /// Skipping the given number of bytes up to the next header.
    Padding(u64),
    /// After the end of the archive.
    End,
}

/// Content of the current entry.
#[derive(Debug, Default)]
struct Content {
    map: std::vec::IntoIter<Extent>,
    current: Option<Extent>,
    padding: u64,
}

/// The tar parser. See the [module's documentation](super) for what it reads.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    /// Bytes consumed so far.
    position: u64,
    /// Where the current header began.
    header_offset: u64,
    block: Block,
    block_bytes: usize,
    zero_block_seen: bool,
    headers: u64,
    extension_body: Vec<u8>,
    extensions: Extensions,
    global: Records,
    content: Content,
}

impl Parser {
    /// A parser at the start of an archive.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Header,
            position: 0,
            header_offset: 0,
            block: [0; BLOCK_BYTES],
            block_bytes: 0,
            zero_block_seen: false,
            headers: 0,
            extension_body: Vec::new(),
            extensions: Extensions::default(),
            global: Records::default(),
            content: Content::default(),
        }
    }

    /// Reads on in `input`, which begins where the previous step's input was consumed up to.
    ///
    /// # Errors
    /// [`Error`] if the archive is damaged or exceeds a limit; the parser cannot be used further.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Error> {
        let mut rest = input;
        let event = loop {
            if let Some(event) = self.advance(&mut rest)? {
                break event;
            }
        };
        Ok(Step {
            consumed: input.len() - rest.len(),
            event,
        })
    }

    /// Tells that the input has ended.
    ///
    /// # Errors
    /// [`Error::Truncated`] if it ended inside an entry. An archive that lacks its closing zero
    /// blocks is accepted, as the field's readers do.
    pub fn finish(&self) -> Result<(), Error> {
        let inside = match &self.state {
            State::End => return Ok(()),
            State::Header if self.block_bytes == 0 && self.extensions.is_empty() => return Ok(()),
            State::Header if self.block_bytes == 0 => "an entry that has only extension headers",
            State::Header => "a header",
            State::Extension { .. } => "an extension header",
            State::OldSparse(_) | State::LeadingMap(..) => "a sparse map",
            // The padding behind the last content is not missed.
            State::EntryEnd | State::Padding(_) if self.extensions.is_empty() => return Ok(()),
            State::Content | State::EntryEnd | State::Padding(_) => "the content of an entry",
        };
        Err(Error::Truncated {
            offset: self.position,
            inside,
        })
    }

    /// Does one transition. `None` means that there is more to do.
    fn advance<'a>(&mut self, rest: &mut &'a [u8]) -> Result<Option<Event<'a>>, Error> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Header => {
                if self.block_bytes == 0 {
                    self.header_offset = self.position;
                }
                if !self.fill_block(rest) {
                    return Ok(Some(Event::NeedInput));
                }
                self.header()
            }
            State::Extension {
                flag,
                remaining,
                padding,
            } => {
                let piece = self.take(rest, remaining);
                self.extension_body.extend_from_slice(piece);
                let remaining = remaining - piece.len() as u64;
                if remaining > 0 {
                    self.state = State::Extension {
                        flag,
                        remaining,
                        padding,
                    };
                    return Ok(Some(Event::NeedInput));
                }
                self.extension(flag)?;
                self.state = State::Padding(padding);
                Ok(None)
            }
            State::OldSparse(joined) => {
                if !self.fill_block(rest) {
                    self.state = State::OldSparse(joined);
                    return Ok(Some(Event::NeedInput));
                }
                self.old_sparse_block(joined).map(Some)
            }
            State::LeadingMap(joined, map) => {
                if !self.fill_block(rest) {
                    self.state = State::LeadingMap(joined, map);
                    return Ok(Some(Event::NeedInput));
                }
                self.leading_map_block(joined, map)
            }
            State::Content => Ok(self.content(rest)),
            State::EntryEnd => {
                self.state = State::Padding(self.content.padding);
                Ok(Some(Event::EntryEnd))
            }
            State::Padding(remaining) => {
                let remaining = remaining - self.take(rest, remaining).len() as u64;
                if remaining > 0 {
                    self.state = State::Padding(remaining);
                    return Ok(Some(Event::NeedInput));
                }
                Ok(None)
            }
            State::End => {
                self.state = State::End;
                self.take(rest, u64::MAX);
                Ok(Some(Event::End))
            }
        }
    }

    /// Takes at most `most` bytes of the input.
    fn take<'a>(&mut self, rest: &mut &'a [u8], most: u64) -> &'a [u8] {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        *rest = behind;
        self.position += length as u64;
        piece
    }

    /// Completes the block; `false` if the input ran out before.
    fn fill_block(&mut self, rest: &mut &[u8]) -> bool {
        let missing = BLOCK_BYTES - self.block_bytes;
        let piece = self.take(rest, missing as u64);
        self.block[self.block_bytes..self.block_bytes + piece.len()].copy_from_slice(piece);
        self.block_bytes += piece.len();
        if self.block_bytes < BLOCK_BYTES {
            return false;
        }
        self.block_bytes = 0;
        true
    }

    fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged {
            offset: self.header_offset,
            what,
        }
    }

    fn limit(&self, limit: &'static str, allowed: u64) -> Error {
        Error::Limit {
            offset: self.header_offset,
            limit,
            allowed,
        }
    }

    /// Acts on a complete header block.
    fn header<'a>(&mut self) -> Result<Option<Event<'a>>, Error> {
        let block = self.block;
        let header = Header(&block);
        if header.is_zero() {
            if !self.extensions.is_empty() {
                return Err(self.damaged("extension header without an entry"));
            }
            if self.zero_block_seen {
                self.state = State::End;
                return Ok(Some(Event::End));
            }
            self.zero_block_seen = true;
            return Ok(None);
        }
        if self.zero_block_seen {
            return Err(self.damaged("data after a zero block"));
        }
        if !header.checksum_is_right() {
            return Err(self.damaged("wrong checksum in a header"));
        }
        self.headers += 1;
        if self.headers > self.limits.max_entries {
            return Err(self.limit("max_entries", self.limits.max_entries));
        }
        match header.flag() {
            flag @ (b'x' | b'g' | b'L' | b'K') => {
                self.begin_extension(&header, flag)?;
                Ok(None)
            }
            _ => self.entry(&header),
        }
    }

    fn begin_extension(&mut self, header: &Header<'_>, flag: u8) -> Result<(), Error> {
        let repeated = match flag {
            b'x' => self.extensions.pax.is_some(),
            b'L' => self.extensions.long_name.is_some(),
            b'K' => self.extensions.long_link.is_some(),
            _ => false,
        };
        if repeated {
            return Err(self.damaged("two extension headers of one kind for one entry"));
        }
        let size = header
            .size()
            .ok_or_else(|| self.damaged("malformed size"))?;
        let (limit, allowed) = match flag {
            // One more for the NUL at the end.
            b'L' | b'K' => ("max_path_bytes", self.limits.max_path_bytes as u64 + 1),
            _ => ("max_pax_bytes", self.limits.max_pax_bytes as u64),
        };
        if size > allowed {
            return Err(self.limit(limit, allowed));
        }
        self.extension_body.clear();
        self.state = State::Extension {
            flag,
            remaining: size,
            padding: padding_of(size),
        };
        Ok(())
    }

    /// Acts on the complete body of an extension header.
    fn extension(&mut self, flag: u8) -> Result<(), Error> {
        let body = std::mem::take(&mut self.extension_body);
        match flag {
            b'L' => self.extensions.long_name = Some(text(&body).to_vec()),
            b'K' => self.extensions.long_link = Some(text(&body).to_vec()),
            _ => {
                let records = Records::parse(&body, self.limits.max_sparse_extents)
                    .map_err(|what| self.damaged(what))?;
                if flag == b'x' {
                    self.extensions.pax = Some(records);
                } else if records.names_one_file() {
                    return Err(self.damaged("name or size in a global header"));
                } else {
                    self.global.update(records);
                    if self.global.bytes() > self.limits.max_pax_bytes {
                        return Err(self.limit("max_pax_bytes", self.limits.max_pax_bytes as u64));
                    }
                }
            }
        }
        self.extension_body = body;
        Ok(())
    }

    /// Acts on the header of a file: reports the entry, or reads its map first.
    fn entry<'a>(&mut self, header: &Header<'_>) -> Result<Option<Event<'a>>, Error> {
        let extensions = std::mem::take(&mut self.extensions);
        let joined = join(header, extensions, &self.global).map_err(|what| self.damaged(what))?;
        if joined.entry.path.len().max(joined.entry.link.len()) > self.limits.max_path_bytes {
            return Err(self.limit("max_path_bytes", self.limits.max_path_bytes as u64));
        }
        match joined.missing {
            MissingMap::OldBlocks => self.state = State::OldSparse(Box::new(joined)),
            MissingMap::BeforeData => {
                self.state = State::LeadingMap(Box::new(joined), LeadingMap::default());
            }
            MissingMap::Nothing => return self.begin_content(joined).map(Some),
        }
        Ok(None)
    }

    fn old_sparse_block<'a>(&mut self, mut joined: Box<Joined>) -> Result<Event<'a>, Error> {
        let block = self.block;
        sparse::old_pairs(&block[..504], &mut joined.map).map_err(|what| self.damaged(what))?;
        if joined.map.len() > self.limits.max_sparse_extents {
            let allowed = self.limits.max_sparse_extents as u64;
            return Err(self.limit("max_sparse_extents", allowed));
        }
        if block[504] != 0 {
            // Blocks without pairs would make the chain endless.
            if block[0] == 0 {
                return Err(self.damaged("sparse map goes on after its end"));
            }
            self.state = State::OldSparse(joined);
            return Ok(Event::NeedInput);
        }
        self.begin_content(*joined)
    }

    fn leading_map_block<'a>(
        &mut self,
        mut joined: Box<Joined>,
        mut map: LeadingMap,
    ) -> Result<Option<Event<'a>>, Error> {
        let remaining = joined.stored_bytes.checked_sub(BLOCK_BYTES as u64);
        joined.stored_bytes =
            remaining.ok_or_else(|| self.damaged("sparse map is longer than the stored data"))?;
        let complete = map
            .block(&self.block, self.limits.max_sparse_extents)
            .map_err(|what| self.damaged(what))?;
        match complete {
            None => {
                self.state = State::LeadingMap(joined, map);
                Ok(None)
            }
            Some(extents) => {
                joined.map = extents;
                self.begin_content(*joined).map(Some)
            }
        }
    }

    /// Reports an entry and makes its content the next thing to read.
    fn begin_content<'a>(&mut self, joined: Joined) -> Result<Event<'a>, Error> {
        let Joined {
            entry,
            stored_bytes,
            mut map,
            ..
        } = joined;
        if entry.sparse {
            sparse::check(&map, entry.size_bytes, stored_bytes)
                .map_err(|what| self.damaged(what))?;
            if entry.size_bytes > i64::MAX.cast_unsigned() {
                return Err(self.damaged("size does not fit 63 bits"));
            }
            map.retain(|extent| extent.length > 0);
        }
        let padding = padding_of(stored_bytes);
        self.content = Content {
            map: map.into_iter(),
            current: None,
            padding,
        };
        self.state = State::Content;
        Ok(Event::Entry(Box::new(entry)))
    }

    fn content<'a>(&mut self, rest: &mut &'a [u8]) -> Option<Event<'a>> {
        let current = self
            .content
            .current
            .take()
            .or_else(|| self.content.map.next());
        let Some(extent) = current else {
            self.state = State::EntryEnd;
            return None;
        };
        self.state = State::Content;
        let bytes = self.take(rest, extent.length);
        let taken = bytes.len() as u64;
        if taken < extent.length {
            self.content.current = Some(Extent {
                offset: extent.offset + taken,
                length: extent.length - taken,
            });
        }
        if bytes.is_empty() {
            return Some(Event::NeedInput);
        }
        Some(Event::Data {
            offset: extent.offset,
            bytes,
        })
    }
}

/// Bytes from the end of `length` bytes to the end of their last block.
pub(super) fn padding_of(length: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    (block - length % block) % block
}

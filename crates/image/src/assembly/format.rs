//! The format of a recipe: [`MAGIC`], then a zstd stream of parts. No I/O.
//!
//! A part begins with a byte that tells its kind. Numbers are LEB128: seven bits a byte, lowest
//! first, the eighth bit set in all but the last.
//!
//! | kind | followed by |
//! | --- | --- |
//! | 0, the end | nothing |
//! | 1, literal | length, the bytes |
//! | 2, content | length of the path, the path, offset in the file, length, CRC-32 (4 bytes, little endian) |

/// What a recipe begins with; not compressed.
pub(super) const MAGIC: &[u8] = b"gamut-assembly 1\n";
/// Longest literal of one part, in bytes.
pub(super) const MAX_LITERAL_BYTES: usize = 64 << 10;
/// Longest path, in bytes.
pub(super) const MAX_PATH_BYTES: usize = 64 << 10;
/// No part is longer: kind, numbers, and a path or literal.
pub(super) const MAX_PART_BYTES: usize = MAX_PATH_BYTES + 64;

const END: u8 = 0;
const LITERAL: u8 = 1;
const CONTENT: u8 = 2;

/// One part of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'p> {
    /// Bytes of the archive.
    Literal(&'p [u8]),
    /// Bytes of the archive that are in a file.
    Content(Content<'p>),
    /// The archive is complete.
    End,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content<'p> {
    /// The file, relative to the layer's root, through no link.
    pub path: &'p [u8],
    /// Where the piece begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub length: u64,
    /// CRC-32 of the piece (ISO 3309, as in gzip).
    pub crc32: u32,
}

/// Appends a part to `to`.
pub(super) fn encode(part: Part<'_>, to: &mut Vec<u8>) {
    match part {
        Part::End => to.push(END),
        Part::Literal(bytes) => {
            to.push(LITERAL);
            put_number(bytes.len() as u64, to);
            to.extend_from_slice(bytes);
        }
        Part::Content(content) => {
            to.push(CONTENT);
            put_number(content.path.len() as u64, to);
            to.extend_from_slice(content.path);
            put_number(content.offset, to);
            put_number(content.length, to);
            to.extend_from_slice(&content.crc32.to_le_bytes());
        }
    }
}

/// Reads the part that `input` begins with and tells how long it is, in bytes; `None` if more
/// input is needed. An error says what is malformed.
pub(super) fn decode(input: &[u8]) -> Result<Option<(usize, Part<'_>)>, &'static str> {
    let mut rest = input;
    let part = match decode_part(&mut rest) {
        Ok(part) => part,
        Err(Stop::NeedInput) => return Ok(None),
        Err(Stop::Malformed(what)) => return Err(what),
    };
    Ok(Some((input.len() - rest.len(), part)))
}

enum Stop {
    NeedInput,
    Malformed(&'static str),
}

fn decode_part<'p>(rest: &mut &'p [u8]) -> Result<Part<'p>, Stop> {
    let (&kind, behind) = rest.split_first().ok_or(Stop::NeedInput)?;
    *rest = behind;
    match kind {
        END => Ok(Part::End),
        LITERAL => {
            let length = length(rest, MAX_LITERAL_BYTES, "literal is too long")?;
            take(rest, length).map(Part::Literal)
        }
        CONTENT => {
            let length = length(rest, MAX_PATH_BYTES, "path is too long")?;
            let path = take(rest, length)?;
            let (offset, length) = (number(rest)?, number(rest)?);
            if length == 0 || offset.checked_add(length).is_none() {
                return Err(Stop::Malformed("piece of a file is empty or has no end"));
            }
            let crc32 = take(rest, 4)?.try_into().map_err(|_| Stop::NeedInput)?;
            Ok(Part::Content(Content {
                path,
                offset,
                length,
                crc32: u32::from_le_bytes(crc32),
            }))
        }
        _ => Err(Stop::Malformed("unknown kind of part")),
    }
}

fn take<'p>(rest: &mut &'p [u8], length: usize) -> Result<&'p [u8], Stop> {
    let (piece, behind) = rest.split_at_checked(length).ok_or(Stop::NeedInput)?;
    *rest = behind;
    Ok(piece)
}

fn length(rest: &mut &[u8], most: usize, too_long: &'static str) -> Result<usize, Stop> {
    let length = number(rest)?;
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= most)
        .ok_or(Stop::Malformed(too_long))
}

fn number(rest: &mut &[u8]) -> Result<u64, Stop> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?.first().copied().unwrap_or_default();
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Stop::Malformed("number does not fit 64 bits"))
}

fn put_number(mut value: u64, to: &mut Vec<u8>) {
    loop {
        let bits = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            to.push(bits);
            return;
        }
        to.push(bits | 0x80);
    }
}

/// Reads arbitrary bytes as the parts of a recipe, and checks that what was understood is written
/// and read again alike, and needs all of its bytes.
///
/// # Panics
/// Panics if not; nothing but a fuzzer calls this.
pub fn fuzz_assembly(input: &[u8]) {
    let mut rest = input;
    while let Ok(Some((length, part))) = decode(rest) {
        assert!(length > 0 && length <= MAX_PART_BYTES && length <= rest.len());
        let mut again = Vec::new();
        encode(part, &mut again);
        assert_eq!(decode(&again), Ok(Some((again.len(), part))));
        for cut in [0, again.len() / 2, again.len() - 1] {
            assert_eq!(decode(&again[..cut]), Ok(None));
        }
        rest = &rest[length..];
    }
}

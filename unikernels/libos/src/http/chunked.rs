//! Bodies in chunks (RFC 9112, 7.1).

use super::head::HttpError;

/// Longest line of a chunk's size with its extensions, and of a trailer.
const MAX_LINE_BYTES: usize = 1024;
/// Lines of trailers that are skipped.
const MAX_TRAILERS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
    Done,
}

/// What the decoder found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk<'input> {
    /// A piece of the body.
    Data(&'input [u8]),
    /// More bytes are needed.
    Partial,
    /// The body is complete.
    End,
}

/// Takes a body apart. Extensions and trailers are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkDecoder {
    state: State,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self { state: State::Size }
    }
}

/// A line with CR LF at the beginning of the input; none if it is not complete.
fn line(input: &[u8]) -> Result<Option<&[u8]>, HttpError> {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
        if input.len() > MAX_LINE_BYTES {
            return Err(HttpError::HeadTooLong);
        }
        return Ok(None);
    };
    if end > MAX_LINE_BYTES {
        return Err(HttpError::HeadTooLong);
    }
    input
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .filter(|line| !line.contains(&b'\r'))
        .map(Some)
        .ok_or(HttpError::Malformed("a chunk's line that ends without CR"))
}

/// A chunk's size in hexadecimal digits, before its extensions.
fn size(line: &[u8]) -> Result<u64, HttpError> {
    let end = line
        .iter()
        .position(|&byte| byte == b';' || byte == b' ' || byte == b'\t')
        .unwrap_or(line.len());
    let digits = line.get(..end).unwrap_or_default();
    let rest = line.get(end..).unwrap_or_default().trim_ascii_start();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_number || !(rest.is_empty() || rest.starts_with(b";")) {
        return Err(HttpError::Malformed("a chunk without a size"));
    }
    let digits = core::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(digits, 16).map_err(|_| HttpError::BodyTooLong)
}

impl ChunkDecoder {
    /// Takes the next piece off the input, and says how many bytes of it are used.
    ///
    /// # Errors
    /// If the input is no body in chunks.
    pub fn next<'input>(
        &mut self,
        input: &'input [u8],
    ) -> Result<(Chunk<'input>, usize), HttpError> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.state {
                State::Done => return Ok((Chunk::End, used)),
                State::Data(0) => self.state = State::DataEnd,
                State::Data(left) => {
                    if rest.is_empty() {
                        return Ok((Chunk::Partial, used));
                    }
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let data = rest.get(..count).unwrap_or_default();
                    self.state = State::Data(left - count as u64);
                    return Ok((Chunk::Data(data), used + count));
                }
                State::Size | State::DataEnd | State::Trailers(_) => {
                    let Some(line) = line(rest)? else {
                        return Ok((Chunk::Partial, used));
                    };
                    used += line.len() + 2;
                    self.state = self.after_line(line)?;
                }
            }
        }
    }

    fn after_line(&self, line: &[u8]) -> Result<State, HttpError> {
        match self.state {
            State::Size => Ok(match size(line)? {
                0 => State::Trailers(0),
                bytes => State::Data(bytes),
            }),
            State::Trailers(_) if line.is_empty() => Ok(State::Done),
            State::Trailers(count) if count < MAX_TRAILERS => Ok(State::Trailers(count + 1)),
            State::Trailers(_) => Err(HttpError::HeadTooLong),
            _ if line.is_empty() => Ok(State::Size),
            _ => Err(HttpError::Malformed("a chunk longer than its size")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HttpError;
    use super::{Chunk, ChunkDecoder};
    use alloc::format;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Decodes with input that arrives in pieces.
    fn decode(input: &[u8], piece: usize) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
        let mut decoder = ChunkDecoder::default();
        let mut body = Vec::new();
        let (mut at, mut end) = (0, 0);
        loop {
            let (chunk, used) = decoder.next(&input[at..end])?;
            at += used;
            match chunk {
                Chunk::Data(data) => body.extend_from_slice(data),
                Chunk::End => return Ok(Some((body, at))),
                Chunk::Partial if end == input.len() => return Ok(None),
                Chunk::Partial => end = (end + piece).min(input.len()),
            }
        }
    }

    #[test]
    fn a_body_is_put_together() {
        let input = b"4;x=y\r\nWiki\r\n0A \r\n0123456789\r\n0\r\nTrailer: a\r\n\r\nnext";
        let expected = Some((b"Wiki0123456789".to_vec(), input.len() - 4));
        for piece in 1..input.len() {
            assert_eq!(decode(input, piece), Ok(expected.clone()));
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for input in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"5 5\r\n",
            b"1\nA\r\n",
            b"1\r\nAB\r\n",
            b"11111111111111111\r\n",
        ] {
            assert!(decode(input, 1).is_err(), "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(input: Vec<u8>, piece in 1_usize..9) {
            let _ = decode(&input, piece);
        }

        #[test]
        fn what_was_cut_is_put_together(pieces: Vec<Vec<u8>>, piece in 1_usize..40) {
            let mut input = Vec::new();
            for data in pieces.iter().filter(|data| !data.is_empty()) {
                input.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                input.extend_from_slice(data);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let whole = pieces.concat();
            prop_assert_eq!(decode(&input, piece), Ok(Some((whole, input.len()))));
        }
    }
}

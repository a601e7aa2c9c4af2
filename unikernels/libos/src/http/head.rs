//! What requests and responses have in common: header fields and the length of the body.

use core::fmt;

use crate::error::becomes_error;

/// Most header fields of a message.
pub(super) const MAX_HEADERS: usize = 64;

/// What a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the first line and the header fields together.
    pub head_bytes: usize,
    /// Bytes of a body.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 8 << 10,
            body_bytes: 1 << 20,
        }
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// Not HTTP, or not as the standard has it.
    Malformed(&'static str),
    /// First line and header fields are longer than [`Limits::head_bytes`], or too many.
    HeadTooLong,
    /// The body is longer than [`Limits::body_bytes`].
    BodyTooLong,
    /// Another version than HTTP/1.0 and HTTP/1.1.
    Version,
    /// A transfer encoding other than `chunked`.
    Encoding,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "not valid HTTP: {what}"),
            Self::HeadTooLong => f.write_str("the header fields are too long"),
            Self::BodyTooLong => f.write_str("the body is too long"),
            Self::Version => f.write_str("only HTTP/1.0 and HTTP/1.1 are understood"),
            Self::Encoding => f.write_str("only the transfer encoding chunked is understood"),
        }
    }
}

becomes_error!(HttpError);

/// The beginning of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More bytes are needed.
    Partial,
    /// The head, and how many bytes it takes.
    Complete(T, usize),
}

/// A header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'message> {
    /// Its name, as it was sent.
    pub name: &'message str,
    /// Its value, without the blanks around it.
    pub value: &'message [u8],
}

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// So many bytes.
    Known(u64),
    /// In chunks.
    Chunked,
    /// Until the connection is closed (responses alone).
    UntilClose,
}

/// A token's character (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Finds the end of the head, without going over what has been looked at again and again.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = bytes.get(at..)?.iter().position(|&byte| byte == b'\n') {
        let end = at + found + 1;
        match bytes.get(end..) {
            Some([b'\r', b'\n', ..]) => return Some(end + 2),
            Some([b'\n', ..]) => return Some(end + 1),
            _ => at = end,
        }
    }
    None
}

/// The head of a message at the beginning of `bytes`, if it is complete.
pub(super) fn split<'message>(
    bytes: &'message [u8],
    limits: &Limits,
) -> Result<Option<&'message [u8]>, HttpError> {
    match head_end(
        bytes
            .get(..limits.head_bytes.min(bytes.len()))
            .unwrap_or(bytes),
    ) {
        Some(end) => Ok(bytes.get(..end)),
        None if bytes.len() >= limits.head_bytes => Err(HttpError::HeadTooLong),
        None => Ok(None),
    }
}

/// Takes a line off a head: it ends by CR LF, and holds neither otherwise.
pub(super) fn line<'message>(rest: &mut &'message [u8]) -> Result<&'message [u8], HttpError> {
    let end = rest
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or(HttpError::Malformed("a line without an end"))?;
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    let line = line
        .strip_suffix(b"\r")
        .ok_or(HttpError::Malformed("a line that ends without CR"))?;
    if line.iter().any(|&byte| byte == b'\r' || byte == 0) {
        return Err(HttpError::Malformed("a line with CR or NUL in it"));
    }
    Ok(line)
}

/// A header field's line, taken apart.
fn field(line: &[u8]) -> Result<Header<'_>, HttpError> {
    let colon = line
        .iter()
        .position(|&byte| byte == b':')
        .ok_or(HttpError::Malformed("a header field without a colon"))?;
    let (name, value) = line.split_at(colon);
    // Neither a blank before the colon nor a continued line (RFC 9112, 5.1 and 5.2).
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(HttpError::Malformed("a header field without a proper name"));
    }
    let name = core::str::from_utf8(name)
        .map_err(|_| HttpError::Malformed("a header field without a proper name"))?;
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    Ok(Header { name, value })
}

/// The header fields of a head, behind its first line: text that has been checked, and is taken
/// apart when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields<'message> {
    text: &'message [u8],
}

impl<'message> Fields<'message> {
    pub(super) fn parse(text: &'message [u8]) -> Result<Self, HttpError> {
        let mut rest = text;
        for _ in 0..=MAX_HEADERS {
            let line = line(&mut rest)?;
            if line.is_empty() {
                return Ok(Self { text });
            }
            field(line)?;
        }
        Err(HttpError::HeadTooLong)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Header<'message>> + Clone + use<'message> {
        self.text
            .split(|&byte| byte == b'\n')
            .map_while(|line| field(line.strip_suffix(b"\r")?).ok())
    }

    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'message [u8]> {
        self.all()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Whether a list of words (`Connection: close, x`) has a word.
    pub(super) fn has_word(&self, name: &str, word: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The length that the fields tell; none if they tell none. Two lengths that contradict each
    /// other are how requests are smuggled past a proxy (RFC 9112, 6.3): refused.
    pub(super) fn body_length(&self) -> Result<Option<BodyLength>, HttpError> {
        let mut length = None;
        for value in self
            .values("content-length")
            .flat_map(|value| value.split(|&byte| byte == b','))
        {
            let value = value.trim_ascii();
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let number = core::str::from_utf8(value)
                .ok()
                .filter(|_| is_number)
                .and_then(|value| value.parse::<u64>().ok())
                .ok_or(HttpError::Malformed("Content-Length is not a number"))?;
            if length.is_some_and(|known| known != number) {
                return Err(HttpError::Malformed("two different Content-Lengths"));
            }
            length = Some(number);
        }
        let mut encodings = self.values("transfer-encoding");
        let Some(encoding) = encodings.next() else {
            return Ok(length.map(BodyLength::Known));
        };
        if length.is_some() {
            return Err(HttpError::Malformed(
                "both Content-Length and Transfer-Encoding",
            ));
        }
        if encodings.next().is_some() || !encoding.eq_ignore_ascii_case(b"chunked") {
            return Err(HttpError::Encoding);
        }
        Ok(Some(BodyLength::Chunked))
    }
}

/// The minor version of `HTTP/1.x`.
pub(super) fn version(text: &[u8]) -> Result<u8, HttpError> {
    match text {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HttpError::Version)
        }
        _ => Err(HttpError::Malformed("a first line without HTTP version")),
    }
}

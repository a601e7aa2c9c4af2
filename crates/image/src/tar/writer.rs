//! Writes deterministic archives: ustar where it is enough, pax where it is not.

use super::parser::padding_of;
use super::{BLOCK_BYTES, Entry, Kind, Timestamp};
use std::io::{self, Read, Write};

/// Largest number that an octal field of twelve bytes holds, the last being a NUL.
const MAX_OCTAL_11: u64 = 0o777_7777_7777;
/// Largest number that an octal field of eight bytes holds, the last being a NUL.
const MAX_OCTAL_7: u64 = 0o777_7777;

/// Writes an archive. The same entries give the same bytes, always: nothing of the machine or of
/// the time enters.
pub struct Writer<W> {
    target: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `target`, in many small pieces: give it a buffer.
    #[must_use]
    pub fn new(target: W) -> Self {
        Self { target }
    }

    /// Writes an entry and its content from memory. The entry's `size_bytes` is not looked at.
    ///
    /// # Errors
    /// The target's, or `InvalidInput` if the entry cannot be written (a NUL in a name,
    /// content where there can be none).
    pub fn append(&mut self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        self.append_from(entry, content.len() as u64, content)
    }

    /// Writes an entry and `size_bytes` of content from a reader.
    ///
    /// # Errors
    /// Like [`Self::append`], and `UnexpectedEof` if the reader ends early: the archive is then
    /// damaged and must be thrown away.
    pub fn append_from(
        &mut self,
        entry: &Entry,
        size_bytes: u64,
        content: impl Read,
    ) -> io::Result<()> {
        if size_bytes > 0 && !entry.kind.has_content() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "tar entry {} cannot have content",
                    entry.path.escape_ascii()
                ),
            ));
        }
        self.header(entry, size_bytes)?;
        let copied = io::copy(&mut content.take(size_bytes), &mut self.target)?;
        if copied < size_bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "content of tar entry {} ended after {copied} of {size_bytes} bytes",
                    entry.path.escape_ascii()
                ),
            ));
        }
        self.pad(size_bytes)
    }

    /// Ends the archive, flushes and gives the target back.
    ///
    /// # Errors
    /// The target's.
    pub fn finish(mut self) -> io::Result<W> {
        self.target.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.target.flush()?;
        Ok(self.target)
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let padding = usize::try_from(padding_of(length)).unwrap_or(0);
        self.target.write_all(&[0; BLOCK_BYTES][..padding])
    }

    fn header(&mut self, entry: &Entry, size_bytes: u64) -> io::Result<()> {
        for name in [
            &entry.path,
            &entry.link,
            &entry.user_name,
            &entry.group_name,
        ] {
            if name.contains(&0) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "NUL in a tar entry's name",
                ));
            }
        }
        let mut pax = Vec::new();
        let (prefix, name) = split_path(&entry.path).unwrap_or_else(|| {
            record(&mut pax, b"path", &entry.path);
            (b"", cut(&entry.path, 100))
        });
        if entry.link.len() > 100 {
            record(&mut pax, b"linkpath", &entry.link);
        }
        let mut number = |key: &[u8], value: u64, most: u64| {
            if value > most {
                record(&mut pax, key, value.to_string().as_bytes());
                0
            } else {
                value
            }
        };
        let uid = number(b"uid", u64::from(entry.uid), MAX_OCTAL_7);
        let gid = number(b"gid", u64::from(entry.gid), MAX_OCTAL_7);
        let size = number(b"size", size_bytes, MAX_OCTAL_11);
        for (key, name) in [(b"uname", &entry.user_name), (b"gname", &entry.group_name)] {
            if name.len() > 31 {
                record(&mut pax, key, name);
            }
        }
        let mtime = match u64::try_from(entry.mtime.seconds) {
            Ok(seconds) if entry.mtime.nanoseconds == 0 && seconds <= MAX_OCTAL_11 => seconds,
            _ => {
                record(&mut pax, b"mtime", time(entry.mtime)?.as_bytes());
                u64::try_from(entry.mtime.seconds).map_or(0, |seconds| seconds.min(MAX_OCTAL_11))
            }
        };
        let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
        xattrs.sort();
        for (key, value) in xattrs {
            if key.is_empty() || key.contains(&0) || key.contains(&b'=') {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("attribute {} cannot be written to tar", key.escape_ascii()),
                ));
            }
            let key = [b"SCHILY.xattr.".as_slice(), key].concat();
            record(&mut pax, &key, value);
        }

        if !pax.is_empty() {
            let mut header = Header::new(b'x');
            header.text(
                0,
                100,
                &[b"PaxHeaders/".as_slice(), base_name(name)].concat(),
            );
            header.octal(100, 8, 0o644);
            header.octal(124, 12, pax.len() as u64);
            self.target.write_all(header.sealed())?;
            self.target.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        let mut header = Header::new(entry.kind.flag());
        header.text(0, 100, name);
        header.octal(100, 8, u64::from(entry.mode & 0o7777));
        header.octal(108, 8, uid);
        header.octal(116, 8, gid);
        header.octal(124, 12, size);
        header.octal(136, 12, mtime);
        header.text(157, 100, cut(&entry.link, 100));
        header.text(265, 31, cut(&entry.user_name, 31));
        header.text(297, 31, cut(&entry.group_name, 31));
        if matches!(entry.kind, Kind::CharacterDevice | Kind::BlockDevice) {
            let (major, minor) = entry.device;
            if u64::from(major.max(minor)) > MAX_OCTAL_7 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("device number {major}:{minor} cannot be written to tar"),
                ));
            }
            header.octal(329, 8, u64::from(major));
            header.octal(337, 8, u64::from(minor));
        }
        header.text(345, 155, prefix);
        self.target.write_all(header.sealed())
    }
}

/// A header block being filled.
struct Header([u8; BLOCK_BYTES]);

impl Header {
    fn new(flag: u8) -> Self {
        let mut header = Self([0; BLOCK_BYTES]);
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        for (start, length) in [
            (100, 8),
            (108, 8),
            (116, 8),
            (124, 12),
            (136, 12),
            (329, 8),
            (337, 8),
        ] {
            header.octal(start, length, 0);
        }
        header
    }

    fn text(&mut self, start: usize, length: usize, value: &[u8]) {
        let value = cut(value, length);
        self.0[start..start + value.len()].copy_from_slice(value);
    }

    /// The value must fit: callers put larger ones into a pax record.
    fn octal(&mut self, start: usize, length: usize, mut value: u64) {
        let field = &mut self.0[start..start + length];
        field[length - 1] = 0;
        for digit in field[..length - 1].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value & 7).unwrap_or(0);
            value >>= 3;
        }
    }

    fn sealed(&mut self) -> &[u8] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.octal(148, 7, sum);
        &self.0
    }
}

/// Prefix and name of a path for a ustar header, `None` if it does not fit one.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The last slash that leaves a prefix of at most 155 bytes gives the shortest name.
    let end = cut(path, 156)
        .iter()
        .rposition(|&byte| byte == b'/')
        .filter(|&at| at > 0)?;
    let (prefix, name) = (path.get(..end)?, path.get(end + 1..)?);
    (!name.is_empty() && name.len() <= 100).then_some((prefix, name))
}

fn cut(text: &[u8], length: usize) -> &[u8] {
    text.get(..length.min(text.len())).unwrap_or_default()
}

fn base_name(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/')
        .rfind(|part| !part.is_empty())
        .unwrap_or_default()
}

/// Appends a pax record, whose length counts its own digits.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn time(time: Timestamp) -> io::Result<String> {
    if time.nanoseconds >= 1_000_000_000 {
        let message = format!(
            "{} nanoseconds are not less than a second",
            time.nanoseconds
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (seconds, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    if fraction == 0 {
        return Ok(format!("{sign}{seconds}"));
    }
    let digits = format!("{fraction:09}");
    Ok(format!("{sign}{seconds}.{}", digits.trim_end_matches('0')))
}

//! The 512 byte header block: fields, numbers, checksum. Pure functions.

use super::BLOCK_BYTES;

/// One header block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Dialect told by the magic bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Before POSIX: no magic, no prefix, no devices.
    V7,
    /// POSIX: the name may have a prefix.
    Ustar,
    /// Schily's: a shorter prefix, and times behind it.
    Star,
    /// GNU: base-256 numbers, sparse maps where the prefix would be.
    Gnu,
}

/// Borrowed view of a header block.
pub(super) struct Header<'a>(pub &'a Block);

impl<'a> Header<'a> {
    fn field(&self, start: usize, length: usize) -> &'a [u8] {
        self.0.get(start..start + length).unwrap_or_default()
    }

    pub fn format(&self) -> Format {
        match self.field(257, 8) {
            b"ustar  \0" => Format::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if self.field(508, 4) == b"tar\0" => Format::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub fn name(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = match self.format() {
            Format::Ustar => text(self.field(345, 155)),
            Format::Star => text(self.field(345, 131)),
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        let mut path = Vec::with_capacity(prefix.len() + 1 + name.len());
        path.extend_from_slice(prefix);
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    pub fn mode(&self) -> Option<i64> {
        number(self.field(100, 8))
    }

    pub fn uid(&self) -> Option<i64> {
        number(self.field(108, 8))
    }

    pub fn gid(&self) -> Option<i64> {
        number(self.field(116, 8))
    }

    pub fn size(&self) -> Option<u64> {
        number(self.field(124, 12)).and_then(|size| u64::try_from(size).ok())
    }

    pub fn mtime(&self) -> Option<i64> {
        number(self.field(136, 12))
    }

    pub fn flag(&self) -> u8 {
        self.0[156]
    }

    pub fn link(&self) -> &'a [u8] {
        text(self.field(157, 100))
    }

    pub fn user_name(&self) -> &'a [u8] {
        if self.format() == Format::V7 {
            b""
        } else {
            text(self.field(265, 32))
        }
    }

    pub fn group_name(&self) -> &'a [u8] {
        if self.format() == Format::V7 {
            b""
        } else {
            text(self.field(297, 32))
        }
    }

    pub fn device(&self) -> Option<(u32, u32)> {
        if self.format() == Format::V7 {
            return Some((0, 0));
        }
        let major = u32::try_from(number(self.field(329, 8))?).ok()?;
        let minor = u32::try_from(number(self.field(337, 8))?).ok()?;
        Some((major, minor))
    }

    /// The four pairs of an old GNU sparse header, whether further blocks follow, the real size.
    pub fn old_sparse(&self) -> (&'a [u8], bool, Option<u64>) {
        let real_size = number(self.field(483, 12)).and_then(|size| u64::try_from(size).ok());
        (self.field(386, 96), self.0[482] != 0, real_size)
    }

    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Whether the checksum is right. Some old writers summed signed bytes; both are accepted.
    pub fn checksum_is_right(&self) -> bool {
        let Some(stored) = number(self.field(148, 8)) else {
            return false;
        };
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (index, &byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&index) {
                b' '
            } else {
                byte
            };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        stored == unsigned || stored == signed
    }
}

/// The bytes up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}

/// A number: octal digits, or base 256 (two's complement) where the first bit is set.
/// `None` if it is malformed or does not fit. An empty field is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field
        .iter()
        .position(|&byte| byte != b' ' && byte != 0)
        .unwrap_or(field.len());
    let digits = text(field.get(start..)?).trim_ascii_end();
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn base_256(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    let negative = first & 0x40 != 0;
    // The first bit only marks the encoding: what counts begins with the second, the sign.
    let head = if negative { first | 0x80 } else { first & 0x7f };
    let fill = if negative { 0xff } else { 0 };
    let bytes = || std::iter::once(head).chain(field.iter().skip(1).copied());
    let excess = field.len().saturating_sub(8);
    if bytes().take(excess).any(|byte| byte != fill) {
        return None;
    }
    let mut value = [fill; 8];
    let skip = 8usize.saturating_sub(field.len());
    for (to, byte) in value.iter_mut().skip(skip).zip(bytes().skip(excess)) {
        *to = byte;
    }
    let value = i64::from_be_bytes(value);
    ((value < 0) == negative).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_encodings() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-000001\0"), None);
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]),
            Some(0xffff_fffe)
        );
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0]),
            None
        );
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            Some(i64::MAX)
        );
    }
}

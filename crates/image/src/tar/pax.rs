//! pax extended headers: records and their meaning. Pure functions.

use super::{Timestamp, Xattrs};
use std::collections::BTreeMap;

/// Prefix of the key of an extended attribute whose value is raw.
const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
/// Prefix of the key of an extended attribute: name percent-encoded, value in base64.
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";

/// Records of one extended header, or of a global and a local one joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Offsets and lengths of sparse format 0.0, whose keys repeat.
    pub sparse_pairs: Vec<u64>,
}

impl Records {
    /// Parses the body of a header: `LENGTH KEY=VALUE\n`, repeated. Later records of one key win.
    pub fn parse(mut body: &[u8], max_sparse_extents: usize) -> Result<Self, &'static str> {
        let mut records = Self::default();
        while !body.is_empty() {
            let (key, value, rest) = record(body).ok_or("malformed pax record")?;
            body = rest;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let is_length = records.sparse_pairs.len() % 2 == 1;
                    if (key == b"GNU.sparse.numbytes") != is_length {
                        return Err("sparse offsets and lengths do not alternate");
                    }
                    if records.sparse_pairs.len() / 2 >= max_sparse_extents {
                        return Err("sparse map has too many extents");
                    }
                    let number = decimal(value).ok_or("malformed number in a sparse map")?;
                    records.sparse_pairs.push(number);
                }
                _ => {
                    if text_key(key) && value.contains(&0) {
                        return Err("NUL in a pax name");
                    }
                    records.values.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(records)
    }

    /// Whether a record would give each later entry the same name, target or size.
    pub fn names_one_file(&self) -> bool {
        !self.sparse_pairs.is_empty()
            || self.values.keys().any(|key| {
                matches!(key.as_slice(), b"path" | b"linkpath" | b"size")
                    || key.starts_with(b"GNU.sparse.")
            })
    }

    /// Adds later global records to these; an empty value takes a record away.
    pub fn update(&mut self, later: Self) {
        for (key, value) in later.values {
            if value.is_empty() {
                self.values.remove(&key);
            } else {
                self.values.insert(key, value);
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.values
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }

    /// These records on top of global ones.
    pub fn over(self, global: &Self) -> Self {
        if global.values.is_empty() {
            return self;
        }
        let mut joined = global.clone();
        joined.sparse_pairs = self.sparse_pairs;
        joined.values.extend(self.values);
        joined
    }

    /// Value of a key; an empty value means "as in the header", like no record.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values
            .get(key.as_bytes())
            .map(Vec::as_slice)
            .filter(|value| !value.is_empty())
    }

    /// Value of a key as a decimal number.
    pub fn number(&self, key: &str) -> Result<Option<u64>, &'static str> {
        self.get(key)
            .map(|value| decimal(value).ok_or("malformed number in a pax record"))
            .transpose()
    }

    /// The modification time.
    pub fn mtime(&self) -> Result<Option<Timestamp>, &'static str> {
        self.get("mtime")
            .map(|value| time(value).ok_or("malformed time in a pax record"))
            .transpose()
    }

    /// Extended attributes, each name once.
    pub fn xattrs(&self) -> Result<Xattrs, &'static str> {
        let mut found = BTreeMap::new();
        for (key, value) in &self.values {
            if value.is_empty() {
                continue;
            }
            if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
                let name = percent_decoded(name).ok_or("malformed name of an attribute")?;
                let value = base64_decoded(value).ok_or("malformed base64 in an attribute")?;
                found.entry(name).or_insert(value);
            } else if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
                // Sorts after LIBARCHIVE and wins: it is the form that the field reads.
                found.insert(name.to_vec(), value.clone());
            }
        }
        if found
            .keys()
            .any(|name| name.is_empty() || name.contains(&0))
        {
            return Err("malformed name of an attribute");
        }
        Ok(found.into_iter().collect())
    }
}

fn text_key(key: &[u8]) -> bool {
    matches!(
        key,
        b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name"
    )
}

/// Splits off the first record.
fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(body.get(..space)?)?).ok()?;
    let (whole, rest) = body.split_at_checked(length)?;
    let (&newline, pair) = whole.get(space + 1..)?.split_last()?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
    (newline == b'\n' && !key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

/// A number of decimal digits only.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with an optional sign and fraction; digits past nanoseconds are cut off.
fn time(value: &[u8]) -> Option<Timestamp> {
    let (negative, value) = match value.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, value),
    };
    let dot = value.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match dot {
        Some(dot) => (value.get(..dot)?, value.get(dot + 1..)?),
        None => (value, [].as_slice()),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9);
    let nanoseconds = padded.fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp {
            seconds,
            nanoseconds,
        },
        (true, 0) => Timestamp {
            seconds: -seconds,
            nanoseconds,
        },
        // Rounded down: -1.25 is two seconds before the epoch and 0.75 after that.
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|&byte| char::from(byte).to_digit(16));
        decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    Some(decoded)
}

/// Base64 with or without padding.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let end = text
        .iter()
        .rposition(|&byte| byte != b'=')
        .map_or(0, |last| last + 1);
    if text.len() - end > 2 {
        return None;
    }
    let mut decoded = Vec::with_capacity(end * 3 / 4);
    let (mut bits, mut count) = (0u32, 0u32);
    for &byte in text.get(..end)? {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from((bits >> count) & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(body: &[u8]) -> Result<Records, &'static str> {
        Records::parse(body, 8)
    }

    #[test]
    fn records_are_read_and_malformed_ones_refused() {
        let read = records(b"12 path=a/b\n11 uid=123\n12 path=c/d\n").unwrap();
        assert_eq!(read.get("path"), Some(b"c/d".as_slice()));
        assert_eq!(read.number("uid"), Ok(Some(123)));
        for bad in [
            b"12 path=a/b".as_slice(),
            b"13 path=a/b\n",
            b"11 path=a/b\n",
            b"0 path=a/b\n",
            b"4 =\n",
            b" path=a\n",
            b"x path=a\n",
            b"5 ab\n",
            b"99999999999999999999 a=b\n",
            b"12 path=a\0b\n",
        ] {
            assert!(records(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn empty_values_fall_back_to_the_header() {
        let global = records(b"11 uid=123\n").unwrap();
        let local = records(b"7 uid=\n").unwrap();
        assert_eq!(local.over(&global).number("uid"), Ok(None));
    }

    #[test]
    fn times_have_signs_and_fractions() {
        assert_eq!(
            time(b"1.5"),
            Some(Timestamp {
                seconds: 1,
                nanoseconds: 500_000_000
            })
        );
        assert_eq!(
            time(b"-1.25"),
            Some(Timestamp {
                seconds: -2,
                nanoseconds: 750_000_000
            })
        );
        assert_eq!(
            time(b"-7"),
            Some(Timestamp {
                seconds: -7,
                nanoseconds: 0
            })
        );
        assert_eq!(
            time(b"3.1234567899"),
            Some(Timestamp {
                seconds: 3,
                nanoseconds: 123_456_789
            })
        );
        assert_eq!(time(b"1e5"), None);
        assert_eq!(time(b"."), None);
    }

    #[test]
    fn attributes_in_both_forms() {
        let body =
            b"30 SCHILY.xattr.user.a=\x00\x01=\n\xff\xfe\n39 LIBARCHIVE.xattr.user.b%3D=AAEC/w==\n";
        let xattrs = records(body).unwrap().xattrs().unwrap();
        assert_eq!(
            xattrs[0],
            (b"user.a".to_vec(), b"\x00\x01=\n\xff\xfe".to_vec())
        );
        assert_eq!(xattrs[1], (b"user.b=".to_vec(), vec![0, 1, 2, 255]));
    }
}

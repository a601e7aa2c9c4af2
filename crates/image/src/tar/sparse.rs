//! Maps of sparse files. Pure functions.

use super::header::number;
use super::pax::decimal;

/// A part of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How long, in bytes.
    pub length: u64,
}

/// Reads the pairs of an old GNU header or of one of its extension blocks: 12 byte numbers.
/// An empty first number ends the map.
pub(super) fn old_pairs(field: &[u8], map: &mut Vec<Extent>) -> Result<(), &'static str> {
    for pair in field.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset.first() == Some(&0) {
            break;
        }
        let read = |field| number(field).and_then(|value| u64::try_from(value).ok());
        match (read(offset), read(length)) {
            (Some(offset), Some(length)) => map.push(Extent { offset, length }),
            _ => return Err("malformed number in a sparse map"),
        }
    }
    Ok(())
}

/// Reads the map of format 0.1: `offset,length,offset,length`.
pub(super) fn comma_separated(map: &[u8]) -> Result<Vec<u64>, &'static str> {
    map.split(|&byte| byte == b',')
        .map(|digits| decimal(digits).ok_or("malformed number in a sparse map"))
        .collect()
}

/// Joins alternating offsets and lengths.
pub(super) fn from_pairs(numbers: &[u64]) -> Result<Vec<Extent>, &'static str> {
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err("sparse map has an offset without a length");
    }
    Ok(pairs
        .map(|pair| Extent {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Reader of the map of format 1.0, which stands before the content: the number of extents, then
/// offset and length of each, every one a decimal line; padded to whole blocks.
#[derive(Debug, Default)]
pub(super) struct LeadingMap {
    digits: Vec<u8>,
    expected: Option<u64>,
    numbers: Vec<u64>,
}

impl LeadingMap {
    /// Takes one block; `Some` when it was the last of the map.
    pub fn block(
        &mut self,
        block: &[u8],
        max_extents: usize,
    ) -> Result<Option<Vec<Extent>>, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.digits.len() >= 20 {
                    return Err("malformed number in a sparse map");
                }
                self.digits.push(byte);
                continue;
            }
            let value = decimal(&self.digits).ok_or("malformed number in a sparse map")?;
            self.digits.clear();
            match self.expected {
                None => {
                    let allowed = u64::try_from(max_extents).unwrap_or(u64::MAX);
                    if value > allowed {
                        return Err("sparse map has too many extents");
                    }
                    self.expected = Some(value * 2);
                }
                Some(_) => self.numbers.push(value),
            }
            if self
                .expected
                .is_some_and(|expected| self.numbers.len() as u64 >= expected)
            {
                return from_pairs(&self.numbers).map(Some);
            }
        }
        Ok(None)
    }
}

/// Checks that a map is in order, inside the file, and describes exactly the stored bytes.
pub(super) fn check(
    map: &[Extent],
    size_bytes: u64,
    stored_bytes: u64,
) -> Result<(), &'static str> {
    let (mut position, mut data) = (0u64, 0u64);
    for extent in map {
        let end = extent
            .offset
            .checked_add(extent.length)
            .ok_or("sparse map overflows")?;
        if extent.offset < position {
            return Err("sparse map overlaps or is out of order");
        }
        if end > size_bytes {
            return Err("sparse map reaches past the end of the file");
        }
        position = end;
        data += extent.length;
    }
    if data == stored_bytes {
        Ok(())
    } else {
        Err("sparse map does not fit the stored data")
    }
}

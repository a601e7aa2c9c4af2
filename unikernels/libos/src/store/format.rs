//! What lies on the device, without input or output. All numbers are little-endian.

use alloc::vec::Vec;

use super::crc::crc32c;

/// Longest key.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest value.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Unit in which the device is written.
pub(super) const SECTOR: usize = 512;
/// Where the two superblocks lie.
pub(super) const SUPERBLOCKS: [u64; 2] = [0, 4096];
/// Where the first area begins.
pub(super) const AREAS_BEGIN: u64 = 8192;
/// Bytes of a batch's header.
pub(super) const BATCH_HEADER: usize = 40;
/// Most bytes of a batch's operations: half of it, and the largest operation.
pub(super) const MAX_BATCH_BYTES: usize = (2 << 20) + 4096;

const SUPERBLOCK_MAGIC: [u8; 8] = *b"GAMUTKV1";
const BATCH_MAGIC: [u8; 4] = *b"GKVB";
const PUT: u8 = 1;
const DELETE: u8 = 2;
const OPERATION_HEADER: usize = 7;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn double(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Which area is valid. Of two, the one of the higher generation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Raised with every switch of areas.
    pub generation: u64,
    /// 0 or 1.
    pub area: u64,
    /// Bytes of an area.
    pub area_bytes: u64,
    /// In every batch of the area. Random, so that no value can look like a batch.
    pub salt: u64,
}

impl Superblock {
    /// Its sector.
    #[must_use]
    pub fn to_sector(self) -> Vec<u8> {
        let mut sector = Vec::with_capacity(SECTOR);
        sector.extend_from_slice(&SUPERBLOCK_MAGIC);
        for field in [self.generation, self.area, self.area_bytes, self.salt] {
            sector.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c(&sector);
        sector.extend_from_slice(&crc.to_le_bytes());
        sector.resize(SECTOR, 0);
        sector
    }

    /// Reads a sector. None if it holds none, or half of one.
    #[must_use]
    pub fn from_sector(sector: &[u8]) -> Option<Self> {
        if array(sector, 0)? != SUPERBLOCK_MAGIC || word(sector, 40)? != crc32c(sector.get(..40)?) {
            return None;
        }
        let this = Self {
            generation: double(sector, 8)?,
            area: double(sector, 16)?,
            area_bytes: double(sector, 24)?,
            salt: double(sector, 32)?,
        };
        let is_good = this.area <= 1 && this.area_bytes.is_multiple_of(SECTOR as u64);
        is_good.then_some(this)
    }

    /// Where the valid area begins; none beyond the end of numbers.
    #[must_use]
    pub fn area_begin(&self) -> Option<u64> {
        AREAS_BEGIN.checked_add(self.area.checked_mul(self.area_bytes)?)
    }
}

/// Beginning of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// [`Superblock::salt`].
    pub salt: u64,
    /// Number of the batch in its area, from 1.
    pub sequence: u64,
    /// Bytes of the operations.
    pub bytes: u32,
    /// Checksum of the operations.
    pub crc: u32,
}

impl BatchHeader {
    /// Reads a header. None if there is none, or it is damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if array(bytes, 0)? != BATCH_MAGIC || word(bytes, 36)? != crc32c(bytes.get(..36)?) {
            return None;
        }
        let this = Self {
            salt: double(bytes, 8)?,
            sequence: double(bytes, 16)?,
            bytes: word(bytes, 24)?,
            crc: word(bytes, 28)?,
        };
        (usize::try_from(this.bytes).ok()? <= MAX_BATCH_BYTES).then_some(this)
    }

    /// Whether these are its operations.
    #[must_use]
    pub fn fits(&self, operations: &[u8]) -> bool {
        u32::try_from(operations.len()) == Ok(self.bytes) && crc32c(operations) == self.crc
    }
}

/// Bytes that a batch takes on the device.
pub(super) fn batch_bytes(operations: usize) -> usize {
    (BATCH_HEADER + operations).next_multiple_of(SECTOR)
}

/// A batch as it is written: header, operations, zeros up to the end of a sector.
pub(super) fn encode_batch(salt: u64, sequence: u64, operations: &[u8]) -> Vec<u8> {
    let mut batch = Vec::with_capacity(batch_bytes(operations.len()));
    batch.extend_from_slice(&BATCH_MAGIC);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&salt.to_le_bytes());
    batch.extend_from_slice(&sequence.to_le_bytes());
    // No more than MAX_BATCH_BYTES are given.
    let bytes = u32::try_from(operations.len()).unwrap_or(u32::MAX);
    batch.extend_from_slice(&bytes.to_le_bytes());
    batch.extend_from_slice(&crc32c(operations).to_le_bytes());
    batch.extend_from_slice(&[0; 4]);
    let crc = crc32c(&batch);
    batch.extend_from_slice(&crc.to_le_bytes());
    batch.extend_from_slice(operations);
    batch.resize(batch_bytes(operations.len()), 0);
    batch
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key to a value.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
}

impl Operation {
    /// The key that changes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Bytes that it takes in a batch.
    pub(super) fn encoded_bytes(&self) -> usize {
        let value = match self {
            Self::Put(_, value) => value.len(),
            Self::Delete(_) => 0,
        };
        OPERATION_HEADER + self.key().len() + value
    }

    /// Appends it to a batch; says where its value begins.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> usize {
        let (kind, value): (u8, &[u8]) = match self {
            Self::Put(_, value) => (PUT, value),
            Self::Delete(_) => (DELETE, &[]),
        };
        // Lengths have been checked by the caller.
        let key_bytes = u16::try_from(self.key().len()).unwrap_or(u16::MAX);
        let value_bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        out.push(kind);
        out.extend_from_slice(&key_bytes.to_le_bytes());
        out.extend_from_slice(&value_bytes.to_le_bytes());
        out.extend_from_slice(self.key());
        let at = out.len();
        out.extend_from_slice(value);
        at
    }
}

/// Calls a function with each key of a batch's operations, and its value with the place at which it
/// begins; no value if it is removed. False if the operations are damaged; then those before have
/// been seen.
#[must_use]
pub fn decode_operations<'batch>(
    operations: &'batch [u8],
    mut see: impl FnMut(&'batch [u8], Option<(&'batch [u8], usize)>),
) -> bool {
    let mut at = 0;
    while at < operations.len() {
        let read = || {
            let kind = *operations.get(at)?;
            let key_bytes = usize::from(half(operations, at + 1)?);
            let value_bytes = usize::try_from(word(operations, at + 3)?).ok()?;
            let key_at = at + OPERATION_HEADER;
            let value_at = key_at.checked_add(key_bytes)?;
            let end = value_at.checked_add(value_bytes)?;
            let key = operations.get(key_at..value_at)?;
            let value = operations.get(value_at..end)?;
            let value = match kind {
                PUT => Some((value, value_at)),
                DELETE if value.is_empty() => None,
                _ => return None,
            };
            Some((key, value, end))
        };
        let Some((key, value, end)) = read() else {
            return false;
        };
        see(key, value);
        at = end;
    }
    true
}

/// The checksum of a value, which its entry in the index keeps.
pub(super) fn value_crc(value: &[u8]) -> u32 {
    crc32c(value)
}

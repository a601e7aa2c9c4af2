//! The log on a disk: opening with recovery, commits, reads, compaction.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use super::format::{
    AREAS_BEGIN, BATCH_HEADER, BatchHeader, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES,
    Operation, SECTOR, SUPERBLOCKS, Superblock, batch_bytes, decode_operations, encode_batch,
    value_crc,
};
use crate::error::becomes_error;
use crate::to_usize;

/// Bytes that are read at once while the log is looked through.
const READ_BYTES: usize = 256 << 10;
/// Least size of a device: superblocks and two areas of a batch of the largest operation each.
const MIN_AREA_BYTES: u64 = 64 << 10;

/// What a log lies on. Offsets and sizes are multiples of 512 bytes.
pub trait Disk {
    /// Its size in bytes.
    fn bytes(&self) -> u64;
    /// Reads.
    fn read(
        &self,
        offset_bytes: u64,
        bytes: usize,
    ) -> impl Future<Output = Result<Vec<u8>, StoreError>>;
    /// Writes; durable after [`Self::flush`].
    fn write(
        &self,
        offset_bytes: u64,
        data: Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>>;
    /// Makes what was written durable.
    fn flush(&self) -> impl Future<Output = Result<(), StoreError>>;
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The key is empty or longer than [`MAX_KEY_BYTES`].
    BadKey,
    /// The value is longer than [`MAX_VALUE_BYTES`].
    ValueTooLong,
    /// The device, or the memory for the index, is full.
    NoSpace,
    /// The device is smaller than 136 KiB.
    TooSmall,
    /// The device holds something that is no store.
    Foreign,
    /// The store is damaged at an offset: behind it lie batches that were acknowledged.
    Damaged(u64),
    /// A write failed before; it is not known what is on the device, so nothing more is written.
    Failed,
    /// The device failed.
    #[cfg(feature = "store")]
    Block(crate::block::BlockError),
    /// The disk of a test failed.
    #[cfg(test)]
    Crashed,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadKey => write!(f, "a key has 1 to {MAX_KEY_BYTES} bytes"),
            Self::ValueTooLong => write!(f, "a value has at most {MAX_VALUE_BYTES} bytes"),
            Self::NoSpace => f.write_str("the store is full"),
            Self::TooSmall => f.write_str("the block device is too small for a store (136 KiB)"),
            Self::Foreign => {
                f.write_str("the block device holds something that is no store; it is left alone")
            }
            Self::Damaged(offset) => {
                write!(
                    f,
                    "the store is damaged at offset {offset} of the block device"
                )
            }
            Self::Failed => {
                f.write_str("a write failed before, so the store takes no more; restart the guest")
            }
            #[cfg(feature = "store")]
            Self::Block(error) => error.fmt(f),
            #[cfg(test)]
            Self::Crashed => f.write_str("the machine is gone"),
        }
    }
}

becomes_error!(StoreError);

/// What is done with a device that holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An empty store is made if the beginning of the device is all zeros.
    CreateIfEmpty,
    /// Whatever is there is replaced by an empty store.
    Format,
}

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// On the device, not aligned.
    offset_bytes: u64,
    bytes: u32,
    crc: u32,
}

/// A store.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    superblock: Superblock,
    /// Which of the two superblocks is valid.
    slot: usize,
    /// Where the valid area begins, and where the next batch goes.
    begin: u64,
    end: u64,
    sequence: u64,
    index: BTreeMap<Vec<u8>, Entry>,
    /// Bytes that the valid operations would take in batches.
    live_bytes: u64,
    has_failed: bool,
}

fn entry_bytes(key: &[u8], value_bytes: u64) -> u64 {
    value_bytes + key.len() as u64 + 7
}

impl<D: Disk> Log<D> {
    /// Opens the store on a disk, and finds the end of its log. `random` makes numbers that nobody
    /// can guess.
    ///
    /// # Errors
    /// If the disk holds something else, is damaged, too small or fails.
    pub async fn open(
        disk: D,
        mode: OpenMode,
        random: impl FnOnce() -> u64,
    ) -> Result<Self, StoreError> {
        let sector = SECTOR as u64;
        let area_bytes = disk.bytes().saturating_sub(AREAS_BEGIN) / 2 / sector * sector;
        if area_bytes < MIN_AREA_BYTES {
            return Err(StoreError::TooSmall);
        }
        let mut found: Option<(usize, Superblock)> = None;
        let mut is_empty = true;
        for (slot, offset) in SUPERBLOCKS.into_iter().enumerate() {
            let bytes = disk.read(offset, SECTOR).await?;
            is_empty &= bytes.iter().all(|&byte| byte == 0);
            if let Some(superblock) = Superblock::from_sector(&bytes)
                && found.is_none_or(|(_, known)| known.generation < superblock.generation)
            {
                found = Some((slot, superblock));
            }
        }
        let known = found.filter(|_| mode != OpenMode::Format);
        if let Some((slot, superblock)) = known {
            let begin = superblock.area_begin().ok_or(StoreError::Damaged(0))?;
            let end = begin.checked_add(superblock.area_bytes);
            if end.is_none_or(|end| end > disk.bytes()) {
                // Made on a larger device: what lies beyond the end is lost.
                return Err(StoreError::Damaged(disk.bytes()));
            }
            let mut log = Self::new(disk, superblock, slot, begin);
            log.recover().await?;
            return Ok(log);
        }
        if !is_empty && mode != OpenMode::Format {
            return Err(StoreError::Foreign);
        }
        let superblock = Superblock {
            generation: found.map_or(1, |(_, known)| known.generation + 1),
            area: 0,
            area_bytes,
            salt: random(),
        };
        let slot = found.map_or(0, |(slot, _)| 1 - slot);
        let sector = superblock.to_sector();
        disk.write(SUPERBLOCKS[slot], sector).await?;
        disk.flush().await?;
        Ok(Self::new(disk, superblock, slot, AREAS_BEGIN))
    }

    fn new(disk: D, superblock: Superblock, slot: usize, begin: u64) -> Self {
        Self {
            disk,
            superblock,
            slot,
            begin,
            end: begin,
            sequence: 1,
            index: BTreeMap::new(),
            live_bytes: 0,
            has_failed: false,
        }
    }

    /// Reads batches until there is no further one.
    async fn recover(&mut self) -> Result<(), StoreError> {
        let area_end = self.begin + self.superblock.area_bytes;
        let mut window = Vec::new();
        let mut window_begin = self.begin;
        while self.end < area_end {
            // The window always holds a header, and then the whole batch.
            let mut wanted = SECTOR;
            let header = loop {
                let at = to_usize(self.end - window_begin);
                if window.len() < at + wanted {
                    let left = to_usize(area_end - self.end);
                    let bytes = wanted.max(READ_BYTES).min(left);
                    if bytes < wanted {
                        break None;
                    }
                    window = self.disk.read(self.end, bytes).await?;
                    window_begin = self.end;
                    continue;
                }
                let batch = window.get(at..).unwrap_or_default();
                let header = BatchHeader::from_bytes(batch).filter(|header| {
                    header.salt == self.superblock.salt && header.sequence == self.sequence
                });
                let Some(header) = header else {
                    break None;
                };
                let operations = to_usize(header.bytes.into());
                if wanted < batch_bytes(operations) {
                    wanted = batch_bytes(operations);
                    continue;
                }
                let operations = batch.get(BATCH_HEADER..BATCH_HEADER + operations);
                let operations = operations.unwrap_or_default();
                if !header.fits(operations) {
                    break None;
                }
                if !self.apply(self.end, operations) {
                    return Err(StoreError::Damaged(self.end));
                }
                break Some(header);
            };
            let Some(header) = header else {
                break;
            };
            self.end += batch_bytes(to_usize(header.bytes.into())) as u64;
            self.sequence += 1;
        }
        self.check_tail(area_end).await
    }

    /// The log ends where no valid batch follows. If a later one does, what lies between was
    /// acknowledged and is damaged: that is not the end, but an error.
    async fn check_tail(&self, area_end: u64) -> Result<(), StoreError> {
        // The damaged one is at most so long, so the one behind it begins before.
        let area_end = area_end.min(self.end + batch_bytes(MAX_BATCH_BYTES) as u64 + 1);
        let area_end = area_end / SECTOR as u64 * SECTOR as u64;
        let mut offset = self.end;
        while offset < area_end {
            let bytes = READ_BYTES.min(to_usize(area_end - offset));
            let data = self.disk.read(offset, bytes).await?;
            let is_later = |sector: &[u8]| {
                BatchHeader::from_bytes(sector).is_some_and(|header| {
                    header.salt == self.superblock.salt && header.sequence > self.sequence
                })
            };
            if data.chunks(SECTOR).any(is_later) {
                return Err(StoreError::Damaged(self.end));
            }
            offset += bytes as u64;
        }
        Ok(())
    }

    /// Takes a batch's operations into the index.
    fn apply(&mut self, batch_offset: u64, operations: &[u8]) -> bool {
        let begin = batch_offset + BATCH_HEADER as u64;
        let (index, live_bytes) = (&mut self.index, &mut self.live_bytes);
        decode_operations(operations, |key, value| {
            let old = match value {
                Some((value, at)) => {
                    *live_bytes += entry_bytes(key, value.len() as u64);
                    let entry = Entry {
                        offset_bytes: begin + at as u64,
                        bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
                        crc: value_crc(value),
                    };
                    match index.get_mut(key) {
                        Some(place) => Some(core::mem::replace(place, entry)),
                        None => index.insert(key.to_vec(), entry),
                    }
                }
                None => index.remove(key),
            };
            if let Some(old) = old {
                *live_bytes -= entry_bytes(key, old.bytes.into());
            }
        })
    }

    /// What it lies on.
    #[cfg(feature = "store")]
    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Raised with every compaction.
    pub fn generation(&self) -> u64 {
        self.superblock.generation
    }

    /// Whether a key is there.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.index.contains_key(key)
    }

    /// Keys from a key on, in order.
    pub fn keys_from(&self, first: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.index
            .range(first.to_vec()..)
            .map(|(key, _)| key.as_slice())
    }

    /// Where a value lies: whole sectors, and where in them.
    pub(super) fn locate(&self, key: &[u8]) -> Option<Location> {
        let entry = *self.index.get(key)?;
        let sector = SECTOR as u64;
        let begin = entry.offset_bytes / sector * sector;
        let skipped = to_usize(entry.offset_bytes - begin);
        let bytes = to_usize(entry.bytes.into());
        Some(Location {
            offset_bytes: begin,
            bytes: (skipped + bytes).next_multiple_of(SECTOR),
            skipped,
            value_bytes: bytes,
            crc: entry.crc,
        })
    }

    /// The value of a key; none if it is not there.
    ///
    /// # Errors
    /// If the device fails or the value is damaged.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(location) = self.locate(key) else {
            return Ok(None);
        };
        let data = self
            .disk
            .read(location.offset_bytes, location.bytes)
            .await?;
        let value = location.value(&data);
        value
            .map(Some)
            .ok_or(StoreError::Damaged(location.offset_bytes))
    }

    /// Makes changes, in order. They are durable when this returns, all or none of them, unless
    /// they are more than fit into one batch (2 MiB).
    ///
    /// # Errors
    /// If a key or value is too long or the store is full, nothing has changed. If the device
    /// fails it is not known what is on it, and the store takes no more changes.
    pub async fn commit(
        &mut self,
        operations: &[Operation],
        random: impl FnMut() -> u64,
    ) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        for operation in operations {
            check(operation)?;
        }
        let result = self.commit_checked(operations, random).await;
        self.has_failed = !matches!(result, Ok(()) | Err(StoreError::NoSpace));
        result
    }

    async fn commit_checked(
        &mut self,
        operations: &[Operation],
        mut random: impl FnMut() -> u64,
    ) -> Result<(), StoreError> {
        let mut rest = operations;
        while !rest.is_empty() {
            let mut encoded = Vec::new();
            let mut count = 0;
            for operation in rest {
                if count > 0 && encoded.len() + operation.encoded_bytes() > MAX_BATCH_BYTES {
                    break;
                }
                operation.encode(&mut encoded);
                count += 1;
            }
            self.make_room(encoded.len(), &mut random).await?;
            self.append(&encoded).await?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes a batch to the end, durably, and takes it into the index.
    async fn append(&mut self, operations: &[u8]) -> Result<(), StoreError> {
        let batch = encode_batch(self.superblock.salt, self.sequence, operations);
        let bytes = batch.len() as u64;
        self.disk.write(self.end, batch).await?;
        self.disk.flush().await?;
        let at = self.end;
        self.end += bytes;
        self.sequence += 1;
        self.apply(at, operations);
        Ok(())
    }

    fn free_bytes(&self) -> u64 {
        self.begin + self.superblock.area_bytes - self.end
    }

    /// Sees to it that a batch fits, by compaction if need be.
    async fn make_room(
        &mut self,
        operations: usize,
        random: &mut impl FnMut() -> u64,
    ) -> Result<(), StoreError> {
        let wanted = batch_bytes(operations) as u64;
        if wanted <= self.free_bytes() {
            return Ok(());
        }
        // What is copied takes a little more than its operations: headers and ends of sectors.
        let batches = self.live_bytes / (MAX_BATCH_BYTES as u64 / 2) + 1;
        let copied = self.live_bytes + batches * (SECTOR + BATCH_HEADER) as u64;
        // A store that is all but full would be copied for every change.
        let slack = self.superblock.area_bytes / 16;
        if copied + wanted + slack > self.superblock.area_bytes {
            return Err(StoreError::NoSpace);
        }
        self.compact(random()).await
    }

    /// Copies what is valid to the other area, and switches.
    async fn compact(&mut self, salt: u64) -> Result<(), StoreError> {
        let superblock = Superblock {
            generation: self.superblock.generation + 1,
            area: 1 - self.superblock.area,
            salt,
            ..self.superblock
        };
        let begin = superblock.area_begin().ok_or(StoreError::Failed)?;
        let mut offset = begin;
        let mut sequence = 1;
        let mut index = BTreeMap::new();
        let mut encoded = Vec::new();
        let mut members: Vec<(Vec<u8>, Entry)> = Vec::new();
        let keys: Vec<Vec<u8>> = self.index.keys().cloned().collect();
        let mut keys = keys.into_iter().peekable();
        while let Some(key) = keys.next() {
            let value = self.get(&key).await?.unwrap_or_default();
            let crc = value_crc(&value);
            let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
            let at = Operation::Put(key.clone(), value).encode(&mut encoded);
            let entry = Entry {
                offset_bytes: offset + (BATCH_HEADER + at) as u64,
                bytes,
                crc,
            };
            members.push((key, entry));
            if encoded.len() >= MAX_BATCH_BYTES / 2 || keys.peek().is_none() {
                let batch = encode_batch(salt, sequence, &encoded);
                let bytes = batch.len() as u64;
                self.disk.write(offset, batch).await?;
                offset += bytes;
                sequence += 1;
                encoded.clear();
                index.extend(members.drain(..));
            }
        }
        self.disk.flush().await?;
        let slot = 1 - self.slot;
        self.disk
            .write(SUPERBLOCKS[slot], superblock.to_sector())
            .await?;
        self.disk.flush().await?;
        self.superblock = superblock;
        self.slot = slot;
        self.begin = begin;
        self.end = offset;
        self.sequence = sequence;
        self.index = index;
        Ok(())
    }
}

/// Where a value lies on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) offset_bytes: u64,
    pub(super) bytes: usize,
    skipped: usize,
    value_bytes: usize,
    crc: u32,
}

impl Location {
    /// The value in the sectors that were read; none if it is damaged.
    pub(super) fn value(&self, data: &[u8]) -> Option<Vec<u8>> {
        let value = data.get(self.skipped..self.skipped + self.value_bytes)?;
        (value_crc(value) == self.crc).then(|| value.to_vec())
    }
}

fn check(operation: &Operation) -> Result<(), StoreError> {
    if !(1..=MAX_KEY_BYTES).contains(&operation.key().len()) {
        return Err(StoreError::BadKey);
    }
    match operation {
        Operation::Put(_, value) if value.len() > MAX_VALUE_BYTES => Err(StoreError::ValueTooLong),
        _ => Ok(()),
    }
}

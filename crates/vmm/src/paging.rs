//! Page tables of a guest: virtual addresses equal physical ones (Intel SDM volume 3, 4.5).

use std::ops::Range;

use crate::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Set beforehand, so that the processor need not write the tables.
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const NOT_EXECUTABLE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRY_BYTES: u64 = 8;

/// What may be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// By the guest; otherwise only by the stub.
    pub user: bool,
    /// Written.
    pub write: bool,
    /// Executed.
    pub execute: bool,
}

impl Rights {
    /// The guest reads it.
    pub const USER_READ: Self = Self {
        user: true,
        write: false,
        execute: false,
    };
    /// The guest reads and writes it.
    pub const USER_WRITE: Self = Self {
        user: true,
        write: true,
        execute: false,
    };

    fn bits(self) -> u64 {
        let mut bits = PRESENT | ACCESSED_DIRTY;
        if self.user {
            bits |= USER;
        }
        if self.write {
            bits |= WRITABLE;
        }
        if !self.execute {
            bits |= NOT_EXECUTABLE;
        }
        bits
    }
}

/// There is no room for another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablesFull;

/// Tables under construction, in the memory where the processor will find them.
#[derive(Debug)]
pub struct PageTables<'memory> {
    room: &'memory mut [u8],
    address: u64,
    next: u64,
}

impl<'memory> PageTables<'memory> {
    /// Begins with an empty top table at the beginning of `room` (zeroed), which lies at
    /// `address` of the guest.
    pub fn new(room: &'memory mut [u8], address: u64) -> Self {
        Self {
            room,
            address,
            next: address + PAGE_BYTES,
        }
    }

    /// Maps a range of pages, by large ones where it can. What was mapped before is replaced.
    ///
    /// # Errors
    /// If the room for tables is exhausted.
    pub fn map(&mut self, range: Range<u64>, rights: Rights) -> Result<(), TablesFull> {
        let mut at = range.start / PAGE_BYTES * PAGE_BYTES;
        while at < range.end {
            let is_large =
                at.is_multiple_of(LARGE_PAGE_BYTES) && range.end - at >= LARGE_PAGE_BYTES;
            let directory = self.directory(at)?;
            let slot = directory + index(at, 21) * ENTRY_BYTES;
            if is_large {
                self.set(slot, at | rights.bits() | LARGE)?;
                at += LARGE_PAGE_BYTES;
                continue;
            }
            let table = self.below(slot)?;
            self.set(table + index(at, 12) * ENTRY_BYTES, at | rights.bits())?;
            at += PAGE_BYTES;
        }
        Ok(())
    }

    /// The page directory that an address belongs to.
    fn directory(&mut self, at: u64) -> Result<u64, TablesFull> {
        let pointers = self.below(self.address + index(at, 39) * ENTRY_BYTES)?;
        self.below(pointers + index(at, 30) * ENTRY_BYTES)
    }

    /// The table that an entry points to; made if there is none.
    fn below(&mut self, slot: u64) -> Result<u64, TablesFull> {
        let entry = self.get(slot)?;
        if entry & PRESENT != 0 {
            return Ok(entry & ADDRESS);
        }
        let table = self.next;
        self.get(table + PAGE_BYTES - ENTRY_BYTES)?;
        self.next += PAGE_BYTES;
        // The last level decides about writing, executing and the user.
        self.set(slot, table | PRESENT | WRITABLE | USER | ACCESSED_DIRTY)?;
        Ok(table)
    }

    fn place(&self, slot: u64) -> Result<Range<usize>, TablesFull> {
        let start = usize::try_from(slot.wrapping_sub(self.address)).map_err(|_| TablesFull)?;
        Ok(start..start.saturating_add(8))
    }

    fn get(&self, slot: u64) -> Result<u64, TablesFull> {
        let bytes = self.room.get(self.place(slot)?).ok_or(TablesFull)?;
        gamut_abi::guest::bytes::u64_at(bytes, 0).ok_or(TablesFull)
    }

    fn set(&mut self, slot: u64, entry: u64) -> Result<(), TablesFull> {
        let place = self.place(slot)?;
        let bytes = self.room.get_mut(place).ok_or(TablesFull)?;
        bytes.copy_from_slice(&entry.to_le_bytes());
        Ok(())
    }
}

fn index(address: u64, shift: u32) -> u64 {
    (address >> shift) & 0x1ff
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x6000;

    /// What the processor would find.
    fn walk(room: &[u8], address: u64) -> Option<(u64, u64)> {
        let mut table = BASE;
        for shift in [39, 30, 21, 12] {
            let at = usize::try_from(table - BASE + index(address, shift) * 8).unwrap();
            let entry = gamut_abi::guest::bytes::u64_at(room, at)?;
            if entry & PRESENT == 0 {
                return None;
            }
            if shift == 12 || entry & LARGE != 0 {
                return Some((entry & ADDRESS, entry));
            }
            table = entry & ADDRESS;
        }
        None
    }

    #[test]
    fn ranges_are_mapped_with_their_rights_and_nothing_else() {
        let mut room = vec![0; 16 * 4096];
        let mut tables = PageTables::new(&mut room, BASE);
        let code = Rights {
            user: true,
            write: false,
            execute: true,
        };
        tables.map(0x10_0000..0x10_2001, code).unwrap();
        tables
            .map(0x10_5000..0x80_3000, Rights::USER_WRITE)
            .unwrap();
        assert_eq!(walk(&room, 0), None);
        let (address, entry) = walk(&room, 0x10_2000).unwrap();
        assert_eq!(address, 0x10_2000);
        assert_eq!(entry & (WRITABLE | NOT_EXECUTABLE | USER), USER);
        assert_eq!(walk(&room, 0x10_3000), None);
        assert_eq!(walk(&room, 0x10_4000), None);
        let (_, entry) = walk(&room, 0x20_0000).unwrap();
        assert_eq!(
            entry & (LARGE | NOT_EXECUTABLE | WRITABLE),
            LARGE | NOT_EXECUTABLE | WRITABLE
        );
        let (address, entry) = walk(&room, 0x80_2000).unwrap();
        assert_eq!((address, entry & LARGE), (0x80_2000, 0));
        assert_eq!(walk(&room, 0x80_3000), None);
    }

    #[test]
    fn full_tables_are_an_error() {
        let mut room = vec![0; 4 * 4096];
        let mut tables = PageTables::new(&mut room, BASE);
        tables.map(0..0x1000, Rights::USER_READ).unwrap();
        assert_eq!(
            tables.map(0x4000_0000..0x4000_1000, Rights::USER_READ),
            Err(TablesFull)
        );
    }
}

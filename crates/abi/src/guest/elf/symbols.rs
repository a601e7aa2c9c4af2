//! Where the symbol table is.

use core::ops::Range;

use crate::guest::bytes::{u16_at, u32_at, u64_at};

const SECTION_HEADER_BYTES: u16 = 64;
const MAX_SECTIONS: u16 = 4096;
const SHT_SYMTAB: u32 = 2;

/// The symbol table and its strings, as ranges of the file. `None` if it was stripped, or cannot
/// be read.
#[must_use]
pub fn symbol_table(file: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let table = usize::try_from(u64_at(file, 40)?).ok()?;
    let (entry_bytes, count) = (u16_at(file, 58)?, u16_at(file, 60)?);
    if entry_bytes != SECTION_HEADER_BYTES || count > MAX_SECTIONS {
        return None;
    }
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(usize::from(SECTION_HEADER_BYTES))?)?;
        file.get(start..)?.get(..usize::from(SECTION_HEADER_BYTES))
    };
    let range = |header: &[u8]| {
        let start = usize::try_from(u64_at(header, 24)?).ok()?;
        let end = start.checked_add(usize::try_from(u64_at(header, 32)?).ok()?)?;
        (end <= file.len()).then_some(start..end)
    };
    let symbols = (0..usize::from(count))
        .filter_map(header)
        .find(|header| u32_at(header, 4) == Some(SHT_SYMTAB))?;
    let strings = header(usize::try_from(u32_at(symbols, 40)?).ok()?)?;
    Some((range(symbols)?, range(strings)?))
}

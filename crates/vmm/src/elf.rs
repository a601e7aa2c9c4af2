//! Reading an ELF file (`elf(5)`, System V ABI, x86-64 supplement). No I/O; the file is hostile.

use std::ops::Range;

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::ImageError;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;
const SECTION_HEADER_BYTES: u16 = 64;
/// More segments than any linker makes.
const MAX_SEGMENTS: u16 = 64;
const MAX_SECTIONS: u16 = 4096;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_TLS: u32 = 7;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const SHT_SYMTAB: u32 = 2;

/// A piece of the file that is to be in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub file: Range<usize>,
    /// Where in memory; what the file does not fill is zero.
    pub memory: Range<u64>,
    /// Can be written.
    pub is_writable: bool,
    /// Can be executed.
    pub is_executable: bool,
}

/// An ELF file's headers, checked: every range lies in the file, segments are sorted and do not
/// overlap, and none is both writable and executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Where it starts; in an executable segment.
    pub entry: u64,
    /// `PT_LOAD` segments that are not empty, by address.
    pub segments: Vec<Segment>,
    /// `PT_NOTE` segments in the file.
    pub notes: Vec<Range<usize>>,
}

fn bad(field: &str, problem: impl Into<String>) -> ImageError {
    ImageError::new(field, problem)
}

fn cut_short(field: &str) -> ImageError {
    bad(
        field,
        "the file ends in the middle of it; copy the image again",
    )
}

impl Elf {
    /// Reads the headers of a statically linked x86-64 executable.
    ///
    /// # Errors
    /// Names the header or segment, what is wrong with it, and how to link it right.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        Self::read(file, false)
    }

    /// The same for an image of Solo5, which names a dynamic linker that is none, so that no kernel
    /// takes it for a program of its own, and sets thread-local storage up by itself.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_solo5(file: &[u8]) -> Result<Self, ImageError> {
        Self::read(file, true)
    }

    fn read(file: &[u8], is_solo5: bool) -> Result<Self, ImageError> {
        check_identification(file)?;
        let count = u16_at(file, 56).ok_or_else(|| cut_short("ELF header"))?;
        let entry_bytes = u16_at(file, 54).ok_or_else(|| cut_short("ELF header"))?;
        let table = u64_at(file, 32).ok_or_else(|| cut_short("ELF header"))?;
        let entry = u64_at(file, 24).ok_or_else(|| cut_short("ELF header"))?;
        if entry_bytes != PROGRAM_HEADER_BYTES {
            return Err(bad(
                "ELF header",
                format!("program headers of {entry_bytes} bytes instead of 56"),
            ));
        }
        if count > MAX_SEGMENTS {
            return Err(bad(
                "ELF header",
                format!("{count} program headers; at most {MAX_SEGMENTS} are read"),
            ));
        }
        let mut elf = Self {
            entry,
            segments: Vec::new(),
            notes: Vec::new(),
        };
        let table = usize::try_from(table).map_err(|_| cut_short("program headers"))?;
        for index in 0..usize::from(count) {
            let header = table
                .checked_add(index * usize::from(PROGRAM_HEADER_BYTES))
                .and_then(|start| file.get(start..)?.get(..usize::from(PROGRAM_HEADER_BYTES)))
                .ok_or_else(|| cut_short("program headers"))?;
            elf.add(file, index, header, is_solo5)?;
        }
        elf.check()?;
        Ok(elf)
    }

    fn add(
        &mut self,
        file: &[u8],
        index: usize,
        header: &[u8],
        is_solo5: bool,
    ) -> Result<(), ImageError> {
        let name = format!("segment {index}");
        let word = |at| u64_at(header, at).ok_or_else(|| cut_short(&name));
        let kind = u32_at(header, 0).ok_or_else(|| cut_short(&name))?;
        let flags = u32_at(header, 4).ok_or_else(|| cut_short(&name))?;
        match kind {
            PT_LOAD | PT_NOTE => {}
            PT_INTERP | PT_TLS if is_solo5 => return Ok(()),
            PT_INTERP => {
                return Err(bad(
                    &name,
                    "it wants a dynamic linker (PT_INTERP); link with -static",
                ));
            }
            PT_TLS => {
                return Err(bad(
                    &name,
                    "thread-local storage (PT_TLS) is not supported yet; use statics",
                ));
            }
            _ => return Ok(()),
        }
        let (offset, address, file_bytes, memory_bytes) =
            (word(8)?, word(16)?, word(32)?, word(40)?);
        let start = usize::try_from(offset).map_err(|_| cut_short(&name))?;
        let end = usize::try_from(file_bytes)
            .ok()
            .and_then(|bytes| start.checked_add(bytes))
            .filter(|end| *end <= file.len())
            .ok_or_else(|| cut_short(&name))?;
        if kind == PT_NOTE {
            self.notes.push(start..end);
            return Ok(());
        }
        if memory_bytes == 0 {
            return Ok(());
        }
        if file_bytes > memory_bytes {
            return Err(bad(&name, "it is larger in the file than in memory"));
        }
        let memory_end = address
            .checked_add(memory_bytes)
            .ok_or_else(|| bad(&name, "its end lies beyond the last address"))?;
        let (is_writable, is_executable) = (flags & PF_W != 0, flags & PF_X != 0);
        if is_writable && is_executable {
            return Err(bad(
                &name,
                "it can be written and executed, so that a bug could be turned into code; \
                 put code and data into segments of their own",
            ));
        }
        self.segments.push(Segment {
            file: start..end,
            memory: address..memory_end,
            is_writable,
            is_executable,
        });
        Ok(())
    }

    fn check(&mut self) -> Result<(), ImageError> {
        if self.segments.is_empty() {
            return Err(bad("program headers", "there is no segment to load"));
        }
        self.segments.sort_by_key(|segment| segment.memory.start);
        for pair in self.segments.windows(2) {
            if let [low, high] = pair
                && low.memory.end > high.memory.start
            {
                return Err(bad(
                    &format!("segment at {:#x}", high.memory.start),
                    format!("it overlaps the one at {:#x}", low.memory.start),
                ));
            }
        }
        let is_code = self
            .segments
            .iter()
            .any(|segment| segment.is_executable && segment.memory.contains(&self.entry));
        if !is_code {
            return Err(bad(
                "ELF header",
                format!("entry {:#x} is in no executable segment", self.entry),
            ));
        }
        Ok(())
    }
}

fn check_identification(file: &[u8]) -> Result<(), ImageError> {
    let header = file
        .get(..HEADER_BYTES)
        .ok_or_else(|| bad("ELF header", "the file is too short to be an ELF file"))?;
    if !header.starts_with(b"\x7fELF") {
        return Err(bad("ELF header", "this is not an ELF file"));
    }
    if header.get(4..6) != Some(&[2, 1]) {
        return Err(bad("ELF header", "not a 64-bit little-endian file"));
    }
    match u16_at(header, 18) {
        Some(EM_X86_64) => {}
        machine => {
            return Err(bad(
                "ELF header",
                format!("machine {} is not x86-64 (62)", machine.unwrap_or(0)),
            ));
        }
    }
    match u16_at(header, 16) {
        Some(ET_EXEC) => Ok(()),
        Some(ET_DYN) => Err(bad(
            "ELF header",
            "position-independent or a library; link with -static -no-pie",
        )),
        _ => Err(bad("ELF header", "not an executable")),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(data: Vec<u8>) {
            let _ = Elf::parse(&data);
            let _ = Elf::parse_solo5(&data);
            let _ = symbol_table(&data);
        }
    }
}

//! The header of an ELF file and its program headers.

use core::ops::Range;

use super::ImageError;
use crate::guest::bytes::{u16_at, u32_at, u64_at};

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// More segments than any linker makes.
const MAX_PROGRAM_HEADERS: u16 = 64;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;

/// `p_type` of what is to be in memory.
pub(super) const PT_LOAD: u32 = 1;
/// The name of a dynamic linker.
pub(super) const PT_INTERP: u32 = 3;
/// Notes.
pub(super) const PT_NOTE: u32 = 4;
/// The beginning of thread-local storage.
pub(super) const PT_TLS: u32 = 7;

/// A program header, as it stands in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProgramHeader {
    pub(super) kind: u32,
    pub(super) flags: u32,
    offset: u64,
    pub(super) address: u64,
    pub(super) file_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) alignment: u64,
}

impl ProgramHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            flags: u32_at(bytes, 4)?,
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            file_bytes: u64_at(bytes, 32)?,
            memory_bytes: u64_at(bytes, 40)?,
            alignment: u64_at(bytes, 48)?,
        })
    }

    /// Where its content lies. `None` if the file ends before.
    pub(super) fn range(&self, file: &[u8]) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let end = start.checked_add(usize::try_from(self.file_bytes).ok()?)?;
        (end <= file.len()).then_some(start..end)
    }
}

/// Where a program starts.
pub(super) fn entry(file: &[u8]) -> Option<u64> {
    u64_at(file, 24)
}

/// The program headers of a 64-bit x86-64 program with fixed addresses.
///
/// # Errors
/// If it is none, or the file ends before them.
pub(super) fn program_headers(
    file: &[u8],
) -> Result<impl Iterator<Item = ProgramHeader> + Clone, ImageError> {
    check_identification(file)?;
    if u16_at(file, 54).map(usize::from) != Some(PROGRAM_HEADER_BYTES) {
        return Err(ImageError::new(
            "e_phentsize",
            "program headers are not 56 bytes long",
        ));
    }
    let count = match u16_at(file, 56) {
        Some(0) | None => {
            return Err(ImageError::new(
                "e_phnum",
                "the file has no program headers",
            ));
        }
        Some(count) if count > MAX_PROGRAM_HEADERS => {
            return Err(ImageError::new(
                "e_phnum",
                "the file has more than 64 program headers",
            ));
        }
        Some(count) => usize::from(count),
    };
    let table = u64_at(file, 32)
        .and_then(|start| usize::try_from(start).ok())
        .and_then(|start| file.get(start..)?.get(..count * PROGRAM_HEADER_BYTES))
        .ok_or_else(|| {
            ImageError::new(
                "e_phoff",
                "the program headers are not in the file; copy the image again",
            )
        })?;
    Ok(table
        .chunks_exact(PROGRAM_HEADER_BYTES)
        .filter_map(ProgramHeader::read))
}

fn check_identification(file: &[u8]) -> Result<(), ImageError> {
    let wrong = |field: &'static str, problem: &'static str| Err(ImageError::new(field, problem));
    if !file.starts_with(b"\x7fELF") {
        return wrong("EI_MAG0", "the file does not begin as an ELF file");
    }
    let Some(header) = file.get(..HEADER_BYTES) else {
        return wrong("e_ident", "the file ends within its header");
    };
    if header.get(4) != Some(&2) {
        return wrong("EI_CLASS", "the file is not a 64-bit one");
    }
    if header.get(5) != Some(&1) {
        return wrong("EI_DATA", "the file is not little-endian");
    }
    if u16_at(header, 18) != Some(EM_X86_64) {
        return wrong("e_machine", "the file is not for x86-64");
    }
    match u16_at(header, 16) {
        Some(ET_EXEC) => Ok(()),
        Some(ET_DYN) => wrong(
            "e_type",
            "position-independent or a library, not a program with fixed addresses (ET_EXEC); \
             link with -static -no-pie",
        ),
        _ => wrong(
            "e_type",
            "the file is not a program with fixed addresses (ET_EXEC)",
        ),
    }
}

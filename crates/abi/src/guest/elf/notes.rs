//! Notes (System V gABI, "Note Section").

use core::ops::Range;

use super::ImageError;
use super::header::{PT_NOTE, ProgramHeader, program_headers};
use crate::guest::bytes::u32_at;

/// One note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteEntry<'file> {
    /// Owner, with its terminating zero.
    pub owner: &'file [u8],
    /// Type, in the owner's sense.
    pub kind: u32,
    /// Where its content lies in the file.
    pub description: Range<usize>,
}

/// Notes that lie one behind the other; ends at the first malformed one.
#[derive(Debug, Clone)]
struct Notes<'file> {
    file: &'file [u8],
    rest: Range<usize>,
    alignment: usize,
}

impl<'file> Iterator for Notes<'file> {
    type Item = NoteEntry<'file>;

    fn next(&mut self) -> Option<NoteEntry<'file>> {
        let begin = self.rest.start;
        let bytes = self.file.get(self.rest.clone())?;
        let owner_bytes = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let description_bytes = usize::try_from(u32_at(bytes, 4)?).ok()?;
        let kind = u32_at(bytes, 8)?;
        let owner = bytes.get(12..)?.get(..owner_bytes)?;
        let start = 12_usize
            .checked_add(owner_bytes)?
            .checked_next_multiple_of(self.alignment)?;
        let end = start.checked_add(description_bytes)?;
        bytes.get(start..end)?;
        let next = end.checked_next_multiple_of(self.alignment)?;
        self.rest.start = begin.checked_add(next)?.min(self.rest.end);
        Some(NoteEntry {
            owner,
            kind,
            description: begin + start..begin + end,
        })
    }
}

/// The notes of a file.
///
/// # Errors
/// If it is no program that could be a unikernel, or ends before its notes (field `p_offset`).
pub fn notes(file: &[u8]) -> Result<impl Iterator<Item = NoteEntry<'_>>, ImageError> {
    let segments = program_headers(file)?.filter(|header| header.kind == PT_NOTE);
    if segments.clone().any(|header| header.range(file).is_none()) {
        return Err(ImageError::new("p_offset", "a note lies beyond the file"));
    }
    let of_segment = |header: ProgramHeader| Notes {
        file,
        rest: header.range(file).unwrap_or_default(),
        alignment: if header.alignment == 8 { 8 } else { 4 },
    };
    Ok(segments.flat_map(of_segment))
}

/// Where the description of a note lies in the file. `None` if it has no such note.
///
/// # Errors
/// As [`notes`].
pub fn description(
    file: &[u8],
    owner: &[u8],
    kind: u32,
) -> Result<Option<Range<usize>>, ImageError> {
    let mut notes = notes(file)?;
    let found = notes.find(|note| note.kind == kind && note.owner == owner);
    Ok(found.map(|note| note.description))
}

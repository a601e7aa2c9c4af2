//! Finding the note of a unikernel in its ELF file, without I/O.
//!
//! Source: System V gABI, chapters 4 and 5 ("ELF Header", "Program Header", "Note Section").

use super::note::{DEFAULT_MEMORY_OFFSET, NOTE_NAME, NOTE_TYPE_UNIKERNEL, Note};
use super::solo5;
use core::fmt;
use core::ops::Range;

/// Size of the header of a 64-bit ELF file, in bytes.
const HEADER_BYTES: usize = 64;

/// Size of a program header of a 64-bit ELF file, in bytes.
const PROGRAM_HEADER_BYTES: u64 = 56;

/// Most program headers that are looked at. Linkers make about ten.
const MAX_PROGRAM_HEADERS: u16 = 256;

/// `e_type` of a program with fixed addresses.
const TYPE_EXECUTABLE: u16 = 2;

/// `e_machine` of x86-64.
const MACHINE_X86_64: u16 = 62;

/// `p_type` of notes.
const SEGMENT_NOTE: u32 = 4;

/// Why a file is no unikernel. `field` is named as in `elf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUnikernel {
    /// The field that does not fit.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for NotUnikernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl core::error::Error for NotUnikernel {}

/// The note by which an ELF file says that it is a unikernel of Gamut, or what it would say if it
/// were none of Solo5 ([`solo5`]).
///
/// # Errors
/// If it is no 64-bit x86-64 program with fixed addresses, is cut off, or has no such note.
pub fn unikernel_note(file: &[u8]) -> Result<Note, NotUnikernel> {
    match description(file, NOTE_NAME, NOTE_TYPE_UNIKERNEL)? {
        Some(at) => file
            .get(at)
            .and_then(Note::from_bytes)
            .ok_or(wrong("n_descsz", "the note of owner Gamut is too short")),
        None => solo5::manifest(file)?
            .map(|manifest| manifest.note())
            .ok_or_else(|| no_note(file)),
    }
}

/// Changes the memory that a unikernel gets when nobody says otherwise, in its file.
///
/// # Errors
/// As [`unikernel_note`].
pub fn set_default_memory(file: &mut [u8], memory_bytes: u64) -> Result<(), NotUnikernel> {
    let at = match description(file, NOTE_NAME, NOTE_TYPE_UNIKERNEL)? {
        Some(at) => at.start,
        None if solo5::manifest(file)?.is_some() => {
            return Err(wrong(
                "PT_NOTE",
                "images of Solo5 have no field for it; say how much memory when it is run",
            ));
        }
        None => return Err(no_note(file)),
    };
    let at = at.checked_add(DEFAULT_MEMORY_OFFSET);
    let field = at.and_then(|at| file.get_mut(at..at.checked_add(8)?));
    field
        .ok_or(wrong("n_descsz", "the note of owner Gamut is too short"))?
        .copy_from_slice(&memory_bytes.to_le_bytes());
    Ok(())
}

/// Where the description of a note lies in the file. `None` if it has no such note.
pub(super) fn description(
    file: &[u8],
    owner: &[u8],
    kind: u32,
) -> Result<Option<Range<usize>>, NotUnikernel> {
    let (offset, count) = check_header(file)?;
    for index in 0..u64::from(count) {
        let header = program_header(file, offset, index)
            .ok_or(wrong("e_phoff", "the program headers are not in the file"))?;
        if word(header, 0) != Some(SEGMENT_NOTE) {
            continue;
        }
        let start = double(header, 8);
        let bytes = double(header, 32).unwrap_or_default();
        let notes =
            piece(file, start, bytes).ok_or(wrong("p_offset", "a note lies beyond the file"))?;
        let alignment = double(header, 48).unwrap_or_default();
        if let (Some(found), Some(start)) = (
            find_note(notes, if alignment == 8 { 8 } else { 4 }, owner, kind),
            start.and_then(|start| usize::try_from(start).ok()),
        ) {
            // Within the file, as the notes are.
            return Ok(Some(
                start.saturating_add(found.start)..start.saturating_add(found.end),
            ));
        }
    }
    Ok(None)
}

/// Says that a file has no note of ours, and what it may be instead.
fn no_note(file: &[u8]) -> NotUnikernel {
    // PT_INTERP: a program for Linux, which deserves to be told so.
    let linked_dynamically = check_header(file).is_ok_and(|(offset, count)| {
        (0..u64::from(count))
            .filter_map(|index| program_header(file, offset, index))
            .any(|header| word(header, 0) == Some(3))
    });
    wrong(
        "PT_NOTE",
        if linked_dynamically {
            "there is no note of owner Gamut: this is a program for Linux, linked dynamically"
        } else {
            "there is no note of owner Gamut: it was not linked with libos"
        },
    )
}

fn program_header(file: &[u8], offset: u64, index: u64) -> Option<&[u8]> {
    piece(
        file,
        offset.checked_add(index * PROGRAM_HEADER_BYTES),
        PROGRAM_HEADER_BYTES,
    )
}

/// Where the program headers lie, and how many there are.
fn check_header(file: &[u8]) -> Result<(u64, u16), NotUnikernel> {
    if file.get(..4) != Some(b"\x7fELF") {
        return Err(wrong("EI_MAG0", "the file does not begin as an ELF file"));
    }
    let header = file
        .get(..HEADER_BYTES)
        .ok_or(wrong("e_ident", "the file ends within its header"))?;
    if header.get(4) != Some(&2) {
        return Err(wrong("EI_CLASS", "the file is not a 64-bit one"));
    }
    if header.get(5) != Some(&1) {
        return Err(wrong("EI_DATA", "the file is not little-endian"));
    }
    if half(header, 18) != Some(MACHINE_X86_64) {
        return Err(wrong("e_machine", "the file is not for x86-64"));
    }
    if half(header, 16) != Some(TYPE_EXECUTABLE) {
        return Err(wrong(
            "e_type",
            "the file is not a program with fixed addresses (ET_EXEC)",
        ));
    }
    if half(header, 54).map(u64::from) != Some(PROGRAM_HEADER_BYTES) {
        return Err(wrong(
            "e_phentsize",
            "program headers are not 56 bytes long",
        ));
    }
    match (double(header, 32), half(header, 56)) {
        (_, Some(0)) => Err(wrong("e_phnum", "the file has no program headers")),
        (Some(offset), Some(count)) if count <= MAX_PROGRAM_HEADERS => Ok((offset, count)),
        _ => Err(wrong(
            "e_phnum",
            "the file has more than 256 program headers",
        )),
    }
}

/// Where the description of a note lies among others. Names and descriptions are padded to
/// `alignment`.
fn find_note(all: &[u8], alignment: usize, owner: &[u8], wanted: u32) -> Option<Range<usize>> {
    let mut begun = 0_usize;
    loop {
        let notes = all.get(begun..)?;
        let name_bytes = usize::try_from(word(notes, 0)?).ok()?;
        let description_bytes = usize::try_from(word(notes, 4)?).ok()?;
        let kind = word(notes, 8)?;
        let name: Range<usize> = 12..12_usize.checked_add(name_bytes)?;
        let start = name.end.checked_next_multiple_of(alignment)?;
        let end = start.checked_add(description_bytes)?;
        notes.get(start..end)?;
        if kind == wanted && notes.get(name) == Some(owner) {
            return Some(begun.checked_add(start)?..begun.checked_add(end)?);
        }
        begun = begun.checked_add(end.checked_next_multiple_of(alignment)?)?;
    }
}

fn wrong(field: &'static str, problem: &'static str) -> NotUnikernel {
    NotUnikernel { field, problem }
}

fn piece(file: &[u8], start: Option<u64>, bytes: u64) -> Option<&[u8]> {
    let start = start?;
    let end = start.checked_add(bytes)?;
    file.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn double(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// Entry for fuzzers: must come back, whatever the bytes.
pub fn fuzz_elf(bytes: &[u8]) {
    // Whether it is one is not the point.
    let _ = unikernel_note(bytes);
    let mut copy = bytes.to_vec();
    let _ = set_default_memory(&mut copy, 1);
    assert!(copy.len() == bytes.len(), "only the field changes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
        bytes.extend(length(name).to_le_bytes());
        bytes.extend(length(description).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for part in [name, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn file(notes: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend(TYPE_EXECUTABLE.to_le_bytes());
        bytes.extend(MACHINE_X86_64.to_le_bytes());
        bytes.resize(32, 0);
        bytes.extend(64_u64.to_le_bytes());
        bytes.resize(54, 0);
        bytes.extend(56_u16.to_le_bytes());
        bytes.extend(1_u16.to_le_bytes());
        bytes.resize(64, 0);
        bytes.extend(SEGMENT_NOTE.to_le_bytes());
        bytes.resize(72, 0);
        bytes.extend(120_u64.to_le_bytes());
        bytes.resize(96, 0);
        bytes.extend((notes.len() as u64).to_le_bytes());
        bytes.resize(112, 0);
        bytes.extend(4_u64.to_le_bytes());
        bytes.extend(notes);
        bytes
    }

    fn ours() -> Vec<u8> {
        let mut description = Vec::new();
        description.extend(1_u32.to_le_bytes());
        description.extend(0_u32.to_le_bytes());
        for number in [65_536_u64, 4 << 20, 8 << 20] {
            description.extend(number.to_le_bytes());
        }
        note(b"Gamut\0", 1, &description)
    }

    #[test]
    fn the_note_is_found_behind_others() {
        let mut notes = note(b"Xen\0", 18, &[0, 0, 0x10, 0]);
        notes.extend(note(b"GNU\0", 1, b"abc"));
        notes.extend(ours());
        let found = unikernel_note(&file(&notes)).expect("a unikernel");
        assert_eq!(found.abi_version, 1);
        assert_eq!(found.stack_bytes, 65_536);
        assert_eq!(found.default_memory_bytes, 8 << 20);
        let mut bytes = file(&notes);
        set_default_memory(&mut bytes, 16 << 20).expect("a unikernel");
        let changed = unikernel_note(&bytes).expect("a unikernel");
        let expected = Note {
            default_memory_bytes: 16 << 20,
            ..found
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn what_is_none_is_told_why() {
        let whole = file(&ours());
        let changed = |at: usize, value: u8| {
            let mut bytes = whole.clone();
            bytes[at] = value;
            unikernel_note(&bytes).expect_err("damaged").field
        };
        assert_eq!(changed(0, b'E'), "EI_MAG0");
        assert_eq!(changed(4, 1), "EI_CLASS");
        assert_eq!(changed(5, 2), "EI_DATA");
        assert_eq!(changed(18, 183), "e_machine");
        assert_eq!(changed(16, 3), "e_type");
        assert_eq!(changed(54, 32), "e_phentsize");
        assert_eq!(changed(56, 0), "e_phnum");
        assert_eq!(changed(33, 255), "e_phoff");
        assert_eq!(changed(73, 255), "p_offset");
        assert_eq!(changed(64, 1), "PT_NOTE");
        let short = note(b"Gamut\0", 1, &[0; 8]);
        assert_eq!(
            unikernel_note(&file(&short)).expect_err("short").field,
            "n_descsz"
        );
        assert_eq!(
            unikernel_note(&whole[..40]).expect_err("cut").field,
            "e_ident"
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), keep in 0..180_usize) {
            fuzz_elf(&bytes);
            let mut damaged = file(&ours());
            let keep = keep.min(damaged.len());
            damaged.truncate(keep);
            damaged.extend(bytes);
            fuzz_elf(&damaged);
        }
    }
}

//! Reading the ELF file of a unikernel, without I/O; the file is hostile.
//!
//! Source: System V gABI, chapters 4 and 5 ("ELF Header", "Program Header", "Note Section").

mod error;
mod header;
mod image;
mod notes;
mod symbols;

pub use error::ImageError;
pub use image::{Elf, Segment};
pub use notes::{NoteEntry, description, notes};
pub use symbols::symbol_table;

use super::note::{DEFAULT_MEMORY_OFFSET, NOTE_NAME, NOTE_TYPE_UNIKERNEL, Note};
use super::solo5;
use header::{PT_INTERP, program_headers};

const TOO_SHORT: &str = "the note of owner Gamut is too short";

/// The note by which an ELF file says that it is a unikernel of Gamut, or what it would say if it
/// were none of Solo5 ([`solo5`]).
///
/// # Errors
/// If it is no 64-bit x86-64 program with fixed addresses, is cut off, or has no such note.
pub fn unikernel_note(file: &[u8]) -> Result<Note, ImageError> {
    match description(file, NOTE_NAME, NOTE_TYPE_UNIKERNEL)? {
        Some(at) => file
            .get(at)
            .and_then(Note::from_bytes)
            .ok_or_else(|| ImageError::new("n_descsz", TOO_SHORT)),
        None => solo5::manifest(file)?
            .map(|manifest| manifest.note())
            .ok_or_else(|| no_note(file)),
    }
}

/// Changes the memory that a unikernel gets when nobody says otherwise, in its file.
///
/// # Errors
/// As [`unikernel_note`].
pub fn set_default_memory(file: &mut [u8], memory_bytes: u64) -> Result<(), ImageError> {
    let at = match description(file, NOTE_NAME, NOTE_TYPE_UNIKERNEL)? {
        Some(at) => at.start,
        None if solo5::manifest(file)?.is_some() => {
            return Err(ImageError::new(
                "PT_NOTE",
                "images of Solo5 have no field for it; say how much memory when it is run",
            ));
        }
        None => return Err(no_note(file)),
    };
    let at = at.checked_add(DEFAULT_MEMORY_OFFSET);
    let field = at.and_then(|at| file.get_mut(at..at.checked_add(8)?));
    field
        .ok_or_else(|| ImageError::new("n_descsz", TOO_SHORT))?
        .copy_from_slice(&memory_bytes.to_le_bytes());
    Ok(())
}

/// Says that a file has no note of ours, and what it may be instead.
fn no_note(file: &[u8]) -> ImageError {
    // A program for Linux deserves to be told so.
    let linked_dynamically = program_headers(file)
        .is_ok_and(|mut headers| headers.any(|header| header.kind == PT_INTERP));
    ImageError::new(
        "PT_NOTE",
        if linked_dynamically {
            "there is no note of owner Gamut: this is a program for Linux, linked dynamically"
        } else {
            "there is no note of owner Gamut: it was not linked with libos"
        },
    )
}

/// Entry for fuzzers: must come back, whatever the bytes.
pub fn fuzz_elf(bytes: &[u8]) {
    // Whether it is one is not the point.
    let _ = unikernel_note(bytes);
    if let Ok(elf) = Elf::parse(bytes) {
        for segment in &elf.segments {
            assert!(
                segment.file.end <= bytes.len(),
                "a segment lies in the file"
            );
            assert!(!(segment.is_writable && segment.is_executable));
        }
    }
    let _ = Elf::parse_solo5(bytes);
    let _ = symbol_table(bytes);
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
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(62_u16.to_le_bytes());
        bytes.resize(32, 0);
        bytes.extend(64_u64.to_le_bytes());
        bytes.resize(54, 0);
        bytes.extend(56_u16.to_le_bytes());
        bytes.extend(1_u16.to_le_bytes());
        bytes.resize(64, 0);
        bytes.extend(header::PT_NOTE.to_le_bytes());
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

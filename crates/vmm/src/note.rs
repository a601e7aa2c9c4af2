//! ELF notes (System V ABI, "Note Section") and the one by which an image says what it needs.

use std::ops::Range;

use gamut_abi::guest::GUEST_ABI_VERSION;
use gamut_abi::guest::note::{NOTE_NAME, NOTE_TYPE_UNIKERNEL, Note};

use crate::bytes::u32_at;
use crate::error::ImageError;

/// One note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteEntry<'file> {
    /// Owner, with its terminating zero.
    pub name: &'file [u8],
    /// Type, in the owner's sense.
    pub kind: u32,
    /// Content.
    pub description: &'file [u8],
}

/// The notes of a segment; ends at the first malformed one.
pub struct Notes<'file>(pub &'file [u8]);

impl<'file> Iterator for Notes<'file> {
    type Item = NoteEntry<'file>;

    fn next(&mut self) -> Option<NoteEntry<'file>> {
        let bytes = self.0;
        let name_bytes = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let description_bytes = usize::try_from(u32_at(bytes, 4)?).ok()?;
        let kind = u32_at(bytes, 8)?;
        let name = bytes.get(12..)?.get(..name_bytes)?;
        let at = 12_usize
            .checked_add(name_bytes)?
            .checked_next_multiple_of(4)?;
        let description = bytes.get(at..)?.get(..description_bytes)?;
        let next = at
            .checked_add(description_bytes)?
            .checked_next_multiple_of(4)?;
        self.0 = bytes.get(next..).unwrap_or_default();
        Some(NoteEntry {
            name,
            kind,
            description,
        })
    }
}

/// Finds what an image says of itself, and checks that this monitor can run it.
///
/// # Errors
/// If there is no such note, or it is of another version of the guest ABI.
pub fn find(file: &[u8], notes: &[Range<usize>]) -> Result<Note, ImageError> {
    let mut entries = notes
        .iter()
        .filter_map(|range| file.get(range.clone()))
        .flat_map(Notes);
    let entry = entries
        .find(|entry| entry.name == NOTE_NAME && entry.kind == NOTE_TYPE_UNIKERNEL)
        .ok_or_else(|| {
            ImageError::new(
                "Gamut note",
                "there is none, so this is no unikernel of Gamut; \
                 link the application with gamut-libos",
            )
        })?;
    let note = Note::from_bytes(entry.description)
        .ok_or_else(|| ImageError::new("Gamut note", "it is too short"))?;
    if note.abi_version == 0 || note.abi_version > GUEST_ABI_VERSION {
        return Err(ImageError::new(
            "Gamut note",
            format!(
                "it was built for version {} of the guest ABI, this monitor knows up to \
                 {GUEST_ABI_VERSION}; upgrade Gamut or build it with an older gamut-libos",
                note.abi_version
            ),
        ));
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [name.len(), description.len()] {
            bytes.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
        }
        bytes.extend_from_slice(&kind.to_le_bytes());
        for part in [name, description] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn whole(file: &[u8]) -> Vec<Range<usize>> {
        std::iter::once(0..file.len()).collect()
    }

    #[test]
    fn the_note_is_found_behind_others() {
        let mut file = note(b"GNU\0", 3, b"12345");
        let mut description = 1_u32.to_le_bytes().to_vec();
        description.extend_from_slice(&[0; 28]);
        file.extend(note(NOTE_NAME, NOTE_TYPE_UNIKERNEL, &description));
        let all = whole(&file);
        assert_eq!(find(&file, &all).map(|note| note.abi_version), Ok(1));
        // Behind the first note (24 bytes), the header and the name.
        let byte = &mut file[24 + 12 + 8];
        assert_eq!(*byte, 1, "the version is where it was thought");
        *byte = 9;
        let error = find(&file, &all).unwrap_err().to_string();
        assert!(error.contains("version 9 of the guest ABI"), "{error}");
        assert!(find(&file, &whole(&file[..20])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(data: Vec<u8>) {
            let _ = Notes(&data).count();
            let _ = find(&data, &whole(&data));
        }
    }
}

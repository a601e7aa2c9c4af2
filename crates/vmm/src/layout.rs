//! Where everything lies in a guest's memory.
//!
//! ```text
//! 0x0000_0000  nothing: a null pointer faults
//! 0x0000_1000  descriptor tables            supervisor
//! 0x0000_2000  exception stub               supervisor, executable
//! 0x0000_3000  ring-0 stack                 supervisor
//! 0x0000_4000  boot block                   user, read-only
//! 0x0000_5000  clock page                   user, read-only
//! 0x0000_6000  page tables                  not mapped
//! 0x0008_0000  configuration text           user, read-only
//! 0x0010_0000  the image's segments         user, as the file says
//!              guard page                   not mapped
//!              stack, then free memory      user, writable
//! memory_bytes, rounded up to 2 MiB
//!              read-only file system        user, read-only, not in memory_bytes
//! ```

use std::ops::Range;

use gamut_abi::guest::LOWEST_ADDRESS;
use gamut_abi::guest::note::Note;
use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use gamut_abi::guest::elf::{Elf, Segment};

/// Size of a small page.
pub const PAGE_BYTES: u64 = 4096;
/// Size of a large page.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Page with GDT, TSS and IDT.
pub const DESCRIPTORS_ADDRESS: u64 = 0x1000;
/// Page with the entries of all exceptions.
pub const STUB_ADDRESS: u64 = 0x2000;
/// Page of the stack on which the processor puts an exception's frame.
pub const RING0_STACK_ADDRESS: u64 = 0x3000;
/// Where that stack begins.
pub const RING0_STACK_TOP: u64 = 0x4000;
/// The [`gamut_abi::guest::boot::BootBlock`].
pub const BOOT_ADDRESS: u64 = 0x4000;
/// The [`gamut_abi::guest::boot::ClockPage`].
pub const CLOCK_ADDRESS: u64 = 0x5000;
/// Page tables, the top one first.
pub const PAGE_TABLES: Range<u64> = 0x6000..0x8_0000;
/// Room for the configuration text.
pub const CONFIG_TEXT: Range<u64> = 0x8_0000..LOWEST_ADDRESS;

/// Memory of a guest that neither its image nor its user has an opinion on.
pub const DEFAULT_MEMORY_BYTES: u64 = 16 << 20;
/// Most memory: what the page tables of one top entry reach, less a margin for the file system.
pub const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// Free memory without which no image can do anything.
const MINIMUM_HEAP_BYTES: u64 = 64 << 10;
const MINIMUM_STACK_BYTES: u64 = 16 << 10;
const MAX_STACK_BYTES: u64 = 256 << 20;

/// Addresses of what differs from guest to guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// All memory, from address 0.
    pub memory_bytes: u64,
    /// Stack; the page below is not there.
    pub stack: Range<u64>,
    /// Free memory.
    pub heap: Range<u64>,
    /// Image of the read-only file system; its size is not rounded.
    pub rofs: Option<Range<u64>>,
}

/// Rounds up to small pages. `None` beyond the last address.
#[must_use]
pub fn page_ceiling(address: u64) -> Option<u64> {
    address.checked_next_multiple_of(PAGE_BYTES)
}

impl Layout {
    /// Places an image: `wanted_bytes` of memory if the user said so, `rofs_bytes` of a read-only
    /// file system.
    ///
    /// # Errors
    /// If image, stack and a little free memory do not fit, or the image asks for more.
    pub fn plan(
        elf: &Elf,
        note: &Note,
        wanted_bytes: Option<u64>,
        rofs_bytes: Option<u64>,
    ) -> Result<Self, ImageError> {
        let memory_bytes = memory_size(note, wanted_bytes)?;
        check_segments(elf, memory_bytes)?;
        let image_end = elf.segments.last().map_or(0, |last| last.memory.end);
        let stack_bytes = note.stack_bytes.max(MINIMUM_STACK_BYTES);
        if stack_bytes > MAX_STACK_BYTES {
            return Err(ImageError::new(
                "Gamut note",
                format!("a stack of {stack_bytes} bytes; at most {MAX_STACK_BYTES} are given"),
            ));
        }
        // No overflow: every segment lies below memory_bytes.
        let stack_start = image_end.next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        let stack_end = stack_start + stack_bytes.next_multiple_of(PAGE_BYTES);
        if stack_end + MINIMUM_HEAP_BYTES > memory_bytes {
            return Err(ImageError::new(
                "memory",
                format!(
                    "{memory_bytes} bytes do not hold the image (up to {image_end}) and its stack \
                     of {stack_bytes} bytes; give it at least {}",
                    stack_end + MINIMUM_HEAP_BYTES
                ),
            ));
        }
        let rofs_start = memory_bytes.next_multiple_of(LARGE_PAGE_BYTES);
        let rofs = rofs_bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| {
                rofs_start
                    .checked_add(bytes)
                    .filter(|end| *end <= 2 * MAX_MEMORY_BYTES)
                    .map(|end| rofs_start..end)
                    .ok_or_else(|| {
                        ImageError::new("read-only file system", "it is larger than 64 GiB")
                    })
            })
            .transpose()?;
        Ok(Self {
            memory_bytes,
            stack: stack_start..stack_end,
            heap: stack_end..memory_bytes,
            rofs,
        })
    }
}

fn memory_size(note: &Note, wanted_bytes: Option<u64>) -> Result<u64, ImageError> {
    let default_bytes = match note.default_memory_bytes {
        0 => DEFAULT_MEMORY_BYTES.max(note.minimum_memory_bytes),
        bytes => bytes,
    };
    // Down to whole pages: nobody gets more than the limit allows.
    let memory_bytes = wanted_bytes.unwrap_or(default_bytes) / PAGE_BYTES * PAGE_BYTES;
    if memory_bytes < note.minimum_memory_bytes {
        return Err(ImageError::new(
            "memory",
            format!(
                "{memory_bytes} bytes are less than the {} that the image needs; give it more",
                note.minimum_memory_bytes
            ),
        ));
    }
    if memory_bytes > MAX_MEMORY_BYTES {
        return Err(ImageError::new(
            "memory",
            format!("{memory_bytes} bytes; at most {MAX_MEMORY_BYTES} are given"),
        ));
    }
    Ok(memory_bytes)
}

/// Checks that segments lie in memory, above the monitor's area, and share no page with others of
/// other rights.
pub(crate) fn check_segments(elf: &Elf, memory_bytes: u64) -> Result<(), ImageError> {
    let mut below: Option<&Segment> = None;
    for segment in &elf.segments {
        let name = format!("segment at {:#x}", segment.memory.start);
        if segment.memory.start < LOWEST_ADDRESS {
            return Err(ImageError::new(
                name,
                format!("below {LOWEST_ADDRESS:#x} lies the monitor's area; link it higher"),
            ));
        }
        if segment.memory.end > memory_bytes {
            return Err(ImageError::new(
                name,
                format!(
                    "its end {:#x} lies beyond the guest's memory of {memory_bytes} bytes; \
                     give it more",
                    segment.memory.end
                ),
            ));
        }
        // A shared page could only have the rights of both.
        let shares_page = below.is_some_and(|below| {
            (below.memory.end - 1) / PAGE_BYTES == segment.memory.start / PAGE_BYTES
                && (below.is_writable, below.is_executable)
                    != (segment.is_writable, segment.is_executable)
        });
        if shares_page {
            return Err(ImageError::new(
                name,
                "it shares a page with a segment of other rights; \
                 align segments to 4096 bytes (-z separate-code)",
            ));
        }
        below = Some(segment);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(segments: &[(u64, u64, bool)]) -> Elf {
        Elf {
            entry: 0x10_0000,
            segments: segments
                .iter()
                .map(|(start, end, is_writable)| Segment {
                    file: 0..0,
                    memory: *start..*end,
                    is_writable: *is_writable,
                    is_executable: !is_writable,
                })
                .collect(),
        }
    }

    fn note() -> Note {
        Note {
            abi_version: 1,
            needs: 0,
            stack_bytes: 0x1_0001,
            minimum_memory_bytes: 2 << 20,
            default_memory_bytes: 0,
        }
    }

    #[test]
    fn stack_is_guarded_and_the_rest_is_free() {
        let image = elf(&[(0x10_0000, 0x10_1234, false), (0x10_2000, 0x10_2001, true)]);
        let layout = Layout::plan(&image, &note(), Some(4 << 20), Some(5)).expect("it fits");
        assert_eq!(layout.stack, 0x10_4000..0x11_5000);
        assert_eq!(layout.heap, 0x11_5000..0x40_0000);
        assert_eq!(layout.rofs, Some(0x40_0000..0x40_0005));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let case = |image: &Elf, bytes| {
            Layout::plan(image, &note(), Some(bytes), None)
                .expect_err("refused")
                .to_string()
        };
        let fine = elf(&[(0x10_0000, 0x10_1000, false)]);
        assert!(case(&fine, 1 << 20).contains("less than the 2097152"));
        assert!(case(&fine, u64::MAX).contains("at most"));
        let low = elf(&[(0xf_f000, 0x10_1000, false)]);
        assert!(case(&low, 4 << 20).contains("link it higher"));
        let large = elf(&[(0x10_0000, 0x40_0001, false)]);
        assert!(case(&large, 4 << 20).contains("give it more"));
        let tight = elf(&[(0x10_0000, 0x3f_0000, false)]);
        assert!(case(&tight, 4 << 20).contains("do not hold the image"));
        let shared = elf(&[(0x10_0000, 0x10_1001, false), (0x10_1800, 0x10_2000, true)]);
        assert!(case(&shared, 4 << 20).contains("shares a page"));
    }
}

//! What of an ELF file is to be in memory (`elf(5)`, System V ABI, x86-64 supplement).

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use super::ImageError;
use super::header::{PT_INTERP, PT_LOAD, PT_TLS, ProgramHeader, entry, program_headers};

const PF_X: u32 = 1;
const PF_W: u32 = 2;

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
        let headers = program_headers(file)?;
        let mut elf = Self {
            entry: entry(file).unwrap_or_default(),
            segments: Vec::new(),
        };
        for (index, header) in headers.enumerate() {
            let problem = match header.kind {
                PT_LOAD => match segment(file, &header) {
                    Ok(segment) => {
                        elf.segments.extend(segment);
                        continue;
                    }
                    Err(problem) => problem,
                },
                PT_INTERP if !is_solo5 => {
                    "it wants a dynamic linker (PT_INTERP); link with -static"
                }
                PT_TLS if !is_solo5 => {
                    "thread-local storage (PT_TLS) is not supported yet; use statics"
                }
                _ => continue,
            };
            return Err(ImageError::new(format!("segment {index}"), problem));
        }
        elf.check()?;
        Ok(elf)
    }

    fn check(&mut self) -> Result<(), ImageError> {
        if self.segments.is_empty() {
            return Err(ImageError::new(
                "program headers",
                "there is no segment to load",
            ));
        }
        self.segments.sort_by_key(|segment| segment.memory.start);
        for pair in self.segments.windows(2) {
            if let [low, high] = pair
                && low.memory.end > high.memory.start
            {
                return Err(ImageError::new(
                    format!("segment at {:#x}", high.memory.start),
                    format!("it overlaps the one at {:#x}", low.memory.start),
                ));
            }
        }
        let is_code = self
            .segments
            .iter()
            .any(|segment| segment.is_executable && segment.memory.contains(&self.entry));
        if !is_code {
            return Err(ImageError::new(
                "e_entry",
                format!("{:#x} is in no executable segment", self.entry),
            ));
        }
        Ok(())
    }
}

/// What is to be in memory; none if it is empty.
fn segment(file: &[u8], header: &ProgramHeader) -> Result<Option<Segment>, &'static str> {
    let range = header
        .range(file)
        .ok_or("the file ends in the middle of it; copy the image again")?;
    if header.memory_bytes == 0 {
        return Ok(None);
    }
    if header.file_bytes > header.memory_bytes {
        return Err("it is larger in the file than in memory");
    }
    let end = header
        .address
        .checked_add(header.memory_bytes)
        .ok_or("its end lies beyond the last address")?;
    let (is_writable, is_executable) = (header.flags & PF_W != 0, header.flags & PF_X != 0);
    if is_writable && is_executable {
        return Err(
            "it can be written and executed, so that a bug could be turned into code; \
             put code and data into segments of their own",
        );
    }
    Ok(Some(Segment {
        file: range,
        memory: header.address..end,
        is_writable,
        is_executable,
    }))
}

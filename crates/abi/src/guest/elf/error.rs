//! What is wrong with a file.

use alloc::borrow::Cow;
use core::fmt;

/// What is wrong with an image: its ELF file, its notes, or the memory that it is to be put into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageError {
    /// The field as `elf.h` names it, or the segment, note or part of memory.
    pub field: Cow<'static, str>,
    /// Cause and way out.
    pub problem: Cow<'static, str>,
}

impl ImageError {
    /// Names a field and what is wrong with it.
    #[must_use]
    pub fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl core::error::Error for ImageError {}

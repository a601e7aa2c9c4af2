//! The ELF note by which an image says that it is a unikernel and what it needs.
//!
//! A `PT_NOTE` entry with name [`NOTE_NAME`] and type [`NOTE_TYPE_UNIKERNEL`] whose description is
//! a [`Note`]. Beside it stands Xen's note of type [`NOTE_TYPE_PVH_ENTRY`] (name `Xen`, 32-bit
//! entry), by which other monitors boot the same file (Xen's `xen/include/public/elfnote.h`).

use super::GUEST_ABI_VERSION;
use super::bytes::{u32_at, u64_at};
use super::elf::ImageError;
use alloc::format;

/// Name of the note's owner, with its terminating zero.
pub const NOTE_NAME: &[u8] = b"Gamut\0";

/// Type of the note that describes a unikernel.
pub const NOTE_TYPE_UNIKERNEL: u32 = 1;

/// Type of Xen's note with the physical 32-bit entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
pub const NOTE_TYPE_PVH_ENTRY: u32 = 18;

/// What the image needs. The ELF header's entry point is where it starts in 64-bit mode at
/// privilege level 3 ([`crate::guest::boot`] has the state of the registers).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// [`crate::guest::GUEST_ABI_VERSION`] it was built for.
    pub abi_version: u32,
    /// Bits of `NEEDS_*`.
    pub needs: u32,
    /// Stack it wants, in bytes; the monitor rounds up to pages and puts a guard page below.
    pub stack_bytes: u64,
    /// Least memory in which it can run, in bytes, monitor's area included; 0 if it does not know.
    pub minimum_memory_bytes: u64,
    /// Memory it is given when the user does not say, in bytes; 0 leaves it to the monitor.
    pub default_memory_bytes: u64,
}

/// It cannot run without a network device.
pub const NEEDS_NETWORK: u32 = 1 << 0;

/// It cannot run without a block device.
pub const NEEDS_BLOCK: u32 = 1 << 1;

/// Where [`Note::default_memory_bytes`] is in the description, in bytes from its beginning.
pub const DEFAULT_MEMORY_OFFSET: usize = 24;

/// Size of [`Note`] in the file, in bytes.
pub const NOTE_BYTES: usize = 32;

impl Note {
    /// Least memory with which it is worth trying, in bytes: what it says, and room for a program
    /// above the monitor's area.
    #[must_use]
    pub fn least_memory_bytes(&self) -> u64 {
        self.minimum_memory_bytes.max(2 * super::LOWEST_ADDRESS)
    }

    /// Checks that the image was built for a guest ABI that is known here.
    ///
    /// # Errors
    /// If it is a later one, with the way out.
    pub fn check_version(&self) -> Result<(), ImageError> {
        if (1..=GUEST_ABI_VERSION).contains(&self.abi_version) {
            return Ok(());
        }
        Err(ImageError::new(
            "Gamut note",
            format!(
                "it was built for version {} of the guest ABI, this version of Gamut knows up to \
                 {GUEST_ABI_VERSION}; upgrade Gamut or build it with an older gamut-libos",
                self.abi_version
            ),
        ))
    }

    /// Reads a note's description. Longer ones (of later versions) are read as far as known.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..NOTE_BYTES)?;
        Some(Self {
            abi_version: u32_at(bytes, 0)?,
            needs: u32_at(bytes, 4)?,
            stack_bytes: u64_at(bytes, 8)?,
            minimum_memory_bytes: u64_at(bytes, 16)?,
            default_memory_bytes: u64_at(bytes, 24)?,
        })
    }
}

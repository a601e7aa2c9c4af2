//! The ELF note by which an image says that it is a unikernel and what it needs.
//!
//! A `PT_NOTE` entry with name [`NOTE_NAME`] and type [`NOTE_TYPE_UNIKERNEL`] whose description is
//! a [`Note`]. Beside it stands Xen's note of type [`NOTE_TYPE_PVH_ENTRY`] (name `Xen`, 32-bit
//! entry), by which other monitors boot the same file (Xen's `xen/include/public/elfnote.h`).

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

    /// Reads a note's description. Longer ones (of later versions) are read as far as known.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..NOTE_BYTES)?;
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let double = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
        };
        Some(Self {
            abi_version: word(0)?,
            needs: word(4)?,
            stack_bytes: double(8)?,
            minimum_memory_bytes: double(16)?,
            default_memory_bytes: double(24)?,
        })
    }
}

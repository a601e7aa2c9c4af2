//! What a guest finds in memory when it starts, and the state of its registers.
//!
//! At the entry point: `rdi` holds the address of the [`BootBlock`], `rsp` the top of the stack
//! (16-byte aligned, then pushed down by 8 as after a call), every other general register 0,
//! direction flag clear, SSE enabled (and AVX where the host has it). Executable segments are not
//! writable, writable ones not executable.

/// `magic` of a [`BootBlock`]: "GAMUTUK1" read as a little-endian number.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"GAMUTUK1");

/// The first thing a guest reads. In a page that the guest cannot write.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootBlock {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`crate::guest::GUEST_ABI_VERSION`] of the monitor.
    pub abi_version: u32,
    /// None is defined yet.
    pub flags: u32,
    /// Size of the guest's memory, in bytes, from address 0.
    pub memory_bytes: u64,
    /// Lowest address of the free memory, aligned to pages. Zeroed.
    pub heap_address: u64,
    /// Size of the free memory, in bytes.
    pub heap_bytes: u64,
    /// Lowest usable address of the stack; the page below is not there.
    pub stack_address: u64,
    /// Size of the stack, in bytes.
    pub stack_bytes: u64,
    /// Address of the configuration text ([`crate::guest::config`]).
    pub config_address: u64,
    /// Size of the configuration text, in bytes.
    pub config_bytes: u64,
    /// Address of the read-only file system's image; 0 if there is none. Page-aligned.
    pub rofs_address: u64,
    /// Its size, in bytes.
    pub rofs_bytes: u64,
    /// Address of the [`ClockPage`].
    pub clock_address: u64,
    /// Random bytes from the host's `getrandom(2)`, fresh for every start.
    pub seed: [u8; 64],
}

/// What the monitor keeps telling a running guest. In a page that the guest cannot write.
///
/// Reading: take `sequence`; if it is odd, begin again; read the rest; if `sequence` has changed,
/// begin again (as with the kernel's `pvclock_vcpu_time_info`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockPage {
    /// Odd while the rest is being written.
    pub sequence: u32,
    /// Raised each time the guest goes on in another place or time (restored, cloned, migrated):
    /// who holds secrets or connections of before makes them anew.
    pub generation: u32,
    /// Value of the time stamp counter to which the two times below belong.
    pub tsc_base: u64,
    /// Monotonic time at `tsc_base`, in nanoseconds since the guest's start. Never goes back.
    pub monotonic_base_ns: u64,
    /// Wall clock at `tsc_base`, in nanoseconds since 1970 UTC.
    pub wall_base_ns: u64,
    /// Nanoseconds per tick of the counter, times 2^32.
    pub ns_per_tick_q32: u64,
    /// 1 once the guest has been asked to shut down in order.
    pub stop_requested: u32,
    /// Always 0.
    pub reserved: u32,
}

impl ClockPage {
    /// Nanoseconds from `tsc_base` to a value of the counter; 0 for an earlier one.
    #[must_use]
    pub fn elapsed_ns(&self, tsc: u64) -> u64 {
        let ticks = u128::from(tsc.saturating_sub(self.tsc_base));
        let elapsed_ns = (ticks * u128::from(self.ns_per_tick_q32)) >> 32;
        u64::try_from(elapsed_ns).unwrap_or(u64::MAX)
    }
}

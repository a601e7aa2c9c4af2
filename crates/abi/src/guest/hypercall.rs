//! Requests of a guest: a 32-bit `out` to a port, with the address of a structure in `eax`.
//!
//! Such a structure lies below 4 GiB, aligned to 8 bytes (the buffers that it names may lie
//! anywhere in the guest's memory). The answer is written into the same structure. A request that
//! names memory which is not the guest's own, or a device that is not there, ends the guest with a
//! crash report: it is a bug, and no answer would mend it.
//!
//! One exit costs far more than the work in it, so a guest asks for all of its input and output
//! in a single [`IoRequest`]: transmit these frames, carry out these block requests, fill these
//! buffers, and wait if there is nothing to do.

/// Writes bytes to the console: address of a [`Slice`].
pub const PORT_CONSOLE: u16 = 0x6a0;

/// Input and output: address of an [`IoRequest`].
pub const PORT_IO: u16 = 0x6a1;

/// Ends the guest: the exit code, 0 to 255, itself in `eax`.
pub const PORT_EXIT: u16 = 0x6a2;

/// Ends the guest with a message and [`crate::guest::EXIT_PANIC`]: address of a [`Slice`]. The
/// monitor adds the backtrace.
pub const PORT_PANIC: u16 = 0x6a3;

/// Fills memory with random bytes of the host: address of a [`Slice`].
pub const PORT_ENTROPY: u16 = 0x6a4;

/// Ends the guest because memory is exhausted, with [`crate::guest::EXIT_OUT_OF_MEMORY`]: the
/// size that could not be had, in KiB, itself in `eax`.
pub const PORT_OUT_OF_MEMORY: u16 = 0x6a5;

/// First and last port of the guest ABI.
pub const PORTS: core::ops::RangeInclusive<u16> = PORT_CONSOLE..=PORT_OUT_OF_MEMORY;

/// Most frames of a direction, and most block requests, in one [`IoRequest`].
pub const MAX_BATCH: u32 = 256;

/// Most bytes of one console write or one block request.
pub const MAX_TRANSFER_BYTES: u32 = 1 << 20;

/// Most bytes of a frame, link-layer header included.
pub const MAX_FRAME_BYTES: u32 = 65_550;

/// A piece of the guest's memory.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Address.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// All input and output of one turn. Carried out in this order: transmit, block requests, receive;
/// then, if nothing was received and no block request was made, wait until a frame arrives, the
/// guest is asked to stop, or `wait_until_ns` has come, and receive again.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoRequest {
    /// Until when to wait, in monotonic nanoseconds ([`super::boot::ClockPage`]): 0 does not
    /// wait, `u64::MAX` waits for ever.
    pub wait_until_ns: u64,
    /// Address of an array of [`Frame`]s to transmit.
    pub transmit_address: u64,
    /// Address of an array of [`Frame`]s to fill.
    pub receive_address: u64,
    /// Address of an array of [`BlockRequest`]s.
    pub block_address: u64,
    /// Frames to transmit.
    pub transmit_count: u32,
    /// Frames that can be received.
    pub receive_count: u32,
    /// Block requests.
    pub block_count: u32,
    /// Bits of `WAIT_*`.
    pub flags: u32,
    /// Answer: frames that were filled, from the beginning of the array.
    pub received_count: u32,
    /// Answer: bits of `EVENT_*`.
    pub events: u32,
}

/// A frame and the device it belongs to.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Address of the bytes.
    pub address: u64,
    /// Bytes: to transmit; of the buffer; in the answer, received.
    pub bytes: u32,
    /// Index of the network device. In a frame to receive: set by the answer.
    pub device: u16,
    /// Transmit: 0 in the answer if the device took it, else it was dropped (its queue is full).
    pub status: u16,
}

/// A request to a block device.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRequest {
    /// Offset on the device in bytes, a multiple of [`SECTOR_BYTES`].
    pub offset_bytes: u64,
    /// Address of the data.
    pub address: u64,
    /// Bytes, a multiple of [`SECTOR_BYTES`].
    pub bytes: u32,
    /// Index of the block device.
    pub device: u16,
    /// One of `BLOCK_*`.
    pub operation: u16,
    /// Answer: 0, or a positive `errno` of Linux (5 input/output error, 28 no space, 30 read-only,
    /// 22 beyond the end or not aligned).
    pub status: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Size of the unit in which a block device is addressed, in bytes.
pub const SECTOR_BYTES: u32 = 512;

/// Reads from the device.
pub const BLOCK_READ: u16 = 0;

/// Writes to the device; durable only after [`BLOCK_FLUSH`].
pub const BLOCK_WRITE: u16 = 1;

/// Makes every write that was answered before durable (`fdatasync(2)`).
pub const BLOCK_FLUSH: u16 = 2;

/// Gives the space back; it reads as zeros afterwards.
pub const BLOCK_DISCARD: u16 = 3;

/// Flag of [`IoRequest`]: wait even though block requests were made.
pub const WAIT_ALWAYS: u32 = 1 << 0;

/// Event: the guest has been asked to shut down in order ([`super::boot::ClockPage`]).
pub const EVENT_STOP: u32 = 1 << 0;

/// Event: more frames can be received at once.
pub const EVENT_MORE: u32 = 1 << 1;

//! What the requests of a guest are carried out with.

use std::io::Write;
use std::time::Duration;

use crate::clock::TimeSource;

/// A device is gone, and the guest cannot go on without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// A network device.
pub trait Nic: Send {
    /// Hands a frame to the network. False: it was dropped, since the queue is full or the link
    /// is down.
    ///
    /// # Errors
    /// If the device is gone.
    fn transmit(&mut self, frame: &[u8]) -> Result<bool, Lost>;

    /// Takes a frame from the network, if there is one: its size in bytes. What the buffer does
    /// not hold of it is lost.
    ///
    /// # Errors
    /// If the device is gone.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Lost>;
}

/// An `errno` of Linux, greater than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

/// A block device. Ranges lie within it, aligned to sectors: who calls has checked.
pub trait Disk: Send {
    /// Its size in bytes, a multiple of sectors.
    fn bytes(&self) -> u64;

    /// Whether it can only be read.
    fn is_read_only(&self) -> bool;

    /// Reads.
    ///
    /// # Errors
    /// What the system answered.
    fn read(&mut self, offset_bytes: u64, buffer: &mut [u8]) -> Result<(), Errno>;

    /// Writes.
    ///
    /// # Errors
    /// What the system answered.
    fn write(&mut self, offset_bytes: u64, data: &[u8]) -> Result<(), Errno>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the system answered.
    fn flush(&mut self) -> Result<(), Errno>;

    /// Gives space back.
    ///
    /// # Errors
    /// What the system answered.
    fn discard(&mut self, offset_bytes: u64, bytes: u64) -> Result<(), Errno>;
}

/// Why a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// A network device has a frame.
    Frame,
    /// Somebody else wants something: the guest is to stop, or to pause.
    Call,
    /// The time is over.
    Timeout,
}

/// Where the guest waits.
pub trait Waiter: Send {
    /// Waits for a frame, a call, or the end of a time; for ever without one.
    ///
    /// # Errors
    /// If a device is gone.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Woken, Lost>;

    /// Whether the guest has been asked to stop.
    fn is_stopping(&self) -> bool;

    /// Network devices that had a frame when the last wait ended, a bit each, the first one the
    /// lowest. A waiter that cannot tell says all of them.
    fn frames(&self) -> u64 {
        u64::MAX
    }
}

/// All devices of a guest.
pub struct Devices {
    /// Network devices, by index.
    pub nics: Vec<Box<dyn Nic>>,
    /// Block devices, by index.
    pub disks: Vec<Box<dyn Disk>>,
    /// Where the console's bytes go.
    pub console: Box<dyn Write + Send>,
    /// Where it waits.
    pub waiter: Box<dyn Waiter>,
    /// Its clock.
    pub clock: Box<dyn TimeSource + Send>,
    /// The network device that is asked first next time.
    pub next_nic: usize,
}

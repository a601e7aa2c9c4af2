//! How a guest has ended.

use gamut_abi::guest::{EXIT_FAULT, EXIT_MACHINE, EXIT_OUT_OF_MEMORY, EXIT_PANIC};

/// The end of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It said so.
    Exited(u8),
    /// It panicked, with this message.
    Panicked(String),
    /// It could not have this much memory, in KiB.
    OutOfMemory(u32),
    /// It did what it must not.
    Fault(Fault),
    /// Its machine failed it.
    Machine(String),
    /// It was stopped by who owns the machine, and can go on.
    Paused,
}

/// What a guest did that it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An exception of the processor.
    Exception {
        /// Its number (Intel SDM volume 3, 6.3.1).
        vector: u8,
        /// 0 where there is none.
        error_code: u64,
        /// Contents of CR2: the address of a page fault.
        address: u64,
    },
    /// A request that no guest may make.
    Request(String),
    /// An access to an address behind which there is no memory.
    NoMemory {
        /// The address.
        address: u64,
        /// It was a write.
        is_write: bool,
    },
    /// Something that the virtualization of this machine cannot do.
    Unsupported(String),
}

impl Ending {
    /// The exit code by which it is told.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        let code = match self {
            Self::Exited(code) => u32::from(*code),
            Self::Panicked(_) => EXIT_PANIC,
            Self::OutOfMemory(_) => EXIT_OUT_OF_MEMORY,
            Self::Fault(_) => EXIT_FAULT,
            Self::Machine(_) => EXIT_MACHINE,
            Self::Paused => 0,
        };
        i32::try_from(code).unwrap_or(1)
    }
}

//! Giving up what a monitor does not need once everything is open.
//!
//! Three layers, each enough by itself against most of what a guest that took the monitor over
//! could do: no privileges and another user ([`drop`]), no file system (Landlock), and per thread
//! only the system calls that its work takes (seccomp). What cannot be had on this kernel is
//! skipped where another layer covers it.

mod drop;
mod landlock;
mod seccomp;

use seccompiler::BpfProgram;

use crate::error::Result;
use landlock::Denied;

pub use drop::NOBODY;

/// Gives up what neither the monitor nor QEMU, which it starts afterwards, needs: privileges, TCP,
/// and reaching processes other than one another.
///
/// # Errors
/// If something that must be given up cannot be.
pub fn enter_with_qemu() -> Result<()> {
    drop::privileges()?;
    landlock::deny(Denied {
        files: false,
        others: true,
    })
}

/// Gives up the rest, once QEMU runs. Signals are left: it has to be ended.
///
/// # Errors
/// If something that must be given up cannot be.
pub fn enter_beside_qemu() -> Result<()> {
    landlock::deny(Denied {
        files: true,
        others: false,
    })?;
    drop::limits(0)
}

/// Gives up everything that concerns all threads. To be called before there is a second one.
///
/// # Errors
/// If something that must be given up cannot be.
pub fn enter() -> Result<()> {
    enter_but_for_descriptors(0)
}

/// The same, but this many further descriptors can still be had.
///
/// # Errors
/// As [`enter`].
pub fn enter_but_for_descriptors(count: u64) -> Result<()> {
    drop::privileges()?;
    landlock::deny(Denied {
        files: true,
        others: true,
    })?;
    drop::limits(count)
}

/// Leaves this thread only the system calls that running a guest takes.
///
/// # Errors
/// If the kernel refuses the filter.
pub fn confine_processor_thread() -> Result<()> {
    seccomp::apply(seccomp::processor())
}

/// Leaves this thread only the system calls that waiting for debuggers takes.
///
/// # Errors
/// If the kernel refuses the filter.
pub fn confine_debugger_thread() -> Result<()> {
    seccomp::apply(seccomp::debugger())
}

/// Leaves this thread only the system calls that waiting for signals takes.
///
/// # Errors
/// If the kernel refuses the filter.
pub fn confine_main_thread() -> Result<()> {
    seccomp::apply(seccomp::main())
}

/// Leaves this thread only the system calls that standing beside QEMU takes.
///
/// # Errors
/// If the kernel refuses the filter.
pub fn confine_translator_thread() -> Result<()> {
    seccomp::apply(seccomp::translator())
}

/// The filter under which QEMU is started.
///
/// # Errors
/// If it cannot be made.
pub fn translator_filter() -> Result<BpfProgram> {
    seccomp::qemu()
}

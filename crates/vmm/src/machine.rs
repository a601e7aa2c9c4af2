//! What a machine is, whatever it is made with.

use crate::device::Devices;
use crate::ending::Ending;
use crate::layout::Layout;
use crate::memory::GuestMemory;
use crate::report::Registers;

/// A guest's processor and memory.
pub trait Machine: Send {
    /// Runs the guest, and carries its requests out by these devices, until it ends or is to
    /// pause ([`crate::control::Control::pause`]).
    fn run(&mut self, devices: &mut Devices) -> Ending;

    /// Where the guest stands.
    fn registers(&self) -> Registers;

    /// Its memory.
    fn memory(&self) -> &GuestMemory;

    /// Where things lie in its memory.
    fn layout(&self) -> &Layout;
}

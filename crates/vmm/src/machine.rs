//! What a machine is, whatever it is made with.

use gamut_abi::monitor::Accelerator;

use crate::device::Devices;
use crate::ending::Ending;
use crate::layout::Layout;
use crate::memory::GuestMemory;
use crate::report::{self, Registers};

/// A guest that was made ready, whoever carries its instructions and requests out.
pub trait Guest: Send {
    /// What its machine is made with.
    fn accelerator(&self) -> Accelerator;

    /// Runs it until it ends or is to pause ([`crate::control::Control::pause`]).
    fn run(&mut self) -> Ending;

    /// Where it stands.
    fn registers(&self) -> Registers;

    /// The way that led there: addresses of code, the innermost first.
    fn frames(&self) -> Vec<u64>;

    /// Where things lie in its memory.
    fn layout(&self) -> &Layout;
}

/// A guest whose machine and devices are this process's own.
pub struct Own<M> {
    /// Processor and memory.
    pub machine: M,
    /// What its requests are carried out by.
    pub devices: Devices,
}

impl<M: Machine> Guest for Own<M> {
    fn accelerator(&self) -> Accelerator {
        Accelerator::Kvm
    }

    fn run(&mut self) -> Ending {
        self.machine.run(&mut self.devices)
    }

    fn registers(&self) -> Registers {
        self.machine.registers()
    }

    fn frames(&self) -> Vec<u64> {
        report::frames(&self.machine.registers(), self.machine.memory())
    }

    fn layout(&self) -> &Layout {
        self.machine.layout()
    }
}

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

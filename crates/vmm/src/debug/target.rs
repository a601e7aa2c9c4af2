//! A guest as a debugger sees it.

use std::collections::BTreeMap;
use std::fs::File;

use gdbstub::arch::Arch;
use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::exec_file::ExecFileOps;
use gdbstub::target::ext::host_io::HostIoOps;
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

use crate::device::Devices;
use crate::ending::{Ending, Fault};
use crate::kvm::KvmMachine;
use crate::machine::Machine;
use crate::report::{RFLAGS, RIP, Registers};

use super::session::is_in_stub;

const BREAKPOINT_INSTRUCTION: u8 = 0xcc;
const BREAKPOINT_VECTOR: u8 = 3;
const PAGE_BYTES: u64 = crate::layout::PAGE_BYTES;

/// Why a guest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The debugger says something.
    Interrupted,
    /// At a breakpoint of the debugger's.
    Breakpoint,
    /// After one instruction.
    Step,
    /// At a breakpoint instruction of its own.
    Trap,
    /// It cannot go on: with the signal that a process would get.
    Failed(Signal),
    /// It is over.
    Exited(u8),
}

/// A guest that is debugged.
pub(super) struct Guest<'machine> {
    machine: &'machine mut KvmMachine,
    /// Bytes in whose places there are breakpoints.
    breakpoints: BTreeMap<u64, u8>,
    is_to_step: bool,
    ending: Option<Ending>,
    /// The image, for symbols.
    pub(super) image_file: &'machine File,
}

/// Places of GDB's general registers (rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 to r15), which
/// are in the same order.
const GENERAL: usize = 16;

impl<'machine> Guest<'machine> {
    /// A guest that was paused.
    ///
    /// # Errors
    /// If it ends before it can be looked at.
    pub(super) fn stopped(
        machine: &'machine mut KvmMachine,
        devices: &mut Devices,
        image_file: &'machine File,
    ) -> Result<Self, Ending> {
        machine.set_debugged(true);
        let mut guest = Self {
            machine,
            breakpoints: BTreeMap::new(),
            is_to_step: false,
            ending: None,
            image_file,
        };
        match guest.leave_stub(devices) {
            Some(ending) => Err(ending),
            None => Ok(guest),
        }
    }

    /// An exception that is on its way to the monitor is waited for.
    fn leave_stub(&mut self, devices: &mut Devices) -> Option<Ending> {
        while is_in_stub(self.machine) {
            match self.machine.turn(devices) {
                None | Some(Ending::Paused) => {}
                ending => return ending,
            }
        }
        None
    }

    /// Takes the breakpoints out. `Some`: the guest has ended.
    pub(super) fn release(mut self) -> Option<Ending> {
        for (address, byte) in std::mem::take(&mut self.breakpoints) {
            self.put(address, &[byte]);
        }
        self.machine.set_debugged(false);
        self.ending.take()
    }

    /// Lets it run, or take one step, as was said.
    pub(super) fn run(&mut self, devices: &mut Devices) -> Stop {
        if let Some(ending) = &self.ending {
            return Stop::Exited(u8::try_from(ending.exit_code()).unwrap_or(1));
        }
        if self.machine.set_step(self.is_to_step).is_err() {
            return Stop::Failed(Signal::SIGTRAP);
        }
        let mut ending = self.machine.run(devices);
        if ending == Ending::Paused
            && let Some(ended) = self.leave_stub(devices)
        {
            ending = ended;
        }
        match (ending, self.machine.take_stop()) {
            (Ending::Paused, None) => Stop::Interrupted,
            (Ending::Paused, Some(BREAKPOINT_VECTOR)) => self.at_breakpoint(),
            (Ending::Paused, Some(_)) => Stop::Step,
            (Ending::Exited(code), _) => {
                self.ending = Some(Ending::Exited(code));
                Stop::Exited(code)
            }
            (ending, _) => {
                let signal = signal(&ending);
                self.ending = Some(ending);
                Stop::Failed(signal)
            }
        }
    }

    fn at_breakpoint(&mut self) -> Stop {
        let mut registers = self.machine.registers();
        let address = registers.get(RIP).wrapping_sub(1);
        if !self.breakpoints.contains_key(&address) {
            return Stop::Trap;
        }
        registers.set(RIP, address);
        match self.machine.set_registers(&registers) {
            Ok(()) => Stop::Breakpoint,
            Err(_) => Stop::Failed(Signal::SIGTRAP),
        }
    }

    /// Writes to memory of the guest's, whatever its own rights to it. Whether it is its.
    fn put(&mut self, address: u64, bytes: &[u8]) -> bool {
        let count = bytes.len() as u64;
        if self.machine.memory().read(address, count).is_err() {
            return false;
        }
        match self.machine.memory_mut().raw_mut(address, count) {
            Some(room) => {
                room.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

/// The signal that a process would have got.
fn signal(ending: &Ending) -> Signal {
    match ending {
        Ending::Panicked(_) => Signal::SIGABRT,
        Ending::OutOfMemory(_) => Signal::SIGKILL,
        Ending::Fault(Fault::Exception { vector, .. }) => match vector {
            0 | 16 | 19 => Signal::SIGFPE,
            6 => Signal::SIGILL,
            _ => Signal::SIGSEGV,
        },
        _ => Signal::SIGSEGV,
    }
}

impl Target for Guest<'_> {
    type Arch = X86_64_SSE;
    type Error = &'static str;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_exec_file(&mut self) -> Option<ExecFileOps<'_, Self>> {
        Some(self)
    }

    fn support_host_io(&mut self) -> Option<HostIoOps<'_, Self>> {
        Some(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Guest<'_> {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let general = self.machine.registers();
        for (to, from) in registers.regs.iter_mut().zip(general.general) {
            *to = from;
        }
        registers.rip = general.get(RIP);
        registers.eflags = u32::try_from(general.get(RFLAGS) & 0xffff_ffff).unwrap_or(0);
        registers.segments.cs = u32::from(crate::tables::USER_CODE);
        registers.segments.ss = u32::from(crate::tables::USER_DATA);
        let float = self
            .machine
            .floating_point()
            .map_err(|_| TargetError::NonFatal)?;
        for (to, from) in registers.st.iter_mut().zip(float.fpr) {
            if let Some(bytes) = from.first_chunk() {
                *to = *bytes;
            }
        }
        for (to, from) in registers.xmm.iter_mut().zip(float.xmm) {
            *to = u128::from_le_bytes(from);
        }
        registers.mxcsr = float.mxcsr;
        registers.fpu.fctrl = u32::from(float.fcw);
        registers.fpu.fstat = u32::from(float.fsw);
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs) -> TargetResult<(), Self> {
        // Where a guest has ended, nothing can be changed; of the rest, only the general ones.
        let mut now = X86_64CoreRegs::default();
        self.read_registers(&mut now)?;
        let is_other =
            (&now.st, &now.xmm, now.mxcsr) != (&registers.st, &registers.xmm, registers.mxcsr);
        if self.ending.is_some() || is_other {
            return Err(TargetError::NonFatal);
        }
        let mut general = Registers::default();
        for (index, value) in registers.regs.iter().take(GENERAL).enumerate() {
            general.set(index, *value);
        }
        general.set(RIP, registers.rip);
        general.set(RFLAGS, u64::from(registers.eflags));
        self.machine
            .set_registers(&general)
            .map_err(|_| TargetError::NonFatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let wanted = data.len() as u64;
        // Beyond the end of what is the guest's, as much as there is of the first page.
        let count = if self.machine.memory().read(start, wanted).is_ok() {
            wanted
        } else {
            wanted.min(PAGE_BYTES - start % PAGE_BYTES)
        };
        let bytes = self
            .machine
            .memory()
            .read(start, count)
            .map_err(|_| TargetError::NonFatal)?;
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = *from;
        }
        for (address, byte) in self.breakpoints.range(start..start.saturating_add(count)) {
            let at = usize::try_from(address - start).unwrap_or(usize::MAX);
            if let Some(place) = data.get_mut(at) {
                *place = *byte;
            }
        }
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8]) -> TargetResult<(), Self> {
        if self.put(start, data) {
            Ok(())
        } else {
            Err(TargetError::NonFatal)
        }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Guest<'_> {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Self::Error> {
        self.is_to_step = false;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Guest<'_> {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Self::Error> {
        self.is_to_step = true;
        Ok(())
    }
}

impl Breakpoints for Guest<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest<'_> {
    fn add_sw_breakpoint(
        &mut self,
        address: u64,
        _: <Self::Arch as Arch>::BreakpointKind,
    ) -> TargetResult<bool, Self> {
        if self.breakpoints.contains_key(&address) {
            return Ok(true);
        }
        let byte = match self.machine.memory().read(address, 1) {
            Ok([byte]) => *byte,
            _ => return Ok(false),
        };
        if !self.put(address, &[BREAKPOINT_INSTRUCTION]) {
            return Ok(false);
        }
        self.breakpoints.insert(address, byte);
        Ok(true)
    }

    fn remove_sw_breakpoint(
        &mut self,
        address: u64,
        _: <Self::Arch as Arch>::BreakpointKind,
    ) -> TargetResult<bool, Self> {
        let Some(byte) = self.breakpoints.remove(&address) else {
            return Ok(false);
        };
        Ok(self.put(address, &[byte]))
    }
}

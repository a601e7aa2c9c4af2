//! A machine by the processor's virtualization, through `/dev/kvm`.

mod error;
mod features;
mod start;
mod state;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use gamut_abi::guest::boot::ClockPage;
pub use state::{ProcessorState, Surroundings};

use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};

use crate::clock::{Clock, SavedClock};
use crate::control::Control;
use crate::device::Devices;
use crate::ending::{Ending, Fault};
use crate::error::{Error, Result};
use crate::layout::{CLOCK_ADDRESS, Layout};
use crate::machine::Machine;
use crate::memory::GuestMemory;
use crate::prepare::Prepared;
use crate::report::{RFLAGS, RIP, RSP, Registers};
use crate::{request, solo5, tables};
use gamut_abi::guest::bytes::u64_at;

/// A guest on KVM.
pub struct KvmMachine {
    // Dropped in this order: the processor and the machine before the memory they use.
    processor: VcpuFd,
    vm: VmFd,
    memory: GuestMemory,
    layout: Layout,
    control: Arc<Control>,
    /// Its writes are noted.
    is_tracking: bool,
    /// Registers at an exception, where they are not those of the stub.
    fault_registers: Option<Registers>,
    /// What is kept of an image of Solo5, if it is one.
    solo5: Option<Box<solo5::Guest>>,
    /// Debug exceptions stop the guest instead of ending it.
    is_debugged: bool,
    /// The debug exception that has stopped it.
    stop: Option<u8>,
}

const DEBUG_VECTOR: u8 = 1;
const BREAKPOINT_VECTOR: u8 = 3;
/// Of RFLAGS: a debug exception after every instruction.
const TRAP_FLAG: u64 = 1 << 8;

impl KvmMachine {
    /// Makes a machine that stands at the guest's first instruction.
    ///
    /// # Errors
    /// If there is no KVM, or it refuses something.
    pub fn start(prepared: Prepared, control: Arc<Control>) -> Result<Self> {
        let machine = Self::bare(prepared.memory, prepared.layout, control)?;
        start::set_registers(&machine.processor, prepared.entry, machine.layout.stack.end)?;
        Ok(machine)
    }

    /// Makes a machine that stands at the first instruction of an image of Solo5.
    ///
    /// # Errors
    /// If there is no KVM, or it refuses something.
    pub fn start_solo5(
        prepared: Prepared,
        guest: solo5::Guest,
        control: Arc<Control>,
    ) -> Result<Self> {
        let mut machine = Self::start(prepared, control)?;
        start::set_page_tables(&machine.processor, solo5::PAGE_TABLES.start)?;
        start::set_boot_address(&machine.processor, solo5::BOOT_INFO_ADDRESS)?;
        let (tsc_khz, _) = start::counter(&machine.processor)?;
        let place = solo5::BOOT_INFO_ADDRESS + solo5::FREQUENCY_OFFSET;
        if let Some(place) = machine.memory.raw_mut(place, 8) {
            place.copy_from_slice(&(u64::from(tsc_khz) * 1000).to_le_bytes());
        }
        machine.solo5 = Some(Box::new(guest));
        Ok(machine)
    }

    /// A machine whose registers are still to be set.
    fn bare(memory: GuestMemory, layout: Layout, control: Arc<Control>) -> Result<Self> {
        let (vm, processor) = start::create(&memory)?;
        let stop_word = std::mem::offset_of!(ClockPage, stop_requested) as u64;
        if let Some(word) = memory.atomic_u32(CLOCK_ADDRESS + stop_word) {
            // SAFETY: taken back by `drop`, before the memory goes.
            unsafe { control.attach_memory(word) };
        }
        Ok(Self {
            processor,
            vm,
            memory,
            layout,
            control,
            is_tracking: false,
            fault_registers: None,
            solo5: None,
            is_debugged: false,
            stop: None,
        })
    }

    /// The guest's clock, which starts now.
    ///
    /// # Errors
    /// If KVM does not tell the frequency of the counter.
    pub fn clock(&self, saved: Option<SavedClock>) -> Result<Clock> {
        let (tsc_khz, offset) = start::counter(&self.processor)?;
        Clock::start(&self.memory, tsc_khz, offset, saved).ok_or_else(|| {
            Error::system(
                "find the clock page",
                std::io::Error::other("no memory there"),
            )
        })
    }

    /// One entry into the guest. `Some`: it has ended.
    pub(crate) fn turn(&mut self, devices: &mut Devices) -> Option<Ending> {
        let exit = match self.processor.run() {
            Ok(exit) => exit,
            Err(error) => {
                let interrupted = [libc::EINTR, libc::EAGAIN].contains(&error.errno());
                return (!interrupted).then(|| error::run_failed(&std::io::Error::from(error)));
            }
        };
        match exit {
            VcpuExit::IoOut(port, data) => {
                if let Some(vector) = tables::vector_of(port) {
                    return self.exception(vector);
                }
                let Ok(value) = <[u8; 4]>::try_from(data) else {
                    let problem = format!(
                        "write of {} bytes to port {port:#x} instead of 4",
                        data.len()
                    );
                    return Some(Ending::Fault(Fault::Request(problem)));
                };
                let value = u32::from_le_bytes(value);
                let answer = match &self.solo5 {
                    Some(guest) => guest.carry_out(port, value, &mut self.memory, devices),
                    None => request::carry_out(port, value, &mut self.memory, devices),
                };
                answer.unwrap_or_else(|trouble| Some(trouble.into()))
            }
            VcpuExit::IoIn(port, _) => Some(Ending::Fault(Fault::Request(format!(
                "read of port {port:#x}, which can only be written"
            )))),
            VcpuExit::MmioRead(address, _) => Some(Ending::Fault(Fault::NoMemory {
                address,
                is_write: false,
            })),
            VcpuExit::MmioWrite(address, _) => Some(Ending::Fault(Fault::NoMemory {
                address,
                is_write: true,
            })),
            VcpuExit::Intr => None,
            VcpuExit::Shutdown => Some(Ending::Fault(Fault::Unsupported(
                "triple fault: its exception could not be delivered".to_owned(),
            ))),
            VcpuExit::InternalError => Some(error::internal(self.processor.get_kvm_run())),
            VcpuExit::FailEntry(reason, cpu) => Some(Ending::Machine(format!(
                "the processor (number {cpu}) refused to enter the guest, hardware reason \
                 {reason:#x}; see the kernel's log"
            ))),
            other => Some(Ending::Fault(Fault::Unsupported(format!(
                "an exit of the virtualization that has no meaning here: {other:?}"
            )))),
        }
    }

    /// An exception has come to the stub: the processor's frame lies on the ring-0 stack.
    /// `Some`: it has ended the guest.
    fn exception(&mut self, vector: u8) -> Option<Ending> {
        if self.solo5.is_some() || self.is_debugged {
            // The registers are to be changed.
            self.finish_exit();
        }
        let mut registers = self.registers();
        let frame = registers.get(RSP);
        let bytes = self.memory.raw(frame, 48).unwrap_or_default();
        let (error_code, at) = if tables::has_error_code(vector) {
            (u64_at(bytes, 0).unwrap_or(0), 8)
        } else {
            (0, 0)
        };
        for (register, offset) in [(RIP, 0), (RFLAGS, 16), (RSP, 24)] {
            registers.set(register, u64_at(bytes, at + offset).unwrap_or(0));
        }
        let special = self.processor.get_sregs().unwrap_or_default();
        if self.is_debugged && matches!(vector, DEBUG_VECTOR | BREAKPOINT_VECTOR) {
            registers.set(RFLAGS, registers.get(RFLAGS) & !TRAP_FLAG);
            self.stop = Some(vector);
            let state = solo5::State {
                registers,
                fs_base: special.fs.base,
                gs_base: special.gs.base,
                fault_address: special.cr2,
            };
            return Some(match start::resume(&self.processor, &state) {
                Ok(()) => Ending::Paused,
                Err(error) => Ending::Machine(error.to_string()),
            });
        }
        if let Some(guest) = &mut self.solo5 {
            let mut state = solo5::State {
                registers,
                fs_base: special.fs.base,
                gs_base: special.gs.base,
                fault_address: special.cr2,
            };
            let ending = guest.exception(vector, error_code, &mut state, &mut self.memory);
            if ending.is_none() {
                let resumed = start::resume(&self.processor, &state);
                return resumed
                    .err()
                    .map(|error| Ending::Machine(error.to_string()));
            }
            self.fault_registers = Some(registers);
            return ending;
        }
        self.fault_registers = Some(registers);
        Some(Ending::Fault(Fault::Exception {
            vector,
            error_code,
            address: special.cr2,
        }))
    }

    /// Says whether debug exceptions stop the guest.
    pub(crate) fn set_debugged(&mut self, is_debugged: bool) {
        self.is_debugged = is_debugged;
        self.stop = None;
        // Nobody waits for a step any more.
        let _ = self.set_step(false);
    }

    /// The debug exception that has stopped the guest.
    pub(crate) fn take_stop(&mut self) -> Option<u8> {
        self.stop.take()
    }

    /// Sets the general registers of a guest that stands.
    ///
    /// # Errors
    /// If KVM refuses.
    pub(crate) fn set_registers(&mut self, registers: &Registers) -> Result<()> {
        start::set_general(&self.processor, registers)
    }

    /// Lets the guest stop after one instruction, or not.
    ///
    /// # Errors
    /// If KVM refuses.
    pub(crate) fn set_step(&mut self, is_step: bool) -> Result<()> {
        let mut registers = self.registers();
        let flags = registers.get(RFLAGS);
        let wanted = if is_step {
            flags | TRAP_FLAG
        } else {
            flags & !TRAP_FLAG
        };
        if flags == wanted || self.fault_registers.is_some() {
            return Ok(());
        }
        registers.set(RFLAGS, wanted);
        self.set_registers(&registers)
    }

    /// Floating-point and vector registers.
    ///
    /// # Errors
    /// If KVM does not tell them.
    pub(crate) fn floating_point(&self) -> Result<kvm_bindings::kvm_fpu> {
        self.processor
            .get_fpu()
            .map_err(|error| Error::system("read the floating-point registers", error))
    }

    /// The memory, to be changed while the guest stands.
    pub(crate) fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    /// Lets the processor finish the instruction whose exit was answered, without going on.
    fn finish_exit(&mut self) {
        self.processor.set_kvm_immediate_exit(1);
        // Always interrupted; whatever it says, the state is complete now.
        let _ = self.processor.run();
        self.processor.set_kvm_immediate_exit(0);
    }
}

impl Machine for KvmMachine {
    fn run(&mut self, devices: &mut Devices) -> Ending {
        let flag = NonNull::from(&mut self.processor.get_kvm_run().immediate_exit);
        // SAFETY: the flag is in a mapping of the processor's, which outlives this function, as
        // does this thread.
        unsafe { self.control.attach_processor(flag.cast::<AtomicU8>()) };
        let ending = loop {
            if self.control.is_pausing() {
                break Ending::Paused;
            }
            if let Some(ending) = self.turn(devices) {
                break ending;
            }
        };
        self.control.detach_processor();
        if ending == Ending::Paused {
            self.finish_exit();
        }
        ending
    }

    fn registers(&self) -> Registers {
        if let Some(registers) = self.fault_registers {
            return registers;
        }
        self.processor.get_regs().map_or_else(
            |_| Registers::default(),
            |registers| start::general(&registers),
        )
    }

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }
}

impl Drop for KvmMachine {
    fn drop(&mut self) {
        self.control.detach();
    }
}

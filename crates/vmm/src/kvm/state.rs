//! Saving a KVM machine and making it again.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, kvm_debugregs, kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::{KvmMachine, start};
use crate::clock::SavedClock;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::layout::{CLOCK_ADDRESS, PAGE_BYTES};
use crate::memory::GuestMemory;
use crate::pages::PageSet;
use crate::snapshot::{
    MachineState, Snapshot, Transport, read_memory, read_state, write_memory, write_state,
};

/// State of a processor that runs at privilege level 3. It can set no model-specific register, and
/// its counter is the clock page's matter.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessorState {
    general: kvm_regs,
    special: kvm_sregs,
    /// x87, SSE and AVX; KVM_SET_FPU would not do for the latter two.
    extended: kvm_xsave,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    activity: kvm_mp_state,
}

fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |error| Error::system(format!("save or restore the processor's {what}"), error)
}

impl Snapshot for VcpuFd {
    type State = ProcessorState;

    fn save(&self) -> Result<ProcessorState> {
        Ok(ProcessorState {
            general: self.get_regs().map_err(failed("registers"))?,
            special: self.get_sregs().map_err(failed("control registers"))?,
            extended: self.get_xsave().map_err(failed("extended states"))?,
            extended_control: self.get_xcrs().map_err(failed("extended control"))?,
            debug: self.get_debug_regs().map_err(failed("debug registers"))?,
            events: self.get_vcpu_events().map_err(failed("events"))?,
            activity: self.get_mp_state().map_err(failed("activity"))?,
        })
    }

    fn restore(&mut self, state: &ProcessorState) -> Result<()> {
        self.set_sregs(&state.special)
            .map_err(failed("control registers"))?;
        // Before the states that it enables.
        self.set_xcrs(&state.extended_control)
            .map_err(failed("extended control"))?;
        // SAFETY: no state that needs more room is enabled (`features`).
        unsafe { self.set_xsave(&state.extended) }.map_err(failed("extended states"))?;
        self.set_regs(&state.general).map_err(failed("registers"))?;
        self.set_debug_regs(&state.debug)
            .map_err(failed("debug registers"))?;
        self.set_vcpu_events(&state.events)
            .map_err(failed("events"))?;
        self.set_mp_state(state.activity)
            .map_err(failed("activity"))
    }
}

/// What a machine that comes in a stream needs.
pub struct Surroundings {
    /// How it is reached.
    pub control: Arc<Control>,
    /// The same read-only file system as before, if it had one.
    pub rofs: Option<File>,
}

impl Transport for KvmMachine {
    type Surroundings = Surroundings;

    fn send(&mut self, clock: SavedClock, to: &mut dyn Write) -> Result<()> {
        if self.solo5.is_some() {
            return Err(Error::Snapshot(
                "a machine with an image of Solo5 cannot be saved yet".to_owned(),
            ));
        }
        let state = MachineState {
            layout: self.layout.clone(),
            regions: self.memory.regions().to_vec(),
            clock,
            processor: self.processor.save()?,
        };
        write_state(&state, to)?;
        write_memory(&self.memory, to)
    }

    fn receive(from: &mut dyn Read, with: Surroundings) -> Result<(Self, SavedClock)> {
        let state: MachineState<ProcessorState> = read_state(from)?;
        let mut memory = GuestMemory::new(state.layout.memory_bytes)?;
        if let Some(range) = &state.layout.rofs {
            let file = with.rofs.as_ref().ok_or_else(|| {
                Error::Snapshot("it has a read-only file system; none was given".to_owned())
            })?;
            memory.add_rofs(range, file)?;
        }
        read_memory(&mut memory, from)?;
        for region in state.regions {
            memory.allow(region.range, region.is_writable);
        }
        let mut machine = Self::bare(memory, state.layout, with.control)?;
        machine.processor.restore(&state.processor)?;
        Ok((machine, state.clock))
    }
}

impl KvmMachine {
    /// Begins, or ends, to note which pages are written: by the guest, and by the monitor for it.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn track_writes(&mut self, is_tracking: bool) -> Result<()> {
        let flags = if is_tracking {
            KVM_MEM_LOG_DIRTY_PAGES
        } else {
            0
        };
        start::set_memory(&self.vm, &self.memory, flags)?;
        self.memory.note_writes(is_tracking);
        self.is_tracking = is_tracking;
        Ok(())
    }

    /// The pages written since tracking began, or since they were taken last.
    ///
    /// # Errors
    /// If KVM does not tell, or writes are not tracked.
    pub fn take_writes(&mut self) -> Result<PageSet> {
        let what = "ask which pages the guest has written";
        let mut pages = self
            .memory
            .take_writes()
            .filter(|_| self.is_tracking)
            .ok_or_else(|| Error::system(what, std::io::Error::other("they are not tracked")))?;
        let bytes = usize::try_from(self.memory.bytes()).unwrap_or(0);
        let bitmap = self
            .vm
            .get_dirty_log(0, bytes)
            .map_err(|error| Error::system(what, error))?;
        pages.insert_bitmap(&bitmap);
        // Written by the clock, past both.
        pages.insert(CLOCK_ADDRESS..CLOCK_ADDRESS + PAGE_BYTES);
        Ok(pages)
    }
}

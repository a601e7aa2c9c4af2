//! Images of Solo5 (MirageOS and others): **hvt, ABI version 2** (Solo5's `include/hvt_abi.h`).
//!
//! Such an image believes that it runs at privilege level 0. Here it runs at level 3, as every
//! guest does, so the few privileged instructions of its start code fault. They come to the
//! monitor as exceptions, are told by [`decode`] and carried out by [`emulate`], on a processor
//! state of the guest's own that the real processor never sees. Every other exception is delivered
//! to the guest's own handlers, as its own descriptor tables say.
//!
//! ```text
//! 0x0000_0000  nothing: a null pointer faults
//! 0x0000_1000  descriptor tables, stub, stack      supervisor (as for images of Gamut)
//! 0x0001_0000  boot information, manifest, command line   user, read-only
//! 0x0008_0000  page tables                         not mapped
//! 0x0010_0000  the image's segments                user, as the file says
//!              free memory, stack at its end       user, writable
//! ```

mod boot;
mod call;
pub mod command;
pub(crate) mod core_file;
pub mod decode;
mod emulate;
mod front;
mod launch;

pub use boot::prepare;
pub use emulate::{State, fuzz_emulate};
pub use front::main;
pub use launch::{Attached, attach, attach_by_config};

use gamut_abi::guest::solo5::{DeviceKind, Manifest};

use crate::device::Devices;
use crate::ending::Ending;
use crate::memory::GuestMemory;
use crate::request::Trouble;
use emulate::Shadow;

/// Ports of requests: this and their number.
pub const FIRST_PORT: u16 = 0x500;
/// Ports that the guest may write.
pub const PORTS: core::ops::RangeInclusive<u16> = FIRST_PORT + 1..=FIRST_PORT + 8;

/// Where the boot information lies.
pub const BOOT_INFO_ADDRESS: u64 = 0x1_0000;
/// Where it holds the frequency of the time stamp counter, in hertz.
pub const FREQUENCY_OFFSET: u64 = 16;
/// Page tables, the top one first.
pub const PAGE_TABLES: std::ops::Range<u64> = 0x8_0000..0x10_0000;

/// What is attached to an entry of the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Nothing,
    /// Network device with this index among [`Devices::nics`].
    Nic(usize),
    /// Block device with this index among [`Devices::disks`].
    Disk(usize),
}

/// What the monitor keeps of a Solo5 guest, beside its memory and devices.
#[derive(Debug)]
pub struct Guest {
    slots: Vec<Slot>,
    shadow: Shadow,
}

impl Guest {
    /// A guest at its first instruction, whose devices are in the order of the manifest.
    #[must_use]
    pub fn new(manifest: &Manifest) -> Self {
        let last = manifest.devices().last().map_or(0, |device| device.index);
        let mut slots = vec![Slot::Nothing; last + 1];
        let (mut nics, mut disks) = (0, 0);
        for device in manifest.devices() {
            let slot = match device.kind {
                DeviceKind::Net => {
                    nics += 1;
                    Slot::Nic(nics - 1)
                }
                DeviceKind::Block => {
                    disks += 1;
                    Slot::Disk(disks - 1)
                }
            };
            if let Some(place) = slots.get_mut(device.index) {
                *place = slot;
            }
        }
        Self {
            slots,
            shadow: Shadow::default(),
        }
    }

    /// Carries out a 32-bit write to a port. `Some`: the guest has ended.
    ///
    /// # Errors
    /// If the request must not be made, or a device is gone.
    pub fn carry_out(
        &self,
        port: u16,
        value: u32,
        memory: &mut GuestMemory,
        devices: &mut Devices,
    ) -> Result<Option<Ending>, Trouble> {
        call::carry_out(&self.slots, port, value, memory, devices)
    }

    /// Does what an exception is for. `Some`: the guest has ended; otherwise it goes on in the
    /// state that is left.
    pub fn exception(
        &mut self,
        vector: u8,
        error_code: u64,
        state: &mut State,
        memory: &mut GuestMemory,
    ) -> Option<Ending> {
        self.shadow.exception(vector, error_code, state, memory)
    }
}

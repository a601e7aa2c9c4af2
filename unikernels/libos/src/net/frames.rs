//! Frames: what is waiting to be transmitted, buffers to be filled, what has arrived.
//!
//! Buffers go round without being copied: filled by the monitor, read in place, and either given
//! back or transmitted again.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use gamut_abi::guest::hypercall::{Frame, IoRequest, MAX_BATCH};

use super::configuration::Device;
use crate::cell::Global;
use crate::to_usize;

/// Bytes of a frame beside the IP packet: link-layer header, with a VLAN tag.
const HEADER_BYTES: usize = 18;
/// Frames that a turn can receive.
const RECEIVE_FRAMES: usize = 128;
/// The same in a guest whose heap is smaller than [`SMALL_HEAP_BYTES`].
const RECEIVE_FRAMES_SMALL: usize = 48;
const SMALL_HEAP_BYTES: u64 = 6 << 20;
/// Frames that a device keeps while nobody takes them.
const MAX_ARRIVED: usize = 512;

/// A frame's bytes.
#[derive(Debug)]
pub struct FrameBuffer {
    storage: Box<[u8]>,
    used: usize,
}

impl FrameBuffer {
    /// The bytes, link-layer header included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.storage.get(..self.used).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.storage.get_mut(..self.used).unwrap_or_default()
    }
}

/// Counters of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames given to the monitor.
    pub transmitted: u64,
    /// Their bytes.
    pub transmitted_bytes: u64,
    /// Frames dropped: the monitor's queue was full, or nobody took what had arrived.
    pub dropped: u64,
}

struct Port {
    index: u16,
    mac: [u8; 6],
    arrived: VecDeque<FrameBuffer>,
    counters: Counters,
    /// Claimed by [`RawDevice`]: the protocols leave it alone.
    is_raw: bool,
    waiting: Option<Waker>,
}

struct Frames {
    ports: Vec<Port>,
    buffer_bytes: usize,
    free: Vec<Box<[u8]>>,
    /// What the monitor may fill. The buffers belong to it between two requests, so they are
    /// pointers here.
    receive: Vec<Frame>,
    receive_buffers: Vec<*mut [u8]>,
    transmit: Vec<Frame>,
    transmit_buffers: Vec<*mut [u8]>,
}

static FRAMES: Global<Frames> = Global::new(Frames {
    ports: Vec::new(),
    buffer_bytes: 0,
    free: Vec::new(),
    receive: Vec::new(),
    receive_buffers: Vec::new(),
    transmit: Vec::new(),
    transmit_buffers: Vec::new(),
});

fn lend(storage: Box<[u8]>) -> (*mut [u8], u64) {
    let buffer = Box::into_raw(storage);
    (buffer, buffer.cast::<u8>().expose_provenance() as u64)
}

impl Frames {
    fn storage(&mut self) -> Box<[u8]> {
        let bytes = self.buffer_bytes;
        self.free
            .pop()
            .unwrap_or_else(|| vec![0; bytes].into_boxed_slice())
    }

    fn give_back(&mut self, storage: Box<[u8]>) {
        if self.free.len() < RECEIVE_FRAMES {
            self.free.push(storage);
        }
    }

    fn port(&mut self, index: u16) -> Option<&mut Port> {
        self.ports.iter_mut().find(|port| port.index == index)
    }

    fn add_receive_buffer(&mut self) {
        let (buffer, address) = lend(self.storage());
        self.receive.push(Frame {
            address,
            bytes: u32::try_from(self.buffer_bytes).unwrap_or(0),
            device: 0,
            status: 0,
        });
        self.receive_buffers.push(buffer);
    }

    fn transmit(&mut self, device: u16, frame: FrameBuffer) {
        let bytes = u32::try_from(frame.used).unwrap_or(0);
        let (buffer, address) = lend(frame.storage);
        self.transmit.push(Frame {
            address,
            bytes,
            device,
            status: 0,
        });
        self.transmit_buffers.push(buffer);
    }

    fn take_back_transmitted(&mut self) {
        let frames = core::mem::take(&mut self.transmit);
        let buffers = core::mem::take(&mut self.transmit_buffers);
        for (frame, &buffer) in frames.iter().zip(&buffers) {
            // SAFETY: lent above, and the monitor has answered.
            let storage = unsafe { Box::from_raw(buffer) };
            self.give_back(storage);
            if let Some(port) = self.port(frame.device) {
                if frame.status == 0 {
                    port.counters.transmitted += 1;
                    port.counters.transmitted_bytes += u64::from(frame.bytes);
                } else {
                    port.counters.dropped += 1;
                }
            }
        }
        // The vectors keep their memory for the next turn.
        self.transmit = frames;
        self.transmit.clear();
        self.transmit_buffers = buffers;
        self.transmit_buffers.clear();
    }

    /// Takes the frame at an index of the receive array, with a fresh buffer in its place.
    fn take_received(&mut self, index: usize) {
        let (fresh, address) = lend(self.storage());
        let full = u32::try_from(self.buffer_bytes).unwrap_or(0);
        let (Some(frame), Some(buffer)) = (
            self.receive.get_mut(index),
            self.receive_buffers.get_mut(index),
        ) else {
            return;
        };
        let (device, bytes) = (frame.device, frame.bytes);
        frame.address = address;
        frame.bytes = full;
        // SAFETY: lent above, and the monitor has answered.
        let storage = unsafe { Box::from_raw(core::mem::replace(buffer, fresh)) };
        let used = to_usize(bytes.into()).min(storage.len());
        let frame = FrameBuffer { storage, used };
        match self.port(device) {
            Some(port) if port.arrived.len() < MAX_ARRIVED => {
                port.counters.received += 1;
                port.counters.received_bytes += used as u64;
                port.arrived.push_back(frame);
                if let Some(waiting) = port.waiting.take() {
                    waiting.wake();
                }
            }
            Some(port) => {
                port.counters.dropped += 1;
                self.give_back(frame.storage);
            }
            None => self.give_back(frame.storage),
        }
    }
}

/// Takes the devices of the configuration.
pub(super) fn initialize(devices: &[Device]) {
    let Some(mtu) = devices.iter().map(|device| device.mtu).max() else {
        return;
    };
    let is_small = crate::boot::block().heap_bytes < SMALL_HEAP_BYTES;
    FRAMES.with(|frames| {
        frames.buffer_bytes = (usize::from(mtu) + HEADER_BYTES).next_multiple_of(64);
        frames.ports = devices
            .iter()
            .map(|device| Port {
                index: device.index,
                mac: device.mac,
                arrived: VecDeque::new(),
                counters: Counters::default(),
                is_raw: false,
                waiting: None,
            })
            .collect();
        let count = if is_small {
            RECEIVE_FRAMES_SMALL
        } else {
            RECEIVE_FRAMES
        };
        for _ in 0..count {
            frames.add_receive_buffer();
        }
    });
}

/// Adds frames to a request.
pub(super) fn prepare(request: &mut IoRequest) {
    FRAMES.with(|frames| {
        request.transmit_address = frames.transmit.as_mut_ptr().expose_provenance() as u64;
        request.transmit_count = u32::try_from(frames.transmit.len()).unwrap_or(0);
        request.receive_address = frames.receive.as_mut_ptr().expose_provenance() as u64;
        request.receive_count = u32::try_from(frames.receive.len()).unwrap_or(0);
    });
}

/// Takes the answer.
pub(super) fn complete(request: &IoRequest) {
    FRAMES.with(|frames| {
        frames.take_back_transmitted();
        for index in 0..to_usize(request.received_count.into()) {
            frames.take_received(index);
        }
    });
}

/// Whether another frame fits into the next request.
pub(super) fn can_transmit() -> bool {
    FRAMES.with(|frames| frames.transmit.len() < to_usize(MAX_BATCH.into()))
}

/// The next frame that has arrived at a device, unless somebody has claimed it.
#[cfg(feature = "ipv4")]
pub(super) fn take_arrived(device: u16) -> Option<FrameBuffer> {
    FRAMES.with(|frames| {
        let port = frames.port(device)?;
        if port.is_raw {
            return None;
        }
        port.arrived.pop_front()
    })
}

/// Gives a frame's buffer back.
pub fn release(frame: FrameBuffer) {
    FRAMES.with(|frames| frames.give_back(frame.storage));
}

/// An empty frame of a size; shorter if no device takes one as long.
#[must_use]
pub fn allocate(bytes: usize) -> FrameBuffer {
    FRAMES.with(|frames| {
        let storage = frames.storage();
        let used = bytes.min(storage.len());
        FrameBuffer { storage, used }
    })
}

/// Puts a frame into the next request.
pub(super) fn transmit(device: u16, frame: FrameBuffer) {
    FRAMES.with(|frames| frames.transmit(device, frame));
}

/// The counters of a device.
#[must_use]
pub fn counters(device: u16) -> Counters {
    FRAMES.with(|frames| {
        let port = frames.port(device);
        port.map_or(Counters::default(), |port| port.counters)
    })
}

/// The hardware address of a device.
#[must_use]
pub fn mac(device: u16) -> Option<[u8; 6]> {
    FRAMES.with(|frames| frames.port(device).map(|port| port.mac))
}

/// The indexes of all devices.
#[must_use]
pub fn devices() -> Vec<u16> {
    FRAMES.with(|frames| frames.ports.iter().map(|port| port.index).collect())
}

/// A device without protocols: frames as they come.
#[derive(Debug)]
pub struct RawDevice {
    device: u16,
}

impl RawDevice {
    /// Takes a device away from the protocols.
    ///
    /// None if there is no such device, or somebody has it.
    #[must_use]
    pub fn claim(device: u16) -> Option<Self> {
        FRAMES.with(|frames| {
            let port = frames.port(device)?;
            (!core::mem::replace(&mut port.is_raw, true)).then_some(Self { device })
        })
    }

    /// Waits for frames and takes all that have arrived.
    pub async fn receive(&self) -> VecDeque<FrameBuffer> {
        poll_fn(|context| {
            FRAMES.with(|frames| {
                let Some(port) = frames.port(self.device) else {
                    return Poll::Pending;
                };
                if port.arrived.is_empty() {
                    port.waiting = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(core::mem::take(&mut port.arrived))
            })
        })
        .await
    }

    /// Transmits a frame with the next request, without copying it. False if as many are waiting
    /// as a request can take: the frame is dropped, as a full queue of a switch would.
    pub fn transmit(&self, frame: FrameBuffer) -> bool {
        if can_transmit() {
            transmit(self.device, frame);
            return true;
        }
        FRAMES.with(|frames| {
            if let Some(port) = frames.port(self.device) {
                port.counters.dropped += 1;
            }
            frames.give_back(frame.storage);
        });
        false
    }
}

impl Drop for RawDevice {
    fn drop(&mut self) {
        FRAMES.with(|frames| {
            if let Some(port) = frames.port(self.device) {
                port.is_raw = false;
            }
        });
    }
}

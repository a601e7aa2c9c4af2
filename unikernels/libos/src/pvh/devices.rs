//! Network and block devices over virtio, behind the requests of Gamut's monitor.

use alloc::vec::Vec;

use gamut_abi::guest::hypercall::IoRequest;

use super::command_line::{self, DeviceWord};

#[cfg(any(feature = "net", feature = "block"))]
mod virtio;

/// Finds the devices and appends those that the configuration does not mention to it.
pub(super) fn find(line: &[u8], text: &mut Vec<u8>) {
    let mut words: Vec<DeviceWord> = command_line::devices(line);
    if words.is_empty() {
        words.extend(microvm());
    }
    #[cfg(any(feature = "net", feature = "block"))]
    virtio::find(&words, text);
    #[cfg(not(any(feature = "net", feature = "block")))]
    let _ = (words, text);
}

/// Where QEMU's microvm has its devices when it describes them by ACPI instead of by the command
/// line (`include/hw/i386/microvm.h`). Elsewhere nothing answers there.
fn microvm() -> impl Iterator<Item = DeviceWord> {
    const FIRST_LINE: u32 = 24;
    (0..24).map(|index| DeviceWord {
        bytes: 512,
        address: 0xfeb0_0000 + 512 * u64::from(index),
        line: FIRST_LINE + index,
    })
}

/// Whether a network device has received a frame.
pub(super) fn has_received() -> bool {
    #[cfg(feature = "net")]
    return virtio::has_received();
    #[cfg(not(feature = "net"))]
    false
}

/// Transmits the frames of a request.
pub(super) fn transmit(request: &mut IoRequest) {
    #[cfg(feature = "net")]
    virtio::transmit(request);
    #[cfg(not(feature = "net"))]
    let _ = request;
}

/// Fills the buffers of a request with what has been received.
pub(super) fn receive(request: &mut IoRequest) {
    #[cfg(feature = "net")]
    virtio::receive(request);
    #[cfg(not(feature = "net"))]
    let _ = request;
}

/// Carries out the block requests of a request.
pub(super) fn block(request: &mut IoRequest) {
    #[cfg(feature = "block")]
    virtio::block(request);
    #[cfg(not(feature = "block"))]
    let _ = request;
}

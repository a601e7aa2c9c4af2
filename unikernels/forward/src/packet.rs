//! One hop of an IP packet.

/// Ethernet addresses of a hop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    /// Of the device by which packets leave.
    pub(super) from: [u8; 6],
    /// Of whoever gets them.
    pub(super) next: [u8; 6],
}

/// Where the header of the packet begins.
const PACKET: usize = 14;

/// Makes a frame ready for its next hop. False if it is no IP packet, or at the end of its hops.
pub(super) fn route(frame: &mut [u8], hop: &Hop) -> bool {
    let is_ready = match frame.get(12..PACKET) {
        Some([0x08, 0x00]) => decrement_v4(frame),
        Some([0x86, 0xdd]) => match frame.get_mut(PACKET + 7) {
            Some(hops @ 2..) => {
                *hops -= 1;
                true
            }
            _ => false,
        },
        _ => false,
    };
    if is_ready && let Some((addresses, _)) = frame.split_at_mut_checked(12) {
        let (next, from) = addresses.split_at_mut(6);
        next.copy_from_slice(&hop.next);
        from.copy_from_slice(&hop.from);
    }
    is_ready
}

/// One hop less, and the header's checksum to match (RFC 1624: it grows by what the field loses).
fn decrement_v4(frame: &mut [u8]) -> bool {
    let Some([lifetime, _, high, low]) = frame.get_mut(PACKET + 8..PACKET + 12) else {
        return false;
    };
    if *lifetime < 2 {
        return false;
    }
    *lifetime -= 1;
    let sum = u32::from(u16::from_be_bytes([*high, *low])) + 0x100;
    let [_, carry, first, second] = sum.to_be_bytes();
    let sum = u16::from_be_bytes([first, second]).wrapping_add(carry.into());
    [*high, *low] = sum.to_be_bytes();
    true
}

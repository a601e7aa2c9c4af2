//! Recognizes the first segment of a connection, without input or output.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From where to which port somebody wants to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syn {
    pub(super) from: IpAddr,
    pub(super) from_port: u16,
    pub(super) to_port: u16,
}

const ETHERNET_HEADER_BYTES: usize = 14;
const TCP: u8 = 6;
const FLAG_SYN: u8 = 0x02;
const FLAG_RST_OR_ACK: u8 = 0x14;

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// The wish to connect that a frame holds. Whatever looks odd is none: the protocols judge it.
pub(super) fn read(frame: &[u8]) -> Option<Syn> {
    let packet = frame.get(ETHERNET_HEADER_BYTES..)?;
    let (from, segment) = match half(frame, 12)? {
        0x0800 => {
            let first = *packet.first()?;
            let header_bytes = usize::from(first & 0xf) * 4;
            let is_whole = half(packet, 6)? & 0x3fff == 0;
            if first >> 4 != 4 || header_bytes < 20 || !is_whole || *packet.get(9)? != TCP {
                return None;
            }
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            (
                IpAddr::V4(Ipv4Addr::from(from)),
                packet.get(header_bytes..)?,
            )
        }
        0x86dd => {
            if *packet.get(6)? != TCP {
                return None;
            }
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (IpAddr::V6(Ipv6Addr::from(from)), packet.get(40..)?)
        }
        _ => return None,
    };
    let flags = *segment.get(13)?;
    if flags & FLAG_SYN == 0 || flags & FLAG_RST_OR_ACK != 0 {
        return None;
    }
    Some(Syn {
        from,
        from_port: half(segment, 0)?,
        to_port: half(segment, 2)?,
    })
}

//! Questions for names among the frames of a guest, and the frames that answer them. No I/O.
//!
//! Ethernet, ARP (RFC 826), IPv4 (RFC 791), UDP (RFC 768), and of DNS (RFC 1035) as much as it takes
//! to cut an answer short.

use std::net::Ipv4Addr;

/// Where container engines answer questions for names, in the network namespace of who asks.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The resolver's link-layer address, locally administered: nobody else on the guest's cable has it.
const RESOLVER_MAC: [u8; 6] = [0x02, 0x00, 127, 0, 0, 11];
const DNS_PORT: u16 = 53;
const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Headers of an answer.
const HEADER_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet and IPv4 addresses, and their lengths.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];
const PROTOCOL_UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;
/// Bytes of a DNS header.
const DNS_HEADER_BYTES: usize = 12;
/// "Truncated", in the third byte of a DNS header.
const TRUNCATED: u8 = 0x02;

/// Who has asked, to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    mac: [u8; 6],
    /// Whom it took for the resolver: a gateway, or [`RESOLVER_MAC`].
    resolver_mac: [u8; 6],
    address: [u8; 4],
    port: [u8; 2],
}

/// What a frame is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'frame> {
    /// Nothing: it goes to the network.
    Other,
    /// The question for the resolver's link-layer address, with the frame that answers it.
    LinkAddress(Vec<u8>),
    /// A question for the resolver.
    Question(Asker, &'frame [u8]),
}

fn array<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<[u8; BYTES]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Looks at a frame of the guest.
#[must_use]
pub fn read(frame: &[u8]) -> Kind<'_> {
    let kind = match array(frame, 12) {
        Some(ETHERTYPE_IPV4) => question(frame),
        Some(ETHERTYPE_ARP) => link_address(frame).map(Kind::LinkAddress),
        _ => None,
    };
    kind.unwrap_or(Kind::Other)
}

fn link_address(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let asks = array(packet, 0)? == ARP_KIND && array(packet, 6)? == ARP_REQUEST;
    let mac: [u8; 6] = array(packet, 8)?;
    let address: [u8; 4] = array(packet, 14)?;
    if !asks || array(packet, 24)? != RESOLVER.octets() {
        return None;
    }
    let parts: [&[u8]; 9] = [
        &mac,
        &RESOLVER_MAC,
        &ETHERTYPE_ARP,
        &ARP_KIND,
        &ARP_REPLY,
        &RESOLVER_MAC,
        &RESOLVER.octets(),
        &mac,
        &address,
    ];
    Some(parts.concat())
}

fn question(frame: &[u8]) -> Option<Kind<'_>> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    // The commonest answer first: nearly every frame goes elsewhere.
    if array(packet, 16)? != RESOLVER.octets() || *packet.get(9)? != PROTOCOL_UDP {
        return None;
    }
    let version = *packet.first()?;
    let header_bytes = usize::from(version & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes(array(packet, 2)?));
    // A part of a packet is no question.
    let fragment = u16::from_be_bytes(array(packet, 6)?) & 0x3fff;
    if version >> 4 != 4 || header_bytes < IPV4_BYTES || fragment != 0 {
        return None;
    }
    let datagram = packet.get(..total_bytes)?.get(header_bytes..)?;
    let bytes = usize::from(u16::from_be_bytes(array(datagram, 4)?));
    if u16::from_be_bytes(array(datagram, 2)?) != DNS_PORT {
        return None;
    }
    let asker = Asker {
        mac: array(frame, 6)?,
        resolver_mac: array(frame, 0)?,
        address: array(packet, 12)?,
        port: array(datagram, 0)?,
    };
    let message = datagram.get(..bytes)?.get(UDP_BYTES..)?;
    Some(Kind::Question(asker, message))
}

/// The frame that brings an answer. One that is too long for the network is cut and says so; `None`
/// if it makes no sense even then.
#[must_use]
pub fn answer(asker: &Asker, message: &[u8], mtu_bytes: usize) -> Option<Vec<u8>> {
    let room_bytes = mtu_bytes.checked_sub(IPV4_BYTES + UDP_BYTES)?;
    if message.len() > room_bytes {
        let cut = cut(message).filter(|cut| cut.len() <= room_bytes)?;
        return Some(datagram(asker, &cut));
    }
    Some(datagram(asker, message))
}

/// The header and the question of an answer, which tell to ask for the whole by TCP.
fn cut(message: &[u8]) -> Option<Vec<u8>> {
    let mut at = DNS_HEADER_BYTES;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => at += length,
            // A pointer, where there is nothing yet to point to.
            _ => return None,
        }
    }
    // Type and class.
    let mut cut = message.get(..at + 4)?.to_vec();
    *cut.get_mut(2)? |= TRUNCATED;
    // One question; no answers, authorities and additions.
    cut.get_mut(4..DNS_HEADER_BYTES)?
        .copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    Some(cut)
}

fn datagram(asker: &Asker, message: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let udp_length = length(UDP_BYTES + message.len());
    let total = length(IPV4_BYTES + UDP_BYTES + message.len());
    let resolver = RESOLVER.octets();
    let head = |sum: [u8; 2]| {
        let parts: [&[u8]; 7] = [
            // Version and length of the header, no class of service.
            &[0x45, 0],
            &total,
            // No identification; not to be fragmented.
            &[0, 0, 0x40, 0],
            &[TIME_TO_LIVE, PROTOCOL_UDP],
            &sum,
            &resolver,
            &asker.address,
        ];
        parts.concat()
    };
    let header = head(checksum(&head([0; 2])));
    let port = DNS_PORT.to_be_bytes();
    let summed: [&[u8]; 8] = [
        &resolver,
        &asker.address,
        &[0, PROTOCOL_UDP],
        &udp_length,
        &port,
        &asker.port,
        &udp_length,
        message,
    ];
    // Zero would mean that there is none.
    let sum = match checksum(&summed.concat()) {
        [0, 0] => [0xff; 2],
        sum => sum,
    };
    let mut frame = Vec::with_capacity(HEADER_BYTES + message.len());
    let parts: [&[u8]; 9] = [
        &asker.mac,
        &asker.resolver_mac,
        &ETHERTYPE_IPV4,
        &header,
        &port,
        &asker.port,
        &udp_length,
        &sum,
        message,
    ];
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}

/// The internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| {
        let low = pair.get(1).copied().unwrap_or(0);
        u64::from(u16::from_be_bytes([
            pair.first().copied().unwrap_or(0),
            low,
        ]))
    };
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    [high, low]
}

/// Entry for fuzzing: any frame is a question or none, and what answers one is well formed.
pub fn fuzz_frame(data: &[u8]) {
    match read(data) {
        Kind::Other => {}
        Kind::LinkAddress(frame) => assert_eq!(frame.len(), 42),
        Kind::Question(asker, message) => {
            assert!(message.len() < data.len());
            // Whatever the guest asks, its resolver might send back.
            let frame = answer(&asker, message, 1500);
            if let Some(frame) = frame {
                let packet = frame.get(ETHERNET_BYTES..).unwrap_or_default();
                assert!(packet.len() <= 1500);
                let header = packet.get(..IPV4_BYTES).unwrap_or_default();
                assert_eq!(checksum(header), [0, 0]);
            }
            assert_eq!(answer(&asker, message, 27), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUEST: [u8; 6] = [2, 0x42, 10, 0, 0, 2];
    const GATEWAY: [u8; 6] = [2, 0x42, 10, 0, 0, 1];

    /// A question as a guest sends it.
    fn asked(message: &[u8]) -> Vec<u8> {
        let total = u16::try_from(28 + message.len()).unwrap().to_be_bytes();
        let udp = u16::try_from(8 + message.len()).unwrap().to_be_bytes();
        let parts: [&[u8]; 12] = [
            &GATEWAY,
            &GUEST,
            &ETHERTYPE_IPV4,
            &[0x45, 0],
            &total,
            &[0, 7, 0x40, 0, 64, 17, 0, 0],
            &[10, 0, 0, 2],
            &RESOLVER.octets(),
            &[0x30, 0x39, 0, 53],
            &udp,
            &[0, 0],
            message,
        ];
        parts.concat()
    }

    #[test]
    fn a_question_is_found_and_its_answer_comes_back() {
        let frame = asked(b"a question");
        let Kind::Question(asker, message) = read(&frame) else {
            panic!("no question");
        };
        assert_eq!(message, b"a question");
        let frame = answer(&asker, b"an answer", 1500).unwrap();
        assert_eq!(frame[..6], GUEST);
        assert_eq!(frame[6..12], GATEWAY);
        assert_eq!(frame[26..34], [127, 0, 0, 11, 10, 0, 0, 2]);
        assert_eq!(frame[34..38], [0, 53, 0x30, 0x39]);
        assert_eq!(&frame[42..], b"an answer");
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
        // With the pseudo header, an odd length, and its own sum in it.
        let summed = [&frame[26..34], &[0, 17, 0, 17], &frame[34..]].concat();
        assert_eq!(checksum(&summed), [0, 0]);
    }

    #[test]
    fn what_is_no_question_is_left_alone() {
        let frame = asked(b"x");
        let with = |at: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[at] = byte;
            frame
        };
        for other in [
            with(33, 12),
            with(23, 6),
            with(37, 80),
            with(14, 0x65),
            with(14, 0x44),
            // A later part, and one with more to come.
            with(21, 1),
            with(20, 0x20),
            // Longer than the frame.
            with(17, 200),
            with(39, 200),
            // Shorter than its header.
            with(39, 7),
        ] {
            assert_eq!(read(&other), Kind::Other, "{other:x?}");
        }
        for bytes in 0..frame.len() {
            assert_eq!(read(&frame[..bytes]), Kind::Other);
        }
    }

    #[test]
    fn the_resolver_has_a_link_layer_address() {
        let mut frame = [&[0xff; 6][..], &GUEST, &ETHERTYPE_ARP, &ARP_KIND].concat();
        frame.extend(ARP_REQUEST);
        frame.extend(GUEST);
        frame.extend([127, 0, 0, 1]);
        frame.extend([0; 6]);
        frame.extend(RESOLVER.octets());
        let Kind::LinkAddress(reply) = read(&frame) else {
            panic!("no question");
        };
        assert_eq!(reply[..12], [GUEST, RESOLVER_MAC].concat());
        assert_eq!(reply[20..22], ARP_REPLY);
        assert_eq!(reply[22..28], RESOLVER_MAC);
        assert_eq!(reply[28..32], RESOLVER.octets());
        // That of others is asked of others.
        *frame.last_mut().unwrap() = 1;
        assert_eq!(read(&frame), Kind::Other);
    }

    #[test]
    fn a_long_answer_is_cut_and_says_so() {
        let question = b"\x12\x34\x81\x80\0\x01\0\x09\0\0\0\x01\x03web\0\0\x01\0\x01";
        let long = [&question[..], &[7; 2000]].concat();
        let frame = asked(b"x");
        let Kind::Question(asker, _) = read(&frame) else {
            panic!("no question");
        };
        let frame = answer(&asker, &long, 1500).unwrap();
        assert_eq!(
            frame[42..],
            *b"\x12\x34\x83\x80\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01"
        );
        assert_eq!(answer(&asker, &[0xff; 2000], 1500), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_safe(data: Vec<u8>) {
            fuzz_frame(&data);
        }

        #[test]
        fn any_question_is_safe(message in prop::collection::vec(any::<u8>(), 0..600), at in 0_usize..60, byte: u8) {
            let mut frame = asked(&message);
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
            fuzz_frame(&frame);
        }
    }
}

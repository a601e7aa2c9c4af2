//! Forgetting tracked UDP flows whose translation has changed.
//!
//! The kernel looks up where a published port leads for a flow's first packet only. A UDP flow
//! lives as long as its packets come, so a client that keeps sending would reach an address that
//! has been given up, or never a port that was published after its first packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::{Error, Result};
use crate::netlink::{Attributes, NetlinkSocket};

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const IPPROTO_UDP: u8 = 17;
/// The netlink header and `struct nfgenmsg`.
const HEADERS_BYTES: usize = 16 + 4;

/// Forgets the UDP flows that were sent to one of `ports` on this host or lead to `address`.
pub(crate) fn forget_udp(address: IpAddr, ports: &[u16]) -> Result<()> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, "netfilter")?;
    let sequence = socket.next_sequence();
    let mut stale = Vec::new();
    socket.collect(
        "list the tracked flows",
        &message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, family, &[]),
        sequence,
        |answer| {
            stale.extend(parse_flow(answer).filter(|flow| {
                flow.protocol == IPPROTO_UDP
                    && (flow.reply_source == address || ports.contains(&flow.destination_port))
            }));
        },
    )?;
    for flow in stale {
        let sequence = socket.next_sequence();
        let request = message(
            CT_DELETE,
            NLM_F_REQUEST | NLM_F_ACK,
            sequence,
            family,
            &flow.key,
        );
        match socket.command("forget a tracked flow", &request, sequence) {
            Err(Error::Netlink { source, .. }) if source.errno == libc::ENOENT => {}
            other => other?,
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Flow {
    protocol: u8,
    /// Port that the first packet was sent to.
    destination_port: u16,
    /// Who answers, after translation.
    reply_source: IpAddr,
    /// The attributes that name the flow to the kernel, encoded.
    key: Vec<u8>,
}

/// Parses an entry of the dump, headers and all.
fn parse_flow(message: &[u8]) -> Option<Flow> {
    let mut key = Vec::new();
    let mut original = None;
    let mut reply_source = None;
    for (kind, value) in Attributes(message.get(HEADERS_BYTES..)?) {
        match kind {
            CTA_TUPLE_ORIG => {
                original = find(value, CTA_TUPLE_PROTO);
                push(&mut key, kind | NLA_F_NESTED, value);
            }
            CTA_TUPLE_REPLY => {
                reply_source = address(find(value, CTA_TUPLE_IP)?);
            }
            CTA_ID | CTA_ZONE => push(&mut key, kind, value),
            _ => {}
        }
    }
    let original = original?;
    Some(Flow {
        protocol: *find(original, CTA_PROTO_NUM)?.first()?,
        destination_port: u16::from_be_bytes(find(original, CTA_PROTO_DST_PORT)?.try_into().ok()?),
        reply_source: reply_source?,
        key,
    })
}

/// The source of a pair of addresses.
fn address(pair: &[u8]) -> Option<IpAddr> {
    if let (Some(source), Some(_)) = (find(pair, CTA_IP_V4_SRC), find(pair, CTA_IP_V4_DST)) {
        let octets: [u8; 4] = source.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    find(pair, CTA_IP_V6_DST)?;
    let octets: [u8; 16] = find(pair, CTA_IP_V6_SRC)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(attributes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Lengths come from 16-bit fields of the kernel's own attributes.
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn message(kind: u16, flags: u16, sequence: u32, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS_BYTES + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADERS_BYTES + attributes.len());
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    // struct nfgenmsg: family, version, resource id
    bytes.extend_from_slice(&[family, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// Feeds arbitrary bytes to the parser of tracked flows; a target for fuzzing.
pub fn fuzz_flow(data: &[u8]) {
    let _ = parse_flow(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (part, value) in parts {
            push(&mut inner, *part, value);
        }
        let mut bytes = Vec::new();
        push(&mut bytes, kind | NLA_F_NESTED, &inner);
        bytes
    }

    fn flow(source: IpAddr) -> Option<Flow> {
        let [from, to] = match source {
            IpAddr::V4(_) => [CTA_IP_V4_SRC, CTA_IP_V4_DST],
            IpAddr::V6(_) => [CTA_IP_V6_SRC, CTA_IP_V6_DST],
        };
        let octets = match source {
            IpAddr::V4(source) => source.octets().to_vec(),
            IpAddr::V6(source) => source.octets().to_vec(),
        };
        let addresses = nested(CTA_TUPLE_IP, &[(from, &octets), (to, &octets)]);
        let protocol = nested(
            CTA_TUPLE_PROTO,
            &[(CTA_PROTO_NUM, &[17]), (CTA_PROTO_DST_PORT, &[0x1f, 0x90])],
        );
        let mut attributes = Vec::new();
        let tuple = [addresses, protocol].concat();
        push(&mut attributes, CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple);
        push(&mut attributes, CTA_TUPLE_REPLY | NLA_F_NESTED, &tuple);
        parse_flow(&message(CT_GET, 0, 1, AF_INET, &attributes))
    }

    #[test]
    fn parses_flows_of_both_families() {
        for source in ["10.0.0.9", "fd00::9"] {
            let source: IpAddr = source.parse().unwrap();
            let flow = flow(source).unwrap();
            assert_eq!((flow.protocol, flow.destination_port), (17, 8080));
            assert_eq!(flow.reply_source, source);
        }
    }

    proptest! {
        #[test]
        fn any_entry_is_safe(data: Vec<u8>) {
            fuzz_flow(&data);
        }
    }
}

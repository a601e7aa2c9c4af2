//! Leading the resolver's address to where the resolver of a namespace really listens.
//!
//! The embedded resolver cannot take port 53 of 127.0.0.11: a workload that is a name server
//! itself listens on port 53 of every address. So it listens on ports that the kernel chooses, and
//! two rules in the namespace change the port of packets to it, and back in packets from it. They
//! do so without tracking connections (a packet's port is all that decides), so that the workload's
//! other traffic is not tracked for their sake.
//!
//! The rules are written as netlink messages (linux/netfilter/nf_tables.h): starting `nft` would
//! take longer than starting the container.

use std::net::Ipv4Addr;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::error::Result;
use crate::netlink::NetlinkSocket;

const TABLE: &str = "gamut_dns";
const CHAIN: &str = "output";
/// Where names are asked for, as with every engine.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DNS_PORT: u16 = 53;

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const AF_UNSPEC: u8 = 0;
const NFPROTO_IPV4: u8 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
// linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const LOCAL_OUT: u32 = 3;
const PRIORITY: i32 = -150;
const REGISTER: u32 = 1;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
/// Offsets in the IPv4 header.
const PROTOCOL: u32 = 9;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// Offsets in the TCP and the UDP header.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
const CHECKSUM_INET: u32 = 1;

/// Leads queries to 127.0.0.11:53 in the calling thread's namespace to these ports of the same
/// address. Replaces what an earlier call has set.
///
/// # Errors
/// The kernel's, if it was built without nf_tables for instance.
pub fn redirect_resolver(udp_port: u16, tcp_port: u16) -> Result<()> {
    let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, "netfilter")?;
    let mut batch = Batch::default();
    let table = text(1, TABLE);
    // Made first, so that there is one to delete, and no rule stands twice.
    for kind in [NEW_TABLE, DELETE_TABLE, NEW_TABLE] {
        batch.request(&mut socket, kind, &table);
    }
    let hook = [number(1, LOCAL_OUT), number(2, PRIORITY.cast_unsigned())].concat();
    let chain = [
        text(1, TABLE),
        text(3, CHAIN),
        nested(4, &hook),
        text(7, "filter"),
    ];
    batch.request(&mut socket, NEW_CHAIN, &chain.concat());
    for (protocol, port, checksum) in [(17, udp_port, 6), (6, tcp_port, 16)] {
        let there = Change {
            protocol,
            checksum,
            address: DESTINATION,
            place: DESTINATION_PORT,
            from: DNS_PORT,
            to: port,
        };
        let back = Change {
            address: SOURCE,
            place: SOURCE_PORT,
            from: port,
            to: DNS_PORT,
            ..there
        };
        for change in [there, back] {
            batch.request(&mut socket, NEW_RULE, &change.rule());
        }
    }
    batch.send(&mut socket)
}

/// One rule: packets of a protocol with the resolver's address and port `from` get port `to`.
#[derive(Clone, Copy)]
struct Change {
    protocol: u8,
    /// Where the checksum stands in the transport header.
    checksum: u32,
    address: u32,
    place: u32,
    from: u16,
    to: u16,
}

impl Change {
    fn rule(&self) -> Vec<u8> {
        let expressions = [
            load(BASE_NETWORK, PROTOCOL, 1),
            equals(&[self.protocol]),
            load(BASE_NETWORK, self.address, 4),
            equals(&RESOLVER.octets()),
            load(BASE_TRANSPORT, self.place, 2),
            equals(&self.from.to_be_bytes()),
            // The immediate and the store.
            expression(
                "immediate",
                &[
                    number(1, REGISTER),
                    nested(2, &bytes(1, &self.to.to_be_bytes())),
                ]
                .concat(),
            ),
            expression(
                "payload",
                &[
                    number(2, BASE_TRANSPORT),
                    number(3, self.place),
                    number(4, 2),
                    number(5, REGISTER),
                    number(6, CHECKSUM_INET),
                    number(7, self.checksum),
                ]
                .concat(),
            ),
        ];
        let parts = [
            text(1, TABLE),
            text(2, CHAIN),
            nested(4, &expressions.concat()),
        ];
        parts.concat()
    }
}

/// Loads bytes of the packet into the register.
fn load(base: u32, offset: u32, length: u32) -> Vec<u8> {
    let parts = [
        number(1, REGISTER),
        number(2, base),
        number(3, offset),
        number(4, length),
    ];
    expression("payload", &parts.concat())
}

/// Goes on only if the register holds `value`.
fn equals(value: &[u8]) -> Vec<u8> {
    let parts = [
        number(1, REGISTER),
        number(2, 0),
        nested(3, &bytes(1, value)),
    ];
    expression("cmp", &parts.concat())
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)].concat())
}

/// A netlink attribute.
fn bytes(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    bytes(kind | NLA_F_NESTED, value)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    bytes(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    bytes(kind, format!("{value}\0").as_bytes())
}

/// Requests that the kernel carries out all or none.
#[derive(Default)]
struct Batch {
    messages: Vec<u8>,
    first: Option<u32>,
    count: usize,
}

impl Batch {
    fn request(&mut self, socket: &mut NetlinkSocket, kind: u16, attributes: &[u8]) {
        let sequence = socket.next_sequence();
        self.first.get_or_insert(sequence);
        self.count += 1;
        let creates = if kind == DELETE_TABLE {
            0
        } else {
            NLM_F_CREATE | if kind == NEW_RULE { NLM_F_APPEND } else { 0 }
        };
        self.messages.extend(message(
            (SUBSYSTEM << 8) | kind,
            NLM_F_REQUEST | NLM_F_ACK | creates,
            sequence,
            NFPROTO_IPV4,
            0,
            attributes,
        ));
    }

    fn send(self, socket: &mut NetlinkSocket) -> Result<()> {
        let first = self.first.unwrap_or_default();
        // Their numbers are out of the way of those that are acknowledged.
        let mark = |kind| {
            message(
                kind,
                NLM_F_REQUEST,
                first.wrapping_sub(1),
                AF_UNSPEC,
                SUBSYSTEM,
                &[],
            )
        };
        let whole = [mark(BATCH_BEGIN), self.messages, mark(BATCH_END)].concat();
        socket.batch("lead names to the resolver", &whole, first, self.count)
    }
}

/// A message of nfnetlink: netlink header, `struct nfgenmsg`, attributes.
fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(16 + 4 + attributes.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    message.extend(attributes);
    message
}

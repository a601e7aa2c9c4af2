//! Hearing of it when somebody takes our rules away.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::error::{Error, Result};
use crate::firewall::OWN_CHANGES;
use crate::netlink::{Attributes, Messages};
use crate::network::Network;

// linux/netfilter/nfnetlink.h
const GROUP_NFTABLES: u32 = 7;
const SUBSYSTEM_NFTABLES: u16 = 10;
// linux/netfilter/nf_tables.h
const DELETE_TABLE: u16 = 2;
const DELETE_CHAIN: u16 = 5;
const DELETE_RULE: u16 = 8;
/// Of a table its name, of chains and rules that of their table.
const TABLE: u16 = 1;
/// `struct nfgenmsg`.
const GENERIC_HEADER_BYTES: usize = 4;
/// The kernel's notices fit into a page.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Tells when tables, chains or rules of ours are deleted by somebody else.
#[derive(Debug)]
pub struct FirewallWatch {
    socket: Socket,
    table: String,
}

impl FirewallWatch {
    /// Listens from now on in the calling thread's network namespace, for the tables of `network`
    /// and all that share them.
    ///
    /// # Errors
    /// The kernel's; `Forbidden` without CAP_NET_ADMIN.
    pub fn new(network: &Network) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(GROUP_NFTABLES)?;
            Ok(socket)
        };
        let socket =
            open().map_err(|source| Error::system("listen for changes of the firewall", source))?;
        Ok(Self {
            socket,
            table: network.table().to_owned(),
        })
    }

    /// Waits until something of ours is deleted by somebody else than this process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&mut self) -> Result<()> {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            match self.socket.recv(&mut datagram, 0) {
                Ok(_) if deletes(&datagram, &self.table) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Too much happened at once to be told: it may have been ours.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(source) => {
                    return Err(Error::system("hear of changes of the firewall", source));
                }
            }
        }
    }
}

/// Whether one of the messages tells that somebody else deleted something of a table.
fn deletes(datagram: &[u8], table: &str) -> bool {
    Messages(datagram).any(|(header, body)| {
        let is_deletion = [DELETE_TABLE, DELETE_CHAIN, DELETE_RULE]
            .iter()
            .any(|deletion| header.kind == (SUBSYSTEM_NFTABLES << 8) | deletion);
        let is_ours = |(kind, value): (u16, &[u8])| {
            kind == TABLE && value.strip_suffix(&[0]) == Some(table.as_bytes())
        };
        let attributes = body.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
        is_deletion && !OWN_CHANGES.contains(header.port) && Attributes(attributes).any(is_ours)
    })
}

/// Feeds arbitrary bytes to the parser of the kernel's notices; a target for fuzzing.
pub fn fuzz_notice(data: &[u8]) {
    let _ = deletes(data, "gamut0");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The netlink header, and `struct nfgenmsg`.
    const HEADERS_BYTES: usize = 16 + GENERIC_HEADER_BYTES;

    fn notice(kind: u16, table: &str) -> Vec<u8> {
        let name = format!("{table}\0");
        let attribute = u16::try_from(name.len() + 4).unwrap();
        let padded = usize::from(attribute).next_multiple_of(4);
        let length = u32::try_from(HEADERS_BYTES + padded).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(((SUBSYSTEM_NFTABLES << 8) | kind).to_ne_bytes());
        message.resize(HEADERS_BYTES, 0);
        message.extend(attribute.to_ne_bytes());
        message.extend(TABLE.to_ne_bytes());
        message.extend(name.as_bytes());
        message.resize(HEADERS_BYTES + padded, 0);
        message
    }

    #[test]
    fn deletions_of_ours_are_heard() {
        assert!(deletes(&notice(DELETE_TABLE, "gamut0"), "gamut0"));
        assert!(deletes(&notice(DELETE_RULE, "gamut0"), "gamut0"));
        assert!(!deletes(&notice(DELETE_TABLE, "filter"), "gamut0"));
        assert!(!deletes(&notice(0, "gamut0"), "gamut0"), "a new one");
        let two = [notice(DELETE_TABLE, "nat"), notice(DELETE_TABLE, "gamut0")].concat();
        assert!(deletes(&two, "gamut0"));
        assert!(!deletes(&two[..two.len() - 1], "gamut0"), "cut off");
    }

    proptest! {
        #[test]
        fn any_notice_is_safe(data: Vec<u8>, at in 0_usize..40, byte: u8) {
            fuzz_notice(&data);
            let mut near = notice(DELETE_TABLE, "gamut0");
            if let Some(place) = near.get_mut(at) {
                *place = byte;
            }
            fuzz_notice(&near);
        }
    }
}

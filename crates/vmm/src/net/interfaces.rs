//! What the network namespace holds: interfaces, their addresses and default routes.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::Netlink;
use crate::error::{Error, Result};

/// How an interface reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By a tap of our own, joined with it.
    Join,
    /// It is a tap itself.
    Open,
}

/// An interface that is for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub index: u32,
    pub name: String,
    pub way: Way,
    pub is_up: bool,
    pub mac: [u8; 6],
    pub mtu: u32,
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateways: Vec<IpAddr>,
}

/// The interface of a name. Whatever else there is does not matter.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Interface>> {
    let links = netlink.dump(
        "list the network interfaces",
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
    )?;
    for link in &links {
        let RouteNetlinkMessage::NewLink(link) = link else {
            continue;
        };
        let is_wanted = link
            .attributes
            .iter()
            .any(|one| matches!(one, LinkAttribute::IfName(found) if found == name));
        if is_wanted {
            return interface(link);
        }
    }
    Ok(None)
}

/// All interfaces for the guest, in the order of their indices.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Interface>> {
    let links = netlink.dump(
        "list the network interfaces",
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
    )?;
    let mut interfaces = Vec::new();
    for link in &links {
        if let RouteNetlinkMessage::NewLink(link) = link {
            interfaces.extend(interface(link)?);
        }
    }
    if interfaces.is_empty() {
        return Ok(interfaces);
    }
    interfaces.sort_by_key(|interface| interface.index);
    let addresses = netlink.dump(
        "list the addresses",
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
    )?;
    for message in &addresses {
        if let RouteNetlinkMessage::NewAddress(message) = message {
            add_address(&mut interfaces, message);
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let routes = netlink.dump("list the routes", RouteNetlinkMessage::GetRoute(request))?;
        for message in &routes {
            if let RouteNetlinkMessage::NewRoute(message) = message {
                add_gateway(&mut interfaces, message);
            }
        }
    }
    Ok(interfaces)
}

/// Whether and how a link is for the guest.
///
/// Ends of virtual cables are. A device of the host itself is not: a guest that takes its packets
/// would take the host off its network. Devices that every namespace gets by itself (tunnels),
/// and others that are down, are nobody's.
fn interface(link: &LinkMessage) -> Result<Option<Interface>> {
    let is_up = link.header.flags.contains(LinkFlags::Up);
    let mut found = Interface {
        index: link.header.index,
        name: String::new(),
        way: Way::Join,
        is_up,
        mac: [0; 6],
        mtu: 1500,
        addresses: Vec::new(),
        gateways: Vec::new(),
    };
    let mut kind = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                found.mac = bytes.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    match kind {
        Some(InfoKind::Veth | InfoKind::MacVlan) => Ok(Some(found)),
        Some(InfoKind::Tun) if is_ethernet => {
            found.way = Way::Open;
            Ok(Some(found))
        }
        _ if !is_up || link.header.flags.contains(LinkFlags::Loopback) => Ok(None),
        kind => Err(Error::Network {
            interface: found.name,
            problem: format!(
                "{} cannot be given to a unikernel: only ends of virtual cables (veth, macvlan) \
                 and taps can; with --network host the host itself would lose it",
                kind.map_or_else(
                    || "a device of the host".to_owned(),
                    |kind| format!("a device of kind {kind:?}")
                )
            ),
        }),
    }
}

fn add_address(interfaces: &mut [Interface], message: &AddressMessage) {
    let Some(interface) = interfaces
        .iter_mut()
        .find(|interface| interface.index == message.header.index)
    else {
        return;
    };
    if message.header.scope != AddressScope::Universe {
        return;
    }
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // Of a cable with two ends, this is the own one.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) if found.is_none() => found = Some(*address),
            _ => {}
        }
    }
    interface
        .addresses
        .extend(found.map(|address| (address, message.header.prefix_len)));
}

fn add_gateway(interfaces: &mut [Interface], message: &RouteMessage) {
    let header = &message.header;
    if header.destination_prefix_length != 0 || header.table != RouteHeader::RT_TABLE_MAIN {
        return;
    }
    let mut gateway = None;
    let mut output = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Oif(index) => output = Some(*index),
            _ => {}
        }
    }
    if let (Some(gateway), Some(interface)) = (
        gateway,
        interfaces
            .iter_mut()
            .find(|interface| Some(interface.index) == output),
    ) {
        interface.gateways.push(gateway);
    }
}

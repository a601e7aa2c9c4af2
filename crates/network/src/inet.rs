//! The route-netlink messages that this crate sends about addresses and routes, of both families.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::Ipv4Subnet;
use crate::address6::Ipv6Subnet;
use crate::error::Result;
use crate::netlink::{NetlinkSocket, Request};

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    fn number(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

/// The addresses of a link with their prefix lengths, without those that the kernel gives by itself.
pub(crate) fn addresses(
    socket: &mut NetlinkSocket,
    family: Family,
    index: u32,
) -> Result<Vec<(IpAddr, u8)>> {
    let mut request = AddressMessage::default();
    request.header.family = family.number();
    let answers = socket.dump(
        "list the addresses",
        RouteNetlinkMessage::GetAddress(request),
    )?;
    let mut found = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewAddress(message) = answer else {
            continue;
        };
        if message.header.index != index {
            continue;
        }
        for attribute in &message.attributes {
            match (family, attribute) {
                // Of IPv4 the own address is the local one, of IPv6 there is only one.
                (Family::V4, AddressAttribute::Local(address))
                | (Family::V6, AddressAttribute::Address(address)) => {
                    found.push((*address, message.header.prefix_len));
                }
                _ => {}
            }
        }
    }
    found.retain(
        |(address, _)| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()),
    );
    Ok(found)
}

/// The destinations of all IPv4 routes but the default ones and those out of link `except`.
pub(crate) fn routed_subnets(
    socket: &mut NetlinkSocket,
    except: Option<u32>,
) -> Result<Vec<Ipv4Subnet>> {
    let mut found = Vec::new();
    for (address, prefix) in destinations(socket, Family::V4, except)? {
        if let RouteAddress::Inet(address) = address {
            found.extend(Ipv4Subnet::containing(address, prefix));
        }
    }
    Ok(found)
}

/// The destinations of all IPv6 routes but the default ones.
pub(crate) fn routed_subnets6(socket: &mut NetlinkSocket) -> Result<Vec<Ipv6Subnet>> {
    let mut found = Vec::new();
    for (address, prefix) in destinations(socket, Family::V6, None)? {
        if let RouteAddress::Inet6(address) = address {
            found.extend(Ipv6Subnet::containing(address, prefix));
        }
    }
    Ok(found)
}

fn destinations(
    socket: &mut NetlinkSocket,
    family: Family,
    except: Option<u32>,
) -> Result<Vec<(RouteAddress, u8)>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family.number();
    let answers = socket.dump("list the routes", RouteNetlinkMessage::GetRoute(request))?;
    let mut found = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            continue;
        };
        let is_multicast = route.header.kind == RouteType::Multicast;
        let out = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        if is_multicast || (except.is_some() && out == except) {
            continue;
        }
        let prefix = route.header.destination_prefix_length;
        for attribute in route.attributes {
            if let (RouteAttribute::Destination(address), 1..) = (attribute, prefix) {
                found.push((address, prefix));
            }
        }
    }
    Ok(found)
}

/// Gives a link an address; with it comes the route to its subnet. One of IPv6 can be used at
/// once, without asking the neighbours whether it is taken: whoever leases addresses knows.
pub(crate) fn add_address(index: u32, address: IpAddr, prefix: u8) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address).number();
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    match address {
        IpAddr::V4(address) => {
            message
                .attributes
                .push(AddressAttribute::Local(address.into()));
            if let Ok(subnet) = Ipv4Subnet::containing(address, prefix) {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(subnet.broadcast()));
            }
        }
        IpAddr::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    Request::new(
        format!("give an interface address {address}/{prefix}"),
        RouteNetlinkMessage::NewAddress(message),
    )
    .with_flags(NLM_F_CREATE | NLM_F_REPLACE)
}

/// Makes the default route of the gateway's family lead by `gateway`, whatever it was before.
pub(crate) fn set_default_route(gateway: IpAddr) -> Request {
    let mut message = default_route(Family::of(gateway));
    message
        .attributes
        .push(RouteAttribute::Gateway(match gateway {
            IpAddr::V4(gateway) => RouteAddress::Inet(gateway),
            IpAddr::V6(gateway) => RouteAddress::Inet6(gateway),
        }));
    Request::new(
        format!("add the default route by {gateway}"),
        RouteNetlinkMessage::NewRoute(message),
    )
    .with_flags(NLM_F_CREATE | NLM_F_REPLACE)
}

/// Removes the default route of a family.
pub(crate) fn delete_default_route(family: Family) -> Request {
    Request::new(
        "remove the default route",
        RouteNetlinkMessage::DelRoute(default_route(family)),
    )
}

fn default_route(family: Family) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.number();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message
}

//! Further addresses of an interface that mean something on its link alone.

use std::net::Ipv4Addr;

use crate::error::{Error, Result};
use crate::inet;
use crate::link;
use crate::namespace::NetworkNamespace;
use crate::netlink::NetlinkSocket;

/// Prefix length of 169.254.0.0/16 (RFC 3927).
const PREFIX: u8 = 16;

/// Gives an interface of a namespace further addresses.
///
/// # Errors
/// `InvalidArgument` for an address outside of 169.254.0.0/16, `NotFound` without the interface;
/// the kernel's otherwise.
pub fn add_link_local(
    namespace: &NetworkNamespace,
    interface: &str,
    addresses: &[Ipv4Addr],
) -> Result<()> {
    check_link_local(addresses)?;
    if addresses.is_empty() {
        return Ok(());
    }
    namespace.inside(|| {
        let mut socket = NetlinkSocket::route()?;
        let found = link::find(&mut socket, interface)?;
        let index = found
            .ok_or_else(|| Error::NotFound(format!("there is no interface {interface}")))?
            .index;
        let add = |address: &Ipv4Addr| inet::add_address(index, (*address).into(), PREFIX);
        socket.execute(addresses.iter().map(add).collect())
    })
}

/// Refuses addresses that are none of a link.
///
/// # Errors
/// `InvalidArgument`, naming the address.
pub fn check_link_local(addresses: &[Ipv4Addr]) -> Result<()> {
    match addresses.iter().find(|address| !address.is_link_local()) {
        None => Ok(()),
        Some(address) => Err(Error::InvalidArgument(format!(
            "invalid link-local IP address {address}: it is not in 169.254.0.0/16"
        ))),
    }
}

//! Making, adopting and choosing the subnet of a bridge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{Ipv4Subnet, MacAddress};
use crate::address6::Ipv6Subnet;
use crate::error::{Error, Result};
use crate::inet::{self, Family};
use crate::ipam::Ipam;
use crate::link;
use crate::netlink::NetlinkSocket;
use crate::sysctl;

/// Which bridge a network has.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Interface name, 1 to 15 characters.
    pub name: String,
    /// The subnet. Without one, that of the bridge if there is one already, or else the first of
    /// `candidates` that overlaps no route of the host.
    pub subnet: Option<Ipv4Subnet>,
    /// The bridge's own address, the containers' gateway; without one, the subnet's first.
    pub gateway: Option<Ipv4Addr>,
    /// Size of the largest packet in bytes, without one the kernel's default (1500).
    pub mtu: Option<u32>,
    /// Name of the nftables table, shared by all networks of one engine.
    pub table: String,
    /// The subnets to choose from.
    pub candidates: Vec<Ipv4Subnet>,
    /// No way out and none in: workloads reach each other and the host only.
    pub internal: bool,
    /// Workloads speak to the outside with the host's address.
    pub masquerade: bool,
    /// Workloads reach each other directly, not by published ports only.
    pub linked: bool,
    /// Its IPv6 addresses, if it has any.
    pub ipv6: Option<Ipv6Config>,
}

/// The IPv6 side of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Config {
    /// Addresses of the bridge and its workloads.
    pub subnet: Ipv6Subnet,
    /// The bridge's own address, the workloads' gateway.
    pub gateway: Ipv6Addr,
}

impl Default for BridgeConfig {
    /// Bridge `gamut0`, table `gamut`, a subnet out of 172.29.0.0/16, 172.30.0.0/16, 172.31.0.0/16
    /// and 192.168.224.0/20 to 192.168.240.0/20.
    fn default() -> Self {
        let candidates = [
            ([172, 29, 0, 0], 16),
            ([172, 30, 0, 0], 16),
            ([172, 31, 0, 0], 16),
            ([192, 168, 224, 0], 20),
            ([192, 168, 240, 0], 20),
        ];
        Self {
            name: "gamut0".to_owned(),
            subnet: None,
            gateway: None,
            mtu: None,
            table: "gamut".to_owned(),
            candidates: candidates
                .into_iter()
                .filter_map(|(address, prefix)| {
                    Ipv4Subnet::containing(Ipv4Addr::from(address), prefix).ok()
                })
                .collect(),
            internal: false,
            masquerade: true,
            linked: true,
            ipv6: None,
        }
    }
}

impl BridgeConfig {
    /// Refuses what the kernel or nft would misunderstand.
    pub(crate) fn validate(&self) -> Result<()> {
        let name = &self.name;
        let lawful = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if name.is_empty()
            || name.len() > 15
            || !name.bytes().all(lawful)
            || !name.starts_with(|first: char| first.is_ascii_alphanumeric())
        {
            return Err(Error::InvalidArgument(format!(
                "invalid bridge name {name:?}: expected 1 to 15 letters, digits, '_', '-' or '.', beginning with a letter or digit"
            )));
        }
        if let Some(ipv6) = self.ipv6 {
            Ipam::new(ipv6.subnet, ipv6.gateway)?;
        }
        match self.mtu {
            // RFC 8200, 5.
            Some(mtu @ ..1280) if self.ipv6.is_some() => Err(Error::InvalidArgument(format!(
                "invalid MTU {mtu}: a network with IPv6 needs 1280 bytes at least"
            ))),
            Some(mtu) if !(68..=65535).contains(&mtu) => Err(Error::InvalidArgument(format!(
                "invalid MTU {mtu}: expected 68 to 65535 bytes"
            ))),
            _ => Ok(()),
        }
    }
}

/// A bridge that is there, up, and has its address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bridge {
    pub index: u32,
    pub subnet: Ipv4Subnet,
    pub gateway: Ipv4Addr,
    pub mtu: u32,
    /// Whether it was made now.
    pub is_new: bool,
}

/// Makes the bridge, or adopts the one of that name. If making fails half way, it is removed.
pub(crate) fn ensure(socket: &mut NetlinkSocket, config: &BridgeConfig) -> Result<Bridge> {
    config.validate()?;
    if let Some(existing) = link::find(socket, &config.name)? {
        return adopt(socket, config, &existing);
    }
    let subnet = match config.subnet {
        Some(subnet) => subnet,
        None => choose_subnet(socket, &config.candidates)?,
    };
    let gateway = checked_gateway(config, subnet)?;
    let create = link::create_bridge(&config.name, MacAddress::from_ipv4(gateway), config.mtu);
    socket.execute(vec![create])?;
    let made = link::find(socket, &config.name)?.ok_or_else(|| {
        Error::NotFound(format!("bridge {} vanished while it was made", config.name))
    })?;
    let bridge = Bridge {
        index: made.index,
        subnet,
        gateway,
        mtu: made.mtu,
        is_new: true,
    };
    configure(socket, config, bridge, true).inspect_err(|_| {
        if let Err(error) = socket.execute(vec![link::delete(made.index, &config.name)]) {
            tracing::warn!(%error, "a half made bridge could not be removed");
        }
    })?;
    Ok(bridge)
}

fn adopt(
    socket: &mut NetlinkSocket,
    config: &BridgeConfig,
    existing: &link::Link,
) -> Result<Bridge> {
    let name = &config.name;
    if !existing.is_bridge {
        return Err(Error::Conflict(format!(
            "interface {name} exists and is no bridge: choose another bridge name or remove it"
        )));
    }
    let present = inet::addresses(socket, Family::V4, existing.index)?
        .into_iter()
        .find_map(|(address, prefix)| match address {
            IpAddr::V4(address) => Some((address, prefix)),
            IpAddr::V6(_) => None,
        });
    let adopted = present
        .map(|(address, prefix)| Ok((Ipv4Subnet::containing(address, prefix)?, address)))
        .transpose()?;
    let (subnet, gateway) = match (adopted, config.subnet) {
        (Some((subnet, gateway)), wanted) => {
            if wanted.is_some_and(|wanted| wanted != subnet)
                || config.gateway.is_some_and(|wanted| wanted != gateway)
            {
                return Err(Error::Conflict(format!(
                    "bridge {name} exists with address {gateway} in {subnet}, which is not what the configuration asks: remove the bridge (ip link delete {name}) or drop the setting"
                )));
            }
            (subnet, gateway)
        }
        (None, Some(subnet)) => (subnet, checked_gateway(config, subnet)?),
        (None, None) => {
            let subnet = choose_subnet(socket, &config.candidates)?;
            (subnet, checked_gateway(config, subnet)?)
        }
    };
    let mtu = config.mtu.unwrap_or(existing.mtu);
    let bridge = Bridge {
        index: existing.index,
        subnet,
        gateway,
        mtu,
        is_new: false,
    };
    configure(socket, config, bridge, adopted.is_none())?;
    if existing.mtu != mtu {
        socket.execute(vec![link::set_mtu(existing.index, mtu)])?;
    }
    Ok(bridge)
}

fn configure(
    socket: &mut NetlinkSocket,
    config: &BridgeConfig,
    bridge: Bridge,
    needs_address: bool,
) -> Result<()> {
    let name = &config.name;
    match config.ipv6 {
        // Before it is up: otherwise it would get a link-local address first.
        None => sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?,
        Some(_) => {
            // A workload that plays the router is not believed.
            for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", "0")] {
                sysctl::write(&format!("ipv6/conf/{name}/{setting}"), value)?;
            }
        }
    }
    sysctl::ensure(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    let mut requests = vec![link::bring_up(bridge.index)];
    if needs_address {
        let prefix = bridge.subnet.prefix();
        requests.push(inet::add_address(
            bridge.index,
            bridge.gateway.into(),
            prefix,
        ));
    }
    requests.extend(
        config
            .ipv6
            .map(|ipv6| inet::add_address(bridge.index, ipv6.gateway.into(), ipv6.subnet.prefix())),
    );
    socket.execute(requests)
}

fn checked_gateway(config: &BridgeConfig, subnet: Ipv4Subnet) -> Result<Ipv4Addr> {
    let gateway = config.gateway.unwrap_or_else(|| subnet.first_host());
    Ipam::new(subnet, gateway)?;
    Ok(gateway)
}

/// The first of `candidates` that overlaps no route of the calling thread's namespace.
///
/// # Errors
/// `Conflict` if none is free; the kernel's otherwise.
pub fn free_subnet(candidates: &[Ipv4Subnet]) -> Result<Ipv4Subnet> {
    choose_subnet(&mut NetlinkSocket::route()?, candidates)
}

/// The first of `candidates` that overlaps no IPv6 route of the calling thread's namespace.
///
/// # Errors
/// `Conflict` if none is free; the kernel's otherwise.
pub fn free_subnet6(candidates: impl IntoIterator<Item = Ipv6Subnet>) -> Result<Ipv6Subnet> {
    let routed = inet::routed_subnets6(&mut NetlinkSocket::route()?)?;
    let mut candidates = candidates.into_iter();
    candidates
        .find(|candidate| !routed.iter().any(|route| route.overlaps(*candidate)))
        .ok_or_else(|| {
            Error::Conflict(
                "every IPv6 subnet to choose from overlaps a route of this host: configure a subnet that is free"
                    .to_owned(),
            )
        })
}

fn choose_subnet(socket: &mut NetlinkSocket, candidates: &[Ipv4Subnet]) -> Result<Ipv4Subnet> {
    let routed = inet::routed_subnets(socket, None)?;
    let free = |candidate: &&Ipv4Subnet| !routed.iter().any(|route| route.overlaps(**candidate));
    candidates.iter().find(free).copied().ok_or_else(|| {
        let list: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        Error::Conflict(format!(
            "every subnet to choose from ({}) overlaps a route of this host: configure a subnet that is free",
            list.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_mtu_are_checked() {
        let with = |name: &str, mtu| BridgeConfig {
            name: name.to_owned(),
            mtu,
            ..BridgeConfig::default()
        };
        assert!(with("gamut0", Some(1450)).validate().is_ok());
        for bad in ["", "a b", "sixteen-letters-", "..", "-x", "a/b", "a\"b"] {
            assert!(with(bad, None).validate().is_err(), "{bad}");
        }
        assert!(with("gamut0", Some(67)).validate().is_err());
        assert!(with("gamut0", Some(65536)).validate().is_err());
        let mut sixth = with("gamut0", Some(1279));
        sixth.ipv6 = Some(Ipv6Config {
            subnet: "fd00:1::/64".parse().unwrap(),
            gateway: "fd00:1::1".parse().unwrap(),
        });
        assert!(sixth.validate().is_err(), "smaller than IPv6 allows");
        sixth.mtu = Some(1280);
        assert!(sixth.validate().is_ok());
    }
}

//! A workload's place in a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use gamut_spec::id_map::IdMap;

use crate::address::MacAddress;
use crate::error::{Error, Result};
use crate::inet::{self, Family};
use crate::link;
use crate::namespace::NetworkNamespace;
use crate::netlink::NetlinkSocket;
use crate::network::Network;
use crate::shaping::{self, Bandwidth};
use crate::sysctl;

/// Name of a workload's first interface.
pub(crate) const INTERFACE_NAME: &str = "eth0";

/// What a workload's interface is to have.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Its address, leased by the caller.
    pub address: Ipv4Addr,
    /// Prefix length of its subnet.
    pub prefix: u8,
    /// The default route's gateway; none for a network without a way out.
    pub gateway: Option<Ipv4Addr>,
    /// Its hardware address; without one it follows from the address ([`MacAddress::from_ipv4`]).
    pub mac: Option<MacAddress>,
    /// Its IPv6 address, where the network has such.
    pub ipv6: Option<Ipv6Place>,
    /// Kernel settings: names below `/proc/sys/net`, and values. [`plug`] makes them, a prepared
    /// namespace does not.
    pub sysctls: Vec<(String, String)>,
    /// How much passes it.
    pub bandwidth: Bandwidth,
}

/// The IPv6 side of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Place {
    /// Its address, leased by the caller.
    pub address: Ipv6Addr,
    /// Prefix length of its subnet.
    pub prefix: u8,
    /// The default route's gateway; none for a network without a way out.
    pub gateway: Option<Ipv6Addr>,
}

impl EndpointConfig {
    /// An endpoint of `network` with `address`.
    #[must_use]
    pub fn new(network: &Network, address: Ipv4Addr) -> Self {
        Self {
            address,
            prefix: network.subnet().prefix(),
            gateway: Some(network.gateway()),
            mac: None,
            ipv6: None,
            sysctls: Vec::new(),
            bandwidth: Bandwidth::default(),
        }
    }
}

/// A connected workload's interface: the facts, for the record and for `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The bridge's interface name.
    pub network: String,
    /// Name on the host.
    pub host_interface: String,
    /// Interface index on the host.
    pub host_index: u32,
    /// Name inside the namespace.
    pub interface: String,
    /// Hardware address.
    pub mac: MacAddress,
    /// Address.
    pub address: Ipv4Addr,
    /// Prefix length of the subnet.
    pub prefix: u8,
    /// Gateway of the default route, if any.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address, if any.
    #[serde(default)]
    pub ipv6: Option<Ipv6Place>,
    /// Size of the largest packet in bytes.
    pub mtu: u32,
}

/// A namespace that is connected: hand it to the workload, keep the endpoint in the record.
#[derive(Debug)]
pub struct Connected {
    /// The namespace. The workload's interfaces vanish with its last descriptor and process.
    pub namespace: NetworkNamespace,
    /// What was set up in it.
    pub endpoint: Endpoint,
}

/// A namespace that is ready to be connected or used as it is. Dropped, it is gone.
#[derive(Debug)]
pub struct Prepared {
    namespace: NetworkNamespace,
    wire: Option<Wire>,
}

/// The veth pair into a prepared namespace.
#[derive(Debug)]
struct Wire {
    network: Network,
    /// Opened inside the namespace.
    socket: NetlinkSocket,
    /// Name inside the namespace.
    interface: String,
    index: u32,
    host_interface: String,
    host_index: u32,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.network.given_away(&self.host_interface);
    }
}

/// The range of every group that exists here: in a user namespace not all do.
fn every_group() -> String {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let last = IdMap::parse(&map).last_from_zero().unwrap_or(0);
    format!("0\t{}", last.min(i32::MAX.unsigned_abs()))
}

impl Prepared {
    /// Moves the calling thread into a new namespace and prepares that. The caller has to leave
    /// it or end.
    pub(crate) fn make_here(network: Option<&Network>) -> Result<Self> {
        Self::furnish(NetworkNamespace::unshare()?, network)
    }

    /// As [`Prepared::make_here`], in a user namespace of its own whose `count` ids from 0 on are
    /// those from `first` on here.
    pub(crate) fn make_for_ids(network: Option<&Network>, first: u32, count: u32) -> Result<Self> {
        let namespace = NetworkNamespace::owned_by(first, count)?;
        namespace.enter()?;
        Self::furnish(namespace, network)
    }

    /// Readies the namespace that the calling thread is in.
    fn furnish(namespace: NetworkNamespace, network: Option<&Network>) -> Result<Self> {
        // As every engine does: a container may ping and bind low ports without being root.
        sysctl::write_if_present("ipv4/ping_group_range", &every_group())?;
        sysctl::write_if_present("ipv4/ip_unprivileged_port_start", "0")?;
        let mut socket = NetlinkSocket::route()?;
        let loopback = link::find(&mut socket, "lo")?.ok_or_else(|| missing("lo"))?;
        socket.execute(vec![link::bring_up(loopback.index)])?;
        let wire = match network {
            Some(network) => Some(Wire::lay(network, &namespace, INTERFACE_NAME, socket)?),
            None => None,
        };
        Ok(Self { namespace, wire })
    }

    /// Gives the interface, which is up already, its addresses and the default route. On failure the namespace is gone.
    ///
    /// # Errors
    /// `InvalidArgument` for a group hardware address, `Conflict` if the namespace was prepared
    /// without an interface; the kernel's otherwise.
    pub fn connect(self, config: &EndpointConfig) -> Result<Connected> {
        let Self { namespace, wire } = self;
        let mut wire = wire.ok_or_else(|| {
            Error::Conflict(
                "this namespace has only a loopback interface: it cannot be connected".to_owned(),
            )
        })?;
        let endpoint = wire.configure(config)?;
        Ok(Connected {
            namespace,
            endpoint,
        })
    }

    /// The namespace as it is, for network `none`.
    #[must_use]
    pub fn into_namespace(self) -> NetworkNamespace {
        self.namespace
    }
}

impl AsFd for Prepared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

impl Wire {
    /// Lays a cable into `namespace`, in which the calling thread is, and brings it up.
    fn lay(
        network: &Network,
        namespace: &NetworkNamespace,
        interface: &str,
        socket: NetlinkSocket,
    ) -> Result<Self> {
        let host_interface = network.make_veth(namespace, interface)?;
        // From here on, dropping the wire strikes the interface off the list of prepared ones.
        let mut wire = Self {
            network: network.clone(),
            socket,
            interface: interface.to_owned(),
            index: 0,
            host_interface,
            host_index: 0,
        };
        let inner = link::find(&mut wire.socket, interface)?.ok_or_else(|| missing(interface))?;
        wire.index = inner.index;
        wire.host_index = inner.peer_index.unwrap_or_default();
        prepare_ipv6(interface, network.ipv6().is_some())?;
        wire.socket.execute(vec![link::bring_up(wire.index)])?;
        // The kernel opens the way some time after both ends are up; until then it drops packets.
        // Done here, a workload's first packet is never the victim.
        network.await_forwarding(&wire.host_interface)?;
        Ok(wire)
    }

    /// Gives the interface, which is up already, its addresses and the default route.
    fn configure(&mut self, config: &EndpointConfig) -> Result<Endpoint> {
        let mac = settle(&mut self.socket, self.index, config)?;
        if let Some(rate) = config.bandwidth.ingress_bits_per_second {
            self.network.limit(self.host_index, rate)?;
        }
        Ok(Endpoint {
            network: self.network.name().to_owned(),
            host_interface: self.host_interface.clone(),
            host_index: self.host_index,
            interface: self.interface.clone(),
            mac,
            address: config.address,
            prefix: config.prefix,
            gateway: config.gateway,
            ipv6: config.ipv6,
            mtu: self.network.mtu(),
        })
    }
}

/// Says whether an interface of the calling thread's namespace, which is down, has IPv6.
pub(crate) fn prepare_ipv6(interface: &str, has_ipv6: bool) -> Result<()> {
    if !has_ipv6 {
        // Without this the interface would announce a link-local address.
        return sysctl::write_if_present(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
    }
    // Its address and its route are the engine's to give, not a neighbour's.
    for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", "0")] {
        sysctl::write(&format!("ipv6/conf/{interface}/{setting}"), value)?;
    }
    Ok(())
}

/// Gives an interface, which is up already, its addresses, the default routes, and the limit of what
/// it sends.
pub(crate) fn settle(
    socket: &mut NetlinkSocket,
    index: u32,
    config: &EndpointConfig,
) -> Result<MacAddress> {
    let mac = config
        .mac
        .unwrap_or_else(|| MacAddress::from_ipv4(config.address));
    if !mac.is_unicast() {
        return Err(Error::InvalidArgument(format!(
            "MAC address {mac} is not that of a single host"
        )));
    }
    let mut requests = vec![
        link::set_mac(index, mac),
        inet::add_address(index, config.address.into(), config.prefix),
    ];
    requests.extend(
        config
            .ipv6
            .map(|ipv6| inet::add_address(index, ipv6.address.into(), ipv6.prefix)),
    );
    let gateways = [
        config.gateway.map(IpAddr::V4),
        config.ipv6.and_then(|ipv6| ipv6.gateway).map(IpAddr::V6),
    ];
    requests.extend(gateways.into_iter().flatten().map(inet::set_default_route));
    let egress = config.bandwidth.egress_bits_per_second;
    requests.extend(egress.map(|rate| shaping::limit(index, rate)));
    socket.execute(requests)?;
    Ok(mac)
}

/// Makes the kernel settings of an endpoint, in whose namespace the calling thread is.
pub(crate) fn apply_sysctls(config: &EndpointConfig) -> Result<()> {
    let mut settings = config.sysctls.iter();
    settings.try_for_each(|(name, value)| sysctl::write(name, value))
}

/// Connects a namespace, which may be a running workload's, by a further interface. On failure
/// there is no such interface.
///
/// # Errors
/// `InvalidArgument` for a group hardware address; the kernel's otherwise.
pub fn plug(
    namespace: &NetworkNamespace,
    network: &Network,
    interface: &str,
    config: &EndpointConfig,
) -> Result<Endpoint> {
    namespace.inside(|| {
        let socket = NetlinkSocket::route()?;
        let mut wire = Wire::lay(network, namespace, interface, socket)?;
        let configured = wire.configure(config).and_then(|endpoint| {
            apply_sysctls(config)?;
            Ok(endpoint)
        });
        if configured.is_err()
            && let Err(error) = network.detach(&wire.host_interface)
        {
            tracing::warn!(%error, "a half connected interface could not be removed");
        }
        configured
    })
}

/// Makes the default routes of a namespace lead by these gateways, or nowhere.
///
/// # Errors
/// The kernel's, if a gateway is in no subnet of the namespace for instance.
pub fn route_by(
    namespace: &NetworkNamespace,
    gateway: Option<Ipv4Addr>,
    gateway6: Option<Ipv6Addr>,
) -> Result<()> {
    let routes = [
        (Family::V4, gateway.map(IpAddr::V4)),
        (Family::V6, gateway6.map(IpAddr::V6)),
    ];
    namespace.inside(|| {
        let mut socket = NetlinkSocket::route()?;
        for (family, gateway) in routes {
            let request = gateway.map_or_else(
                || inet::delete_default_route(family),
                inet::set_default_route,
            );
            match socket.execute(vec![request]) {
                // There was none; or the kernel has no IPv6.
                Err(error)
                    if gateway.is_none()
                        && matches!(
                            error.errno(),
                            Some(libc::ESRCH | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
                        ) => {}
                other => other?,
            }
        }
        Ok(())
    })
}

/// Names of the interfaces of a namespace.
///
/// # Errors
/// The kernel's.
pub fn interfaces(namespace: &NetworkNamespace) -> Result<Vec<String>> {
    namespace.inside(|| {
        let links = link::list(&mut NetlinkSocket::route()?)?;
        Ok(links.into_iter().map(|link| link.name).collect())
    })
}

fn missing(interface: &str) -> Error {
    Error::NotFound(format!(
        "interface {interface} is missing in a namespace that was just made"
    ))
}

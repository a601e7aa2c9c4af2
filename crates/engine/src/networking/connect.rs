//! Networks of containers about to start, and interfaces of running ones.

use super::live::Live;
use super::record::OPTION_HOST_ADDRESS;
use super::{Connection, Networking, bandwidth, failed, options, ports};
use crate::container::record::{ContainerRecord, Lease};
use crate::container::spec::{EndpointSpec, NetworkMode};
use crate::error::{Error, Result};
use gamut_isolation::contract::Endpoint;
use gamut_network::{
    EndpointConfig, Ipv6Place, MacAddress, NamespacePool, NetworkNamespace, Prepared, Target,
};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

impl Networking {
    /// Gives a container about to start its networks.
    ///
    /// # Errors
    /// If a network is gone, no address or port is free, or the kernel says no. Nothing is held
    /// then.
    pub fn connect(&self, record: &ContainerRecord, joined: Option<&str>) -> Result<Connection> {
        let endpoint = match &record.spec.network {
            NetworkMode::Host => Endpoint::Host,
            NetworkMode::Container(_) => Endpoint::Workload(joined.unwrap_or_default().to_owned()),
            NetworkMode::None => {
                let prepared = take(&self.loopback_pool, record)?;
                Endpoint::Namespace(duplicate(prepared.into_namespace().as_fd())?)
            }
            NetworkMode::Bridge | NetworkMode::Network(_) => return self.connect_bridges(record),
        };
        Ok(Connection {
            endpoint,
            leases: Vec::new(),
        })
    }

    fn connect_bridges(&self, record: &ContainerRecord) -> Result<Connection> {
        let endpoints = record.endpoints();
        let mut wanted = Vec::new();
        for endpoint in &endpoints {
            wanted.push((self.network_of(endpoint)?, endpoint));
        }
        let way_out = WaysOut::of(&wanted);
        let mut leases = Vec::new();
        let connected = self.connect_all(record, &wanted, way_out, &mut leases);
        match connected {
            Ok(namespace) => Ok(Connection {
                endpoint: Endpoint::Namespace(namespace),
                leases,
            }),
            Err(error) => {
                self.unpublish(&record.id);
                self.release(&record.id, &leases);
                Err(error)
            }
        }
    }

    /// Leases go into `leases` as soon as they are held.
    fn connect_all(
        &self,
        record: &ContainerRecord,
        wanted: &[(Arc<Live>, &EndpointSpec)],
        way_out: WaysOut,
        leases: &mut Vec<Lease>,
    ) -> Result<OwnedFd> {
        let plain = Wanted {
            interface: "eth0",
            is_way_out: way_out.by(0),
            annotations: &record.spec.annotations,
        };
        let is_default = |(live, _): &(Arc<Live>, _)| live.record.id == self.default.record.id;
        let namespace = match wanted {
            // Prepared with its cable: the fast path.
            [only] if is_default(only) && only.1.driver_options.is_empty() => {
                let config = self.lease(only, plain, leases)?;
                let prepared = take(&self.pool, record)?;
                let connected = prepared.connect(&config).map_err(|error| failed(&error))?;
                note(leases, &connected.endpoint);
                add_link_local(&connected.namespace, "eth0", only.1)?;
                connected.namespace
            }
            _ => {
                let namespace = take(&self.loopback_pool, record)?.into_namespace();
                for (number, one) in wanted.iter().enumerate() {
                    let interface = options::interface_name(
                        &one.0.record.options,
                        &one.1.driver_options,
                        number,
                    );
                    self.plug(
                        &namespace,
                        one,
                        Wanted {
                            interface: &interface,
                            is_way_out: way_out.by(number),
                            ..plain
                        },
                        leases,
                    )?;
                }
                namespace
            }
        };
        if let Some((live, _)) = way_out.port_network().and_then(|index| wanted.get(index)) {
            let mappings = ports::mappings(record, default_address(live));
            self.publish_to(&record.id, leases, way_out, &mappings)?;
        }
        duplicate(namespace.as_fd())
    }

    /// Connects a namespace to one network by an interface of this name. The lease is the last of
    /// `leases`, also after an error that comes later than the lease.
    pub(super) fn plug(
        &self,
        namespace: &NetworkNamespace,
        wanted: &(Arc<Live>, &EndpointSpec),
        interface: Wanted<'_>,
        leases: &mut Vec<Lease>,
    ) -> Result<()> {
        let endpoint = if let Some(macvlan) = wanted.0.macvlan() {
            let config = self.lease(wanted, interface, leases)?;
            gamut_network::plug_macvlan(namespace, macvlan, interface.interface, &config)
        } else {
            let bridge = wanted.0.bridge()?;
            let config = self.lease(wanted, interface, leases)?;
            gamut_network::plug(namespace, &bridge, interface.interface, &config)
        };
        note(leases, &endpoint.map_err(|error| failed(&error))?);
        add_link_local(namespace, interface.interface, wanted.1)
    }

    /// Leases an address for an endpoint.
    fn lease(
        &self,
        (live, endpoint): &(Arc<Live>, &EndpointSpec),
        Wanted {
            interface,
            is_way_out,
            annotations,
        }: Wanted<'_>,
        leases: &mut Vec<Lease>,
    ) -> Result<EndpointConfig> {
        let preferred = v4(endpoint.address)?;
        let mac = endpoint
            .mac_address
            .as_deref()
            .map(MacAddress::from_str)
            .transpose()
            .map_err(|error| failed(&error))?;
        let (address, ipv6) = live.lease(preferred, endpoint.address6)?;
        let prefix = live
            .record
            .addresses
            .as_ref()
            .map_or(0, |addresses| addresses.subnet.prefix());
        let gateway = live.gateway();
        leases.push(Lease {
            network_id: live.record.id.clone(),
            interface: interface.to_owned(),
            address,
            prefix,
            gateway,
            mac: String::new(),
            host_interface: String::new(),
            ports: Vec::new(),
            ipv6,
        });
        Ok(EndpointConfig {
            address,
            prefix,
            gateway: gateway.filter(|_| is_way_out.fourth),
            sysctls: options::sysctls(&endpoint.driver_options, interface)?,
            bandwidth: bandwidth::of(&endpoint.driver_options, &live.record.options, annotations)?,
            mac,
            ipv6: ipv6.map(|place| Ipv6Place {
                gateway: place.gateway.filter(|_| is_way_out.sixth),
                ..place
            }),
        })
    }

    /// Publishes ports of a container, noted in the lease of the network that each leads by.
    pub(super) fn publish_to(
        &self,
        id: &str,
        leases: &mut [Lease],
        ways_out: WaysOut,
        mappings: &[gamut_network::PortMapping],
    ) -> Result<()> {
        if mappings.is_empty() || ways_out.port_network().is_none() {
            return Ok(());
        }
        let published = self.publish(id, ways_out.target(leases), mappings)?;
        for (index, is_sixth) in [(ways_out.ports.0, false), (ways_out.ports.1, true)] {
            let Some(lease) = index.and_then(|index| leases.get_mut(index)) else {
                continue;
            };
            let of_family = published
                .iter()
                .filter(|port| port.host_ip.is_ipv6() == is_sixth);
            lease.ports.extend(of_family.map(ports::from_published));
        }
        Ok(())
    }

    /// The network that an endpoint is to be on.
    pub(super) fn network_of(&self, endpoint: &EndpointSpec) -> Result<Arc<Live>> {
        self.live(&endpoint.network_id).ok_or_else(|| {
            let id = if endpoint.network_id.is_empty() {
                &endpoint.network
            } else {
                &endpoint.network_id
            };
            Error::new(ErrorKind::NotFound, format!("network {id} not found"))
        })
    }
}

/// What an interface is to be, beside what its endpoint and network say.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Its name.
    pub interface: &'a str,
    pub is_way_out: WayOut,
    /// Those of the container.
    pub annotations: &'a BTreeMap<String, String>,
}

/// Whether an interface has the default routes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WayOut {
    pub fourth: bool,
    pub sixth: bool,
}

/// Which of the networks of a container has its default route, for each family: that of the
/// highest priority, then the first by name; an internal one never.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaysOut {
    pub fourth: Option<usize>,
    pub sixth: Option<usize>,
    /// Those of them to which ports of the host can be led.
    ports: (Option<usize>, Option<usize>),
}

impl WaysOut {
    /// Those among networks, by their position.
    pub fn of(networks: &[(Arc<Live>, &EndpointSpec)]) -> Self {
        let best = |leads: fn(&Live) -> bool| {
            networks
                .iter()
                .enumerate()
                .filter(|(_, (live, _))| leads(live))
                .min_by_key(|(_, (live, endpoint))| {
                    (
                        std::cmp::Reverse(endpoint.gateway_priority),
                        live.record.name.clone(),
                    )
                })
                .map(|(index, _)| index)
        };
        let fourth = best(|live| live.gateway().is_some());
        let sixth = best(|live| live.gateway6().is_some());
        let led = |index: Option<usize>| {
            let network = |index| networks.get(index);
            index.filter(|index| network(*index).is_some_and(|(live, _)| live.macvlan().is_none()))
        };
        Self {
            fourth,
            sixth,
            ports: (led(fourth), led(sixth)),
        }
    }

    /// Which of them a network is.
    pub fn by(self, index: usize) -> WayOut {
        WayOut {
            fourth: self.fourth == Some(index),
            sixth: self.sixth == Some(index),
        }
    }

    /// The network whose options say where ports are published.
    pub fn port_network(self) -> Option<usize> {
        self.ports.0.or(self.ports.1)
    }

    /// Where ports of a container with these leases lead.
    pub fn target(self, leases: &[Lease]) -> Target {
        let lease = |index: Option<usize>| index.and_then(|index| leases.get(index));
        Target {
            ipv4: lease(self.ports.0).map(|lease| lease.address),
            ipv6: lease(self.ports.1).and_then(|lease| Some(lease.ipv6?.address)),
        }
    }
}

/// Address of the host on which a network's ports are published that name none.
pub(super) fn default_address(live: &Live) -> Option<IpAddr> {
    live.record
        .options
        .get(OPTION_HOST_ADDRESS)
        .and_then(|text| text.parse().ok())
        .filter(|address: &IpAddr| !address.is_unspecified())
}

/// A fixed address of IPv4; the one of IPv6 stands in a field of its own.
pub(super) fn v4(address: Option<IpAddr>) -> Result<Option<Ipv4Addr>> {
    match address {
        None => Ok(None),
        Some(IpAddr::V4(address)) => Ok(Some(address)),
        Some(IpAddr::V6(address)) => Err(Error::invalid(format!("invalid IPv4 address {address}"))),
    }
}

fn add_link_local(
    namespace: &NetworkNamespace,
    interface: &str,
    endpoint: &EndpointSpec,
) -> Result<()> {
    gamut_network::add_link_local(namespace, interface, &endpoint.link_local)
        .map_err(|error| failed(&error))
}

/// Completes the last lease by what was set up for it.
fn note(leases: &mut [Lease], endpoint: &gamut_network::Endpoint) {
    if let Some(lease) = leases.last_mut() {
        lease.mac = endpoint.mac.to_string();
        lease.host_interface.clone_from(&endpoint.host_interface);
    }
}

/// A namespace for a container: from the pool, or for ids of its own made now.
fn take(pool: &NamespacePool, record: &ContainerRecord) -> Result<Prepared> {
    let taken = match record.ids {
        None => pool.take(),
        Some(ids) => pool.make_for_ids(ids.first, ids.count),
    };
    taken.map_err(|error| failed(&error))
}

fn duplicate(descriptor: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd> {
    descriptor
        .try_clone_to_owned()
        .map_err(|source| Error::system("keep the network namespace", source))
}

//! Networks of containers about to start, and interfaces of running ones.

use super::live::Live;
use super::record::OPTION_HOST_ADDRESS;
use super::{Connection, Networking, failed, ports};
use crate::container::record::{ContainerRecord, Lease};
use crate::container::spec::{EndpointSpec, NetworkMode};
use crate::error::{Error, Result};
use gamut_isolation::contract::Endpoint;
use gamut_network::{EndpointConfig, MacAddress, NamespacePool, NetworkNamespace, Prepared};
use gamut_spec::error::ErrorKind;
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
        let way_out = gateway(wanted.iter().map(|(live, endpoint)| (&**live, *endpoint)));
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
        way_out: Option<usize>,
        leases: &mut Vec<Lease>,
    ) -> Result<OwnedFd> {
        let is_default = |(live, _): &(Arc<Live>, _)| live.record.id == self.default.record.id;
        let namespace = match wanted {
            // Prepared with its cable: the fast path.
            [only] if is_default(only) => {
                let config = self.lease(only, "eth0", way_out.is_some(), leases)?;
                let prepared = take(&self.pool, record)?;
                let connected = prepared.connect(&config).map_err(|error| failed(&error))?;
                note(leases, &connected.endpoint);
                add_link_local(&connected.namespace, "eth0", only.1)?;
                connected.namespace
            }
            _ => {
                let namespace = take(&self.loopback_pool, record)?.into_namespace();
                for (number, one) in wanted.iter().enumerate() {
                    let interface = format!("eth{number}");
                    self.plug(&namespace, one, &interface, way_out == Some(number), leases)?;
                }
                namespace
            }
        };
        if let Some((index, (live, _))) =
            way_out.and_then(|index| Some((index, wanted.get(index)?)))
            && let Some(lease) = leases.get_mut(index)
        {
            let mappings = ports::mappings(record, default_address(live));
            if !mappings.is_empty() {
                let published = self.publish(&record.id, lease.address, &mappings)?;
                lease.ports = published.iter().map(ports::from_published).collect();
            }
        }
        duplicate(namespace.as_fd())
    }

    /// Connects a namespace to one network by an interface of this name. The lease is the last of
    /// `leases`, also after an error that comes later than the lease.
    pub(super) fn plug(
        &self,
        namespace: &NetworkNamespace,
        wanted: &(Arc<Live>, &EndpointSpec),
        interface: &str,
        is_way_out: bool,
        leases: &mut Vec<Lease>,
    ) -> Result<()> {
        let bridge = wanted.0.bridge()?;
        let config = self.lease(wanted, interface, is_way_out, leases)?;
        let endpoint = gamut_network::plug(namespace, &bridge, interface, &config)
            .map_err(|error| failed(&error))?;
        note(leases, &endpoint);
        add_link_local(namespace, interface, wanted.1)
    }

    /// Leases an address for an endpoint.
    fn lease(
        &self,
        (live, endpoint): &(Arc<Live>, &EndpointSpec),
        interface: &str,
        is_way_out: bool,
        leases: &mut Vec<Lease>,
    ) -> Result<EndpointConfig> {
        let preferred = v4(endpoint.address)?;
        let mac = endpoint
            .mac_address
            .as_deref()
            .map(MacAddress::from_str)
            .transpose()
            .map_err(|error| failed(&error))?;
        let address = live.lease(preferred)?;
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
        });
        Ok(EndpointConfig {
            address,
            prefix,
            gateway: gateway.filter(|_| is_way_out),
            mac,
        })
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

/// Which of the networks of a container has its default route: that of the highest priority, then
/// the first by name; an internal one never.
pub(super) fn gateway<'a>(
    networks: impl Iterator<Item = (&'a Live, &'a EndpointSpec)>,
) -> Option<usize> {
    networks
        .enumerate()
        .filter(|(_, (live, _))| live.gateway().is_some())
        .min_by_key(|(_, (live, endpoint))| {
            (
                std::cmp::Reverse(endpoint.gateway_priority),
                live.record.name.clone(),
            )
        })
        .map(|(index, _)| index)
}

/// Address of the host on which a network's ports are published that name none.
pub(super) fn default_address(live: &Live) -> Option<IpAddr> {
    live.record
        .options
        .get(OPTION_HOST_ADDRESS)
        .and_then(|text| text.parse().ok())
        .filter(|address: &IpAddr| !address.is_unspecified())
}

pub(super) fn v4(address: Option<IpAddr>) -> Result<Option<Ipv4Addr>> {
    match address {
        None => Ok(None),
        Some(IpAddr::V4(address)) => Ok(Some(address)),
        Some(IpAddr::V6(address)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("the address {address}: IPv6 is not supported yet"),
        )),
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

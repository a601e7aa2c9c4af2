//! The default bridge: address leases, prepared namespaces and published ports.

use crate::container::record::{ContainerRecord, Lease};
use crate::container::spec::{NetworkMode, Port, Protocol, PublishedPort};
use crate::error::{Error, Result};
use crate::host_ports::HostPorts;
use crate::options::Options;
use crate::system::fsck::Finding;
use gamut_isolation::contract::Endpoint;
use gamut_network::{
    BridgeConfig, EndpointConfig, Ipam, MacAddress, NamespacePool, Network, PortMapping, Ports,
    Prepared, Publication, Published,
};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many times a port is chosen that may turn out to be taken on the host.
const CHOICES: u32 = 32;

/// The engine's networks.
#[derive(Debug)]
pub struct Networking {
    network: Network,
    ipam: Ipam,
    ports: Ports,
    /// Set where the network is not the host's.
    host_ports: Option<HostPorts>,
    pool: NamespacePool,
    loopback_pool: NamespacePool,
    /// Held shared while a lease is on its way into a record or out of it.
    moving: RwLock<()>,
}

/// A container's network, ready to be handed to its sandbox.
#[derive(Debug)]
pub struct Connection {
    /// For the sandbox.
    pub endpoint: Endpoint,
    /// For the record; `None` where the bridge is not involved.
    pub lease: Option<Lease>,
}

fn failed(error: &gamut_network::Error) -> Error {
    Error::new(error.kind(), gamut_spec::error::chain(error))
}

impl Networking {
    /// Makes or adopts the default bridge and starts the pools.
    ///
    /// # Errors
    /// If the bridge or the firewall table cannot be had.
    pub fn open(options: &Options) -> Result<Self> {
        let subnet = options
            .subnet
            .as_deref()
            .map(gamut_network::Ipv4Subnet::from_str)
            .transpose()
            .map_err(|error| failed(&error))?;
        let config = BridgeConfig {
            name: options.bridge.clone(),
            subnet,
            table: options.bridge.clone(),
            ..BridgeConfig::default()
        };
        let network = Network::ensure(&config).map_err(|error| failed(&error))?;
        let ipam =
            Ipam::new(network.subnet(), network.gateway()).map_err(|error| failed(&error))?;
        let pool =
            NamespacePool::new(&network, options.pool_size).map_err(|error| failed(&error))?;
        let loopback_pool = NamespacePool::loopback_only(options.pool_size.min(1))
            .map_err(|error| failed(&error))?;
        let is_rootless = options.rootless.is_some();
        Ok(Self {
            ports: if is_rootless {
                Ports::inside(&network)
            } else {
                Ports::new(&network)
            },
            host_ports: is_rootless.then(|| HostPorts::new(&options.run_root)),
            network,
            ipam,
            pool,
            loopback_pool,
            moving: RwLock::default(),
        })
    }

    /// The bridge.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The published ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Gives a container about to start its network.
    ///
    /// # Errors
    /// If no address or port is free, or the kernel says no. Nothing is held then.
    pub fn connect(&self, record: &ContainerRecord, joined: Option<&str>) -> Result<Connection> {
        let endpoint = match &record.spec.network {
            NetworkMode::Host => Endpoint::Host,
            NetworkMode::Container(_) => Endpoint::Workload(joined.unwrap_or_default().to_owned()),
            NetworkMode::None => {
                let prepared = take(&self.loopback_pool, record)?;
                Endpoint::Namespace(duplicate(prepared.into_namespace().as_fd())?)
            }
            NetworkMode::Bridge => return self.connect_bridge(record),
        };
        Ok(Connection {
            endpoint,
            lease: None,
        })
    }

    fn connect_bridge(&self, record: &ContainerRecord) -> Result<Connection> {
        let preferred = match record.spec.address {
            None => None,
            Some(IpAddr::V4(address)) => Some(address),
            Some(IpAddr::V6(address)) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the address {address}: IPv6 is not supported yet on the default bridge"
                    ),
                ));
            }
        };
        let mac = record
            .spec
            .mac_address
            .as_deref()
            .map(MacAddress::from_str)
            .transpose()
            .map_err(|error| failed(&error))?;
        let address = self
            .ipam
            .allocate(preferred)
            .map_err(|error| failed(&error))?;
        self.connect_address(record, address, mac).inspect_err(|_| {
            self.unpublish(&record.id);
            self.ipam.release(address);
        })
    }

    fn connect_address(
        &self,
        record: &ContainerRecord,
        address: Ipv4Addr,
        mac: Option<MacAddress>,
    ) -> Result<Connection> {
        let prepared = take(&self.pool, record)?;
        let mut config = EndpointConfig::new(&self.network, address);
        config.mac = mac;
        let connected = prepared.connect(&config).map_err(|error| failed(&error))?;
        let mappings = mappings(record)?;
        let published = if mappings.is_empty() {
            Vec::new()
        } else {
            self.publish(&record.id, address, &mappings)?
        };
        let lease = Lease {
            address,
            prefix: connected.endpoint.prefix,
            gateway: self.network.gateway(),
            mac: connected.endpoint.mac.to_string(),
            host_interface: connected.endpoint.host_interface.clone(),
            ports: published.iter().map(from_published).collect(),
        };
        let descriptor = duplicate(connected.namespace.as_fd())?;
        Ok(Connection {
            endpoint: Endpoint::Namespace(descriptor),
            lease: Some(lease),
        })
    }

    fn publish(
        &self,
        id: &str,
        address: Ipv4Addr,
        mappings: &[PortMapping],
    ) -> Result<Vec<Published>> {
        let has_choice = mappings.iter().any(|mapping| mapping.host_port == 0);
        let mut attempts = if has_choice { CHOICES } else { 1 };
        loop {
            let published = self
                .ports
                .publish(id, address, mappings)
                .map_err(|error| failed(&error))?;
            let Some(host_ports) = &self.host_ports else {
                return Ok(published);
            };
            attempts -= 1;
            match host_ports.publish(id, address, &published) {
                Ok(()) => return Ok(published),
                // A port that was chosen here may be taken on the host: choose another.
                Err(error) if error.kind() == ErrorKind::Conflict && attempts > 0 => {
                    self.unpublish(id);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn unpublish(&self, id: &str) {
        if let Some(host_ports) = &self.host_ports {
            host_ports.unpublish(id);
        }
        if let Err(error) = self.ports.unpublish(id) {
            tracing::warn!(container = id, error = %gamut_spec::error::chain(&error), "cannot take back published ports");
        }
    }

    /// To be held from before a lease changes hands until the record says so: meanwhile no check
    /// takes what it holds for stale. Never taken twice by one thread.
    pub fn moving(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until records and leases agree, and keeps it so.
    pub fn hold_still(&self) -> RwLockWriteGuard<'_, ()> {
        self.moving.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what a container held. Its namespace goes with its last process.
    pub fn release(&self, id: &str, lease: &Lease) {
        if !lease.ports.is_empty() {
            self.unpublish(id);
        }
        self.ipam.release(lease.address);
    }

    /// Checks bridge, firewall and publications; with `repair`, puts them right.
    pub fn check(
        &self,
        interfaces: &BTreeSet<String>,
        ids: &BTreeSet<String>,
        repair: bool,
    ) -> Vec<Finding> {
        let outcomes = if repair {
            [
                self.network.reconcile(interfaces),
                self.ports.reconcile(ids),
            ]
        } else {
            [self.network.check(interfaces), self.ports.check(ids)]
        };
        let mut findings = Vec::new();
        if let (true, Some(host_ports)) = (repair, &self.host_ports) {
            let outcome = host_ports.reconcile(ids);
            let problems = outcome.unwrap_or_else(|error| vec![error.full_message()]);
            findings.extend(problems.into_iter().map(|problem| Finding {
                object: "network".to_owned(),
                problem,
                repaired: false,
            }));
        }
        for outcome in outcomes {
            match outcome {
                Ok(found) => findings.extend(found.into_iter().map(|finding| Finding {
                    object: "network".to_owned(),
                    problem: finding.to_string(),
                    repaired: repair,
                })),
                Err(error) => findings.push(Finding {
                    object: "network".to_owned(),
                    problem: gamut_spec::error::chain(&error),
                    repaired: false,
                }),
            }
        }
        findings
    }

    /// Takes over what containers of an earlier daemon hold, and removes what nobody holds.
    pub fn restore(&self, live: &[(String, Lease)]) {
        let mut interfaces = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut publications = Vec::new();
        for (id, lease) in live {
            if let Err(error) = self.ipam.reserve(lease.address) {
                tracing::warn!(container = %id, error = %gamut_spec::error::chain(&error), "cannot keep the address of a running container");
            }
            interfaces.insert(lease.host_interface.clone());
            ids.insert(id.clone());
            if !lease.ports.is_empty() {
                publications.push(Publication {
                    container_id: id.clone(),
                    address: lease.address,
                    ports: lease.ports.iter().filter_map(to_published).collect(),
                });
            }
        }
        if let Some(host_ports) = &self.host_ports {
            host_ports.restore(publications.iter().map(|publication| {
                (
                    publication.container_id.as_str(),
                    publication.address,
                    publication.ports.clone(),
                )
            }));
        }
        let restored = self.ports.restore(&publications);
        let reconciled = self.network.reconcile(&interfaces);
        for outcome in [restored, reconciled] {
            match outcome {
                Ok(findings) => {
                    for finding in findings {
                        tracing::warn!(%finding, "network put right");
                    }
                }
                Err(error) => {
                    tracing::error!(error = %gamut_spec::error::chain(&error), "cannot put the network right");
                }
            }
        }
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

/// The ports to publish: those named, and with `publish_all` every exposed one not named.
fn mappings(record: &ContainerRecord) -> Result<Vec<PortMapping>> {
    let spec = &record.spec;
    let mut list = Vec::new();
    for published in &spec.published_ports {
        list.push(PortMapping {
            host_ip: published.host_address,
            host_port: published.host_port,
            container_port: published.container.number,
            protocol: protocol(published.container.protocol),
        });
    }
    if spec.publish_all {
        for port in &spec.exposed_ports {
            if !spec
                .published_ports
                .iter()
                .any(|published| published.container == *port)
            {
                list.push(PortMapping {
                    host_ip: None,
                    host_port: 0,
                    container_port: port.number,
                    protocol: protocol(port.protocol),
                });
            }
        }
    }
    Ok(list)
}

fn protocol(protocol: Protocol) -> gamut_network::Protocol {
    match protocol {
        Protocol::Tcp => gamut_network::Protocol::Tcp,
        Protocol::Udp => gamut_network::Protocol::Udp,
        Protocol::Sctp => gamut_network::Protocol::Sctp,
    }
}

fn from_published(published: &Published) -> PublishedPort {
    let protocol = match published.protocol {
        gamut_network::Protocol::Tcp => Protocol::Tcp,
        gamut_network::Protocol::Udp => Protocol::Udp,
        gamut_network::Protocol::Sctp => Protocol::Sctp,
    };
    PublishedPort {
        container: Port {
            number: published.container_port,
            protocol,
        },
        host_address: Some(IpAddr::V4(published.host_ip)),
        host_port: published.host_port,
    }
}

fn to_published(port: &PublishedPort) -> Option<Published> {
    let host_ip = match port.host_address {
        Some(IpAddr::V4(address)) => address,
        None => Ipv4Addr::UNSPECIFIED,
        Some(IpAddr::V6(_)) => return None,
    };
    Some(Published {
        host_ip,
        host_port: port.host_port,
        container_port: port.container.number,
        protocol: protocol(port.container.protocol),
    })
}

//! Networks: address leases, prepared namespaces, interfaces and published ports.
//!
//! [`record`] is what a network is, [`verbs`] makes and removes networks, [`attach`] connects
//! running and stopped containers, [`connect`] those about to start, and [`firewall`] brings back rules that somebody flushed.

mod addresses;
pub mod attach;
pub(crate) mod bandwidth;
mod connect;
mod firewall;
mod live;
pub mod names;
mod options;
mod pools;
mod ports;
pub mod record;
mod registry;
pub mod verbs;

use crate::container::record::{ContainerRecord, Lease};
use crate::error::{Error, Result};
use crate::host_ports::HostPorts;
use crate::options::Options;
use crate::store::{Collection, Damaged};
use crate::system::fsck::Finding;
use gamut_isolation::contract::Endpoint;
use gamut_network::{
    BridgeConfig, NamespacePool, Network, PortMapping, Ports, Publication, Published, Target,
};
use gamut_spec::error::ErrorKind;
use live::Live;
use record::{Addresses, BRIDGE, NetworkRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How many times a port is chosen that may turn out to be taken on the host.
const CHOICES: u32 = 32;

/// The engine's networks.
#[derive(Debug)]
pub struct Networking {
    /// The default network.
    default: Arc<Live>,
    network: Network,
    /// User-defined networks by id.
    networks: RwLock<BTreeMap<String, Arc<Live>>>,
    /// Held while a network is made.
    making: Mutex<()>,
    store: Collection,
    table: String,
    /// Tells this engine's own IPv6 addresses from those of others.
    ula_seed: String,
    started_ns: u64,
    ports: Ports,
    /// The names of containers on user-defined networks.
    resolver: gamut_dns::Resolver,
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
    /// For the record, in the order of the interfaces; none where no bridge is involved.
    pub leases: Vec<Lease>,
}

fn failed(error: &gamut_network::Error) -> Error {
    Error::new(error.kind(), gamut_spec::error::chain(error))
}

impl Networking {
    /// Makes or adopts the bridges of all networks and starts the pools. `id` is the engine's own.
    ///
    /// # Errors
    /// If the default bridge or the firewall table cannot be had.
    pub fn open(options: &Options, state_root: &Path, id: &str) -> Result<(Self, Vec<Damaged>)> {
        let subnet = options
            .subnet
            .as_deref()
            .map(gamut_network::Ipv4Subnet::from_str)
            .transpose()
            .map_err(|error| failed(&error))?;
        let table = options.bridge.clone();
        let store = Collection::open(state_root, "network", record::RECORD_VERSION)?;
        store.sweep()?;
        let (records, damaged) = store.load::<NetworkRecord>()?;
        let mut config = BridgeConfig {
            name: options.bridge.clone(),
            subnet,
            table: table.clone(),
            ..BridgeConfig::default()
        };
        // Networks on record may not be in force yet: after a reboot the default one comes first.
        config.candidates.retain(|candidate| {
            let taken = |(_, record): &(String, NetworkRecord)| {
                let addresses = record.addresses.as_ref();
                addresses.is_some_and(|addresses| addresses.subnet.overlaps(*candidate))
            };
            !records.iter().any(taken)
        });
        let network = Network::ensure(&config).map_err(|error| failed(&error))?;
        let started_ns = gamut_spec::time::now_ns();
        let mut default = NetworkRecord::predefined(BRIDGE, started_ns);
        default.bridge.clone_from(&options.bridge);
        default.addresses = Some(Addresses {
            subnet: network.subnet(),
            gateway: network.gateway(),
            range: None,
            auxiliary: BTreeMap::new(),
            is_configured: true,
        });
        default.options = registry::default_options(&network);
        let default = Arc::new(Live::with_bridge(default, &table, network.clone())?);
        let pool =
            NamespacePool::new(&network, options.pool_size).map_err(|error| failed(&error))?;
        let loopback_pool = NamespacePool::loopback_only(options.pool_size.min(1))
            .map_err(|error| failed(&error))?;
        let is_rootless = options.rootless.is_some();
        let networking = Self {
            ports: if is_rootless {
                Ports::inside(&network)
            } else {
                Ports::new(&network)
            }
            .map_err(|error| failed(&error))?,
            host_ports: is_rootless.then(|| HostPorts::new(&options.run_root)),
            resolver: gamut_dns::Resolver::open(&options.run_root, &options.resolver)
                .map_err(|error| names::failed(&error))?,
            default,
            network,
            networks: RwLock::default(),
            making: Mutex::default(),
            store,
            table,
            ula_seed: id.to_owned(),
            started_ns,
            pool,
            loopback_pool,
            moving: RwLock::default(),
        };
        networking.take_up(records);
        Ok((networking, damaged))
    }

    /// Puts networks on record in force. One that cannot be had now is tried again when a
    /// container needs it.
    fn take_up(&self, records: Vec<(String, NetworkRecord)>) {
        for (id, record) in records {
            let name = record.name.clone();
            let live = match Live::new(record, &self.table) {
                Ok(live) => live,
                Err(error) => {
                    tracing::error!(network = name, error = %error.full_message(), "a network on record makes no sense");
                    continue;
                }
            };
            if let Err(error) = live.put_in_force() {
                tracing::error!(network = name, error = %error.full_message(), "a network cannot be had now");
            }
            self.write().insert(id, Arc::new(live));
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Live>>> {
        self.networks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<Live>>> {
        self.networks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The network with this id that has addresses.
    fn live(&self, id: &str) -> Option<Arc<Live>> {
        if id == self.default.record.id {
            return Some(Arc::clone(&self.default));
        }
        self.read().get(id).cloned()
    }

    /// All networks that have a bridge.
    fn all_bridged(&self) -> Vec<Arc<Live>> {
        let mut all = vec![Arc::clone(&self.default)];
        let known = self.read();
        let bridged = known.values().filter(|live| live.macvlan().is_none());
        all.extend(bridged.cloned());
        all
    }

    /// The published ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where network records are kept.
    #[must_use]
    pub fn store(&self) -> &Collection {
        &self.store
    }

    /// The default network's own address, by which every container reaches the host.
    #[must_use]
    pub fn host_gateway(&self) -> Ipv4Addr {
        self.network.gateway()
    }

    fn publish(
        &self,
        id: &str,
        target: Target,
        mappings: &[PortMapping],
    ) -> Result<Vec<Published>> {
        let has_choice = mappings
            .iter()
            .any(|mapping| mapping.host_port == 0 || mapping.host_port_last > 0);
        let mut attempts = if has_choice { CHOICES } else { 1 };
        loop {
            let published = self
                .ports
                .publish(id, target, mappings)
                .map_err(|error| failed(&error))?;
            let Some(host_ports) = &self.host_ports else {
                return Ok(published);
            };
            attempts -= 1;
            match host_ports.publish(id, target, &published) {
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
    pub fn release(&self, id: &str, leases: &[Lease]) {
        if leases.iter().any(|lease| !lease.ports.is_empty()) {
            self.unpublish(id);
        }
        if let Err(error) = self.resolver.withdraw(id) {
            tracing::warn!(container = id, error = %gamut_spec::error::chain(&error), "cannot take back a container's names");
        }
        for lease in leases {
            if let Some(live) = self.live(&lease.network_id) {
                live.release(lease.address, lease.ipv6);
            }
        }
    }

    /// Checks bridges, firewall and publications; with `repair`, puts them right. `leases` are
    /// those of all containers.
    pub fn check(&self, leases: &[(String, Lease)], repair: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut note = |network: &str, outcome: gamut_network::Result<Vec<_>>| match outcome {
            Ok(found) => findings.extend(found.into_iter().map(
                |finding: gamut_network::Finding| Finding {
                    object: network.to_owned(),
                    problem: finding.to_string(),
                    repaired: repair,
                },
            )),
            Err(error) => findings.push(Finding {
                object: network.to_owned(),
                problem: gamut_spec::error::chain(&error),
                repaired: false,
            }),
        };
        let (all, ids) = held(leases);
        for live in self.all_bridged() {
            let object = if live.record.is_predefined() {
                "network".to_owned()
            } else {
                format!("network {}", live.record.name)
            };
            if let Err(error) = live.bridge() {
                let problem = error.full_message();
                note(&object, Err(gamut_network::Error::Conflict(problem)));
                continue;
            }
            let own = own(leases, &live.record.id);
            let outcome = live.while_in_force(|bridge| {
                if repair {
                    bridge.reconcile_among(&own, &all)
                } else {
                    bridge.check_among(&own, &all)
                }
            });
            if let Some(outcome) = outcome {
                note(&object, outcome);
            }
        }
        let outcome = if repair {
            self.ports.reconcile(&ids)
        } else {
            self.ports.check(&ids)
        };
        note("network", outcome);
        if let (true, Some(host_ports)) = (repair, &self.host_ports) {
            let outcome = host_ports.reconcile(&ids);
            let problems = outcome.unwrap_or_else(|error| vec![error.full_message()]);
            findings.extend(problems.into_iter().map(|problem| Finding {
                object: "network".to_owned(),
                problem,
                repaired: false,
            }));
        }
        findings
    }

    /// Takes over what containers of an earlier daemon hold, and removes what nobody holds.
    pub fn restore(&self, leases: &[(String, Lease)]) {
        let mut publications: BTreeMap<&String, Publication> = BTreeMap::new();
        for (id, lease) in leases {
            let reserved = self
                .live(&lease.network_id)
                .ok_or_else(|| Error::not_found("network", &lease.network_id))
                .and_then(|live| {
                    let sixth = lease.ipv6.map(|place| place.address);
                    live.lease(Some(lease.address), sixth)
                });
            if let Err(error) = reserved {
                tracing::warn!(container = %id, error = %error.full_message(), "cannot keep the address of a running container");
            }
            let ports: Vec<Published> = lease.ports.iter().map(ports::to_published).collect();
            if ports.is_empty() {
                continue;
            }
            let publication = publications.entry(id).or_insert_with(|| Publication {
                container_id: id.clone(),
                target: Target::default(),
                ports: Vec::new(),
            });
            // Each family leads by the network that has its ports.
            let target = &mut publication.target;
            for port in &ports {
                if port.host_ip.is_ipv4() {
                    target.ipv4 = Some(lease.address);
                } else {
                    target.ipv6 = lease.ipv6.map(|place| place.address);
                }
            }
            publication.ports.extend(ports);
        }
        let publications: Vec<Publication> = publications.into_values().collect();
        if let Some(host_ports) = &self.host_ports {
            host_ports.restore(publications.iter().map(|publication| {
                (
                    publication.container_id.as_str(),
                    publication.target,
                    publication.ports.clone(),
                )
            }));
        }
        let (all, _) = held(leases);
        let mut outcomes = vec![self.ports.restore(&publications)];
        for live in self.all_bridged() {
            // One that cannot be had was told of when it was taken up.
            if let Ok(bridge) = live.bridge() {
                outcomes.push(bridge.reconcile_among(&own(leases, &live.record.id), &all));
            }
        }
        for outcome in outcomes {
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

/// Host-side interfaces and ids of the holders of leases.
fn held(leases: &[(String, Lease)]) -> (BTreeSet<String>, BTreeSet<String>) {
    leases
        .iter()
        .map(|(id, lease)| (lease.host_interface.clone(), id.clone()))
        .unzip()
}

/// Host-side interfaces of one network.
fn own(leases: &[(String, Lease)], network_id: &str) -> BTreeSet<String> {
    leases
        .iter()
        .filter(|(_, lease)| lease.network_id == network_id)
        .map(|(_, lease)| lease.host_interface.clone())
        .collect()
}

/// What a record's container holds, with its id.
pub(crate) fn leases_of(record: &ContainerRecord) -> Vec<(String, Lease)> {
    record
        .leases
        .iter()
        .map(|lease| (record.id.clone(), lease.clone()))
        .collect()
}

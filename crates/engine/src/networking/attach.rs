//! Connecting containers that exist to networks, and disconnecting them.

use super::Networking;
use super::bandwidth;
use super::connect::{Wanted, WayOut, WaysOut, default_address, v4};
use super::live::Live;
use super::options;
use super::ports;
use super::record::{Addresses, HOST, NONE, NetworkRecord};
use crate::container::etc_files;
use crate::container::live::Container;
use crate::container::record::{ContainerRecord, Lease, Phase};
use crate::container::spec::{EndpointSpec, NetworkMode};
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::store::Durability;
use gamut_isolation::contract::Feature;
use gamut_network::{NetworkNamespace, Subnet};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::sync::Arc;

fn forbidden(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Forbidden, message)
}

impl Engine {
    /// Connects a container, running or not, to a network.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` if it is on the network already or shares somebody else's; those of
    /// addresses.
    pub fn connect_network(
        &self,
        _caller: &Caller,
        network: &str,
        container: &str,
        mut endpoint: EndpointSpec,
    ) -> Result<()> {
        let network = self.network(network)?;
        let container = self.index.find(container)?;
        let _turn = container.operate();
        let record = container.record();
        check_mode(&record, &network, "connect container to")?;
        if record
            .endpoints()
            .iter()
            .any(|known| known.network_id == network.id)
        {
            return Err(forbidden(format!(
                "endpoint with name {} already exists in network {}",
                record.name, network.name
            )));
        }
        check_endpoint(&network, &endpoint)?;
        endpoint.network.clone_from(&network.name);
        endpoint.network_id.clone_from(&network.id);
        let mut endpoints = record.endpoints();
        endpoints.push(endpoint.clone());
        let durability = durability(&record);
        if !record.state.phase.is_live() {
            return container.change(&self.store, durability, |record| {
                record.endpoints = Some(endpoints);
            });
        }
        self.level_of(&container)?
            .admit(&[Feature::ChangingNetworks])?;
        let namespace = namespace(&record)?;
        let interface = free_interface(&namespace, &network, &endpoint)?;
        let moving = self.networking.moving();
        let mut added = Vec::new();
        let plugged = self
            .networking
            .network_of(&endpoint)
            .and_then(|live| {
                self.networking.plug(
                    &namespace,
                    &(live, &endpoint),
                    Wanted {
                        interface: &interface,
                        is_way_out: WayOut::default(),
                        annotations: &record.spec.annotations,
                    },
                    &mut added,
                )
            })
            .and_then(|()| {
                self.change_networks(
                    &container,
                    &record,
                    &namespace,
                    durability,
                    (endpoints, {
                        let mut leases = record.leases.clone();
                        leases.extend(added.iter().cloned());
                        leases
                    }),
                )
            });
        if !matches!(plugged, Ok(true)) {
            for lease in &added {
                self.networking.unplug(&namespace, lease);
            }
        }
        drop(moving);
        if !plugged? {
            return Ok(());
        }
        self.resolver_changed(&container, Some(&namespace));
        self.network_event(&network, "connect", Some(&container.id));
        Ok(())
    }

    /// Takes a container off a network. With `force`, also one that is not there any more.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` if it is not on the network.
    pub fn disconnect_network(
        &self,
        _caller: &Caller,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<()> {
        let found = self.network(network);
        let container = match self.index.find(container) {
            // What is gone is on no network.
            Err(error) if force && error.kind() == ErrorKind::NotFound => {
                return found.map(drop);
            }
            other => other?,
        };
        let _turn = container.operate();
        let record = container.record();
        let mut endpoints = record.endpoints();
        // A network that was removed while the container was down can still be left.
        let (id, name) = match &found {
            Ok(network) => {
                check_mode(&record, network, "disconnect container from")?;
                (network.id.clone(), network.name.clone())
            }
            Err(_) => match endpoints
                .iter()
                .find(|one| one.network == network || one.network_id == network)
            {
                Some(endpoint) => (endpoint.network_id.clone(), endpoint.network.clone()),
                None => return found.map(drop),
            },
        };
        let before = endpoints.len();
        endpoints.retain(|endpoint| endpoint.network_id != id);
        if endpoints.len() == before {
            return Err(forbidden(format!(
                "container {} is not connected to network {name}",
                container.id
            )));
        }
        let durability = durability(&record);
        if !record.state.phase.is_live() {
            return container.change(&self.store, durability, |record| {
                record.endpoints = Some(endpoints);
            });
        }
        self.level_of(&container)?
            .admit(&[Feature::ChangingNetworks])?;
        let namespace = namespace(&record)?;
        let moving = self.networking.moving();
        let (gone, leases): (Vec<Lease>, Vec<Lease>) = record
            .leases
            .iter()
            .cloned()
            .partition(|lease| lease.network_id == id);
        // First, so that what is on record never holds more than there is.
        self.networking.detach(&namespace, &gone)?;
        let changed = self.change_networks(
            &container,
            &record,
            &namespace,
            durability,
            (endpoints, leases),
        );
        if matches!(changed, Ok(true)) {
            for lease in &gone {
                self.networking.unplug(&namespace, lease);
            }
        }
        drop(moving);
        if !changed? {
            return Ok(());
        }
        self.resolver_changed(&container, Some(&namespace));
        if let Ok(network) = found {
            self.network_event(&network, "disconnect", Some(&container.id));
        }
        Ok(())
    }

    /// Settles a running container's networks after one came or went: default route, published
    /// ports, record and the files below /etc. False if it has ended meanwhile: then the record
    /// has its places, and nothing is held.
    fn change_networks(
        &self,
        container: &Container,
        before: &ContainerRecord,
        namespace: &NetworkNamespace,
        durability: Durability,
        (endpoints, mut leases): (Vec<EndpointSpec>, Vec<Lease>),
    ) -> Result<bool> {
        self.networking
            .settle(before, namespace, &endpoints, &mut leases)?;
        let mut has_ended = false;
        container.change(&self.store, durability, |record| {
            record.endpoints = Some(endpoints);
            has_ended = !record.state.phase.is_live();
            if !has_ended {
                record.leases = leases;
            }
        })?;
        if has_ended {
            // Whoever noted its end has given back what stood on the record.
            self.networking.unpublish(&before.id);
            return Ok(false);
        }
        let record = container.record();
        // What is connected is connected, also if a file cannot be written.
        let rewritten = self.etc_surroundings(before).and_then(|old| {
            etc_files::rewrite(
                &self.container_directory(&container.id),
                (before, &old),
                (&record, &self.etc_surroundings(&record)?),
            )
            .map_err(|source| Error::system("rewrite the files below /etc", source))
        });
        if let Err(error) = rewritten {
            tracing::error!(container = %container.id, error = %error.full_message(), "a container's own address is not in its /etc/hosts");
        }
        Ok(true)
    }
}

impl Networking {
    /// Takes the interfaces of leases away at once.
    fn detach(&self, namespace: &NetworkNamespace, leases: &[Lease]) -> Result<()> {
        for lease in leases {
            // Without a hardware address nothing has come of it.
            let Some(live) = self
                .live(&lease.network_id)
                .filter(|_| !lease.mac.is_empty())
            else {
                continue;
            };
            let detached = match live.macvlan() {
                Some(_) => gamut_network::unplug(namespace, &lease.interface),
                None => live.bridge()?.detach(&lease.host_interface),
            };
            detached.map_err(|error| super::failed(&error))?;
        }
        Ok(())
    }

    /// Takes back what [`Networking::plug`] gave.
    fn unplug(&self, namespace: &NetworkNamespace, lease: &Lease) {
        if let Err(error) = self.detach(namespace, std::slice::from_ref(lease)) {
            tracing::warn!(error = %error.full_message(), "cannot remove an interface");
        }
        if let Some(live) = self.live(&lease.network_id) {
            live.release(lease.address, lease.ipv6);
        }
    }

    /// Leads default routes and published ports by the networks that are to have them.
    fn settle(
        &self,
        before: &ContainerRecord,
        namespace: &NetworkNamespace,
        endpoints: &[EndpointSpec],
        leases: &mut [Lease],
    ) -> Result<()> {
        // In the order of the leases, which is that of the interfaces.
        let mut wanted: Vec<(Arc<Live>, &EndpointSpec)> = Vec::new();
        for lease in leases.iter() {
            let endpoint = endpoints
                .iter()
                .find(|endpoint| endpoint.network_id == lease.network_id)
                .ok_or_else(|| Error::not_found("network", &lease.network_id))?;
            wanted.push((self.network_of(endpoint)?, endpoint));
        }
        let ways_out = WaysOut::of(&wanted);
        let live = |index: Option<usize>| index.and_then(|index| wanted.get(index));
        let gateway = live(ways_out.fourth).and_then(|(live, _)| live.gateway());
        let gateway6 = live(ways_out.sixth).and_then(|(live, _)| live.gateway6());
        gamut_network::route_by(namespace, gateway, gateway6)
            .map_err(|error| super::failed(&error))?;
        let published: Vec<_> = before.published().cloned().collect();
        let mappings = match live(ways_out.port_network()) {
            None => Vec::new(),
            Some((live, _)) if published.is_empty() => {
                ports::mappings(before, default_address(live))
            }
            Some(_) => ports::again(before),
        };
        let target = ways_out.target(leases);
        if !published.is_empty() && self.ports.holds(&before.id, target, &mappings) {
            return Ok(());
        }
        self.unpublish(&before.id);
        for lease in leases.iter_mut() {
            lease.ports.clear();
        }
        self.publish_to(&before.id, leases, ways_out, &mappings)
    }
}

/// Only a container with networks of its own is connected to one.
fn check_mode(record: &ContainerRecord, network: &NetworkRecord, what: &str) -> Result<()> {
    if network.name == HOST || record.spec.network == NetworkMode::Host {
        return Err(forbidden(format!(
            "cannot {what} host network - container must be created in host network mode"
        )));
    }
    if network.name == NONE || record.spec.network == NetworkMode::None {
        return Err(forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    if let NetworkMode::Container(_) = record.spec.network {
        return Err(forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    Ok(())
}

/// Refuses details that a network cannot give.
pub(crate) fn check_endpoint(network: &NetworkRecord, endpoint: &EndpointSpec) -> Result<()> {
    if let Some(mac) = &endpoint.mac_address {
        mac.parse::<gamut_network::MacAddress>()
            .map_err(|error| super::failed(&error))?;
    }
    gamut_network::check_link_local(&endpoint.link_local).map_err(|error| super::failed(&error))?;
    options::check_endpoint(&endpoint.driver_options)?;
    bandwidth::of(&endpoint.driver_options, &network.options, &BTreeMap::new())?;
    if !network.has_names() && !endpoint.aliases.is_empty() {
        return Err(Error::invalid(
            "network-scoped alias is supported only for containers in user defined networks",
        ));
    }
    let address = v4(endpoint.address)?;
    if let Some(address) = address {
        check_address(network.addresses.as_ref(), address)?;
    }
    if let Some(address) = endpoint.address6 {
        if network.addresses6.is_none() && network.has_names() {
            return Err(Error::invalid(format!(
                "invalid address {address}: network {} has no IPv6",
                network.name
            )));
        }
        check_address(network.addresses6.as_ref(), address)?;
    }
    Ok(())
}

fn check_address<S: Subnet>(
    addresses: Option<&Addresses<S, S::Address>>,
    address: S::Address,
) -> Result<()> {
    let Some(addresses) = addresses else {
        return Err(Error::invalid(
            "user specified IP address is supported on user defined networks only",
        ));
    };
    if !addresses.is_configured {
        return Err(Error::invalid(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ));
    }
    if !addresses.subnet.contains(address) {
        return Err(Error::invalid(format!(
            "invalid address {address}: it does not belong to any of this network's subnets ({})",
            addresses.subnet
        )));
    }
    Ok(())
}

fn durability(record: &ContainerRecord) -> Durability {
    if record.spec.auto_remove {
        Durability::Process
    } else {
        Durability::Disk
    }
}

/// The network namespace of a running container.
fn namespace(record: &ContainerRecord) -> Result<NetworkNamespace> {
    let pid = i32::try_from(record.state.pid).unwrap_or(0);
    if record.state.phase == Phase::Restarting || pid == 0 {
        return Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            record.id
        )));
    }
    let failed = |error: gamut_network::Error| super::failed(&error);
    let found = NetworkNamespace::of_process(pid).map_err(failed)?;
    // Should it have ended meanwhile and its number have passed on, it is not the host that is
    // changed.
    let own = NetworkNamespace::current().map_err(failed)?;
    if found.is_same(&own).map_err(failed)? {
        return Err(Error::conflict(format!(
            "container {} is not running",
            record.id
        )));
    }
    Ok(found)
}

/// The name of a further interface: the first of its kind that the namespace has not.
fn free_interface(
    namespace: &NetworkNamespace,
    network: &NetworkRecord,
    endpoint: &EndpointSpec,
) -> Result<String> {
    let taken = gamut_network::interfaces(namespace).map_err(|error| super::failed(&error))?;
    let name = |number| options::interface_name(&network.options, &endpoint.driver_options, number);
    // One more than there are: of a name of its own it is that, taken or not.
    (0..=taken.len())
        .map(name)
        .find(|name| !taken.contains(name))
        .ok_or_else(|| {
            Error::conflict(format!(
                "the container has an interface {} already: choose another name",
                name(0)
            ))
        })
}

//! Networks by name and id: looking them up, making and removing them.

use super::live::{self, Live};
use super::record::{
    Addresses, BRIDGE, HOST, NONE, NetworkRecord, OPTION_BRIDGE, OPTION_HOST_ADDRESS, OPTION_ICC,
    OPTION_MASQUERADE, OPTION_MTU, is_boolean, is_predefined,
};
use super::verbs::NetworkSpec;
use super::{Networking, failed, pools};
use crate::container::record::Provenance;
use crate::error::{Error, Result};
use crate::store::Durability;
use gamut_network::{Ipv4Subnet, Network};
use gamut_spec::error::ErrorKind;
use gamut_spec::{id, time};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};

impl Networking {
    /// All networks: the three that are always there, then the others by name.
    #[must_use]
    pub fn records(&self) -> Vec<NetworkRecord> {
        let mut all = vec![
            self.default.record.clone(),
            NetworkRecord::predefined(HOST, self.started_ns),
            NetworkRecord::predefined(NONE, self.started_ns),
        ];
        let mut others: Vec<_> = self
            .read()
            .values()
            .map(|live| live.record.clone())
            .collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        all.append(&mut others);
        all
    }

    /// The network of a name, an id, or the unambiguous beginning of one.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for an ambiguous beginning.
    pub fn find(&self, name_or_id: &str) -> Result<NetworkRecord> {
        let records = self.records();
        let exact = |record: &&NetworkRecord| record.id == name_or_id || record.name == name_or_id;
        if let Some(found) = records.iter().find(exact) {
            return Ok(found.clone());
        }
        let begins = |record: &&NetworkRecord| {
            id::is_id_prefix(name_or_id) && record.id.starts_with(name_or_id)
        };
        let mut matches = records.iter().filter(begins);
        match (matches.next(), matches.count()) {
            (Some(found), 0) => Ok(found.clone()),
            (Some(_), more) => Err(Error::invalid(format!(
                "network {name_or_id} is ambiguous ({} matches found on ID prefix)",
                more + 1
            ))),
            (None, _) => Err(Error::new(
                ErrorKind::NotFound,
                format!("network {name_or_id} not found"),
            )),
        }
    }

    /// The name of a network, if there is one with this id.
    #[must_use]
    pub fn name_of(&self, id: &str) -> Option<String> {
        self.live(id).map(|live| live.record.name.clone())
    }

    /// The size of the largest packet of a network in bytes.
    ///
    /// # Errors
    /// If its bridge cannot be had.
    pub fn mtu_of(&self, id: &str) -> Result<u32> {
        self.live(id)
            .ok_or_else(|| Error::not_found("network", id))?
            .bridge()
            .map(|bridge| bridge.mtu())
    }

    /// Makes a network: on record, then in force. Whoever kills the daemon in between finds it
    /// in force afterwards.
    pub(super) fn create(
        &self,
        spec: NetworkSpec,
        provenance: Provenance,
    ) -> Result<NetworkRecord> {
        check(&spec)?;
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.records();
        if known.iter().any(|record| record.name == spec.name) {
            return Err(Error::conflict(format!(
                "network with name {} already exists",
                spec.name
            )));
        }
        let id =
            id::random().map_err(|source| Error::system("make the id of a network", source))?;
        let bridge = match spec.options.get(OPTION_BRIDGE) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("br-{}", id::short(&id)),
        };
        if known.iter().any(|record| record.bridge == bridge) {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("bridge name {bridge} is already in use by another network"),
            ));
        }
        let taken: Vec<Ipv4Subnet> = known
            .iter()
            .filter_map(|record| Some(record.addresses.as_ref()?.subnet))
            .collect();
        let record = NetworkRecord {
            addresses: Some(addresses(&spec, &taken)?),
            id: id.clone(),
            name: spec.name,
            created_ns: time::now_ns(),
            provenance,
            driver: BRIDGE.to_owned(),
            bridge,
            internal: spec.internal,
            attachable: spec.attachable,
            labels: spec.labels,
            options: spec.options,
            ipam_options: spec.ipam_options,
        };
        let live = Arc::new(Live::new(record.clone(), &self.table)?);
        self.store.put(&id, &record, Durability::Disk)?;
        if let Err(error) = live.bridge() {
            self.store.remove(&id, Durability::Disk)?;
            return Err(error);
        }
        self.write().insert(id, live);
        Ok(record)
    }

    /// Removes a network that nobody is connected to: out of force, then off the record.
    /// `holders` tells who is connected.
    pub(super) fn remove(&self, record: &NetworkRecord, holders: &str) -> Result<()> {
        let live = self.read().get(&record.id).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("network {} not found", record.name),
            )
        })?;
        live.take_down(holders)?;
        self.store.remove(&record.id, Durability::Disk)?;
        self.write().remove(&record.id);
        Ok(())
    }
}

/// What docker shows of the default network's options.
pub(super) fn default_options(network: &Network) -> BTreeMap<String, String> {
    [
        ("com.docker.network.bridge.default_bridge", "true"),
        (OPTION_ICC, "true"),
        (OPTION_MASQUERADE, "true"),
        (OPTION_HOST_ADDRESS, "0.0.0.0"),
        (OPTION_BRIDGE, network.name()),
        (OPTION_MTU, &network.mtu().to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Refuses what is no network of ours, before anything is made.
fn check(spec: &NetworkSpec) -> Result<()> {
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name = &spec.name;
    if is_predefined(name) || name == "default" {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(lawful) {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed"
        )));
    }
    if id::is_id(name) {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: it looks like an id"
        )));
    }
    match spec.driver.as_str() {
        "" | BRIDGE => {}
        driver @ (HOST | "null") => {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("only one instance of \"{driver}\" network is allowed"),
            ));
        }
        "overlay" => {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
                 to connect this node to swarm and try again.",
            ));
        }
        driver @ ("macvlan" | "ipvlan") => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the network driver {driver} is not supported yet: use bridge"),
            ));
        }
        driver => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("plugin {driver:?} not found"),
            ));
        }
    }
    if !matches!(spec.ipam_driver.as_str(), "" | "default") {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the address management driver {:?} is not there: use default",
                spec.ipam_driver
            ),
        ));
    }
    if spec.ipv6 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "IPv6 networks are not supported yet: leave --ipv6 out",
        ));
    }
    check_options(&spec.options)
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in options {
        let bad = |expected: &str| {
            Err(Error::invalid(format!(
                "invalid value {value:?} for network option {name}: expected {expected}"
            )))
        };
        match name.as_str() {
            OPTION_ICC | OPTION_MASQUERADE if !is_boolean(value) => {
                return bad("true or false");
            }
            OPTION_MTU
                if !value
                    .parse()
                    .is_ok_and(|mtu: u32| (68..=65535).contains(&mtu)) =>
            {
                return bad("68 to 65535 bytes");
            }
            OPTION_HOST_ADDRESS if value.parse::<Ipv4Addr>().is_err() => {
                return bad("an IPv4 address");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The addresses asked for, or some that are free.
fn addresses(spec: &NetworkSpec, taken: &[Ipv4Subnet]) -> Result<Addresses> {
    let parse = |text: &str| -> Result<Ipv4Subnet> {
        if text.contains(':') {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("subnet {text}: IPv6 networks are not supported yet"),
            ));
        }
        text.parse()
            .map_err(|error: gamut_network::Error| failed(&error))
    };
    let address = |what: &str, text: &str| {
        text.parse::<Ipv4Addr>().map_err(|_| {
            Error::invalid(format!("invalid {what} {text:?}: expected an IPv4 address"))
        })
    };
    let mut configured = spec.subnets.iter();
    let first = configured.next();
    if configured.next().is_some() {
        return Err(Error::invalid(
            "bridge driver doesn't support multiple subnets",
        ));
    }
    let wanted = first.filter(|config| !config.subnet.is_empty());
    if let (Some(config), None) = (first, wanted)
        && !(config.gateway.is_empty() && config.range.is_empty() && config.auxiliary.is_empty())
    {
        return Err(Error::invalid(
            "invalid address configuration: a gateway, a range or auxiliary addresses need a subnet",
        ));
    }
    let Some(config) = wanted else {
        let subnet = gamut_network::free_subnet(&pools::candidates(taken)).map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: remove networks that are not needed (gamut network prune) or name a --subnet",
            )
        })?;
        return Ok(Addresses {
            subnet,
            gateway: subnet.first_host(),
            range: None,
            auxiliary: BTreeMap::new(),
            is_configured: false,
        });
    };
    let subnet = parse(&config.subnet)?;
    if taken.iter().any(|other| other.overlaps(subnet)) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "invalid pool request: Pool overlaps with other one on this address space",
        ));
    }
    let range = Some(&config.range).filter(|range| !range.is_empty());
    let range = range.map(|range| parse(range)).transpose()?;
    let mut auxiliary = BTreeMap::new();
    for (name, text) in &config.auxiliary {
        auxiliary.insert(name.clone(), address("auxiliary address", text)?);
    }
    let gateway = if config.gateway.is_empty() {
        range.map_or(subnet.first_host(), |range| {
            range.network().max(subnet.first_host())
        })
    } else {
        address("gateway", &config.gateway)?
    };
    let addresses = Addresses {
        subnet,
        gateway,
        range,
        auxiliary,
        is_configured: true,
    };
    live::check(&addresses).map_err(|error| failed(&error))?;
    Ok(addresses)
}

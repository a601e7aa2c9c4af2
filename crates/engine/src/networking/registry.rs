//! Networks by name and id: looking them up, making and removing them.

use super::Networking;
use super::live::Live;
use super::record::{
    BRIDGE, HOST, MACVLAN, NONE, NetworkRecord, OPTION_BRIDGE, OPTION_HOST_ADDRESS, OPTION_ICC,
    OPTION_MASQUERADE, OPTION_MTU, is_predefined,
};
use super::verbs::NetworkSpec;
use super::{addresses, options};
use crate::container::record::Provenance;
use crate::error::{Error, Result};
use crate::store::Durability;
use gamut_network::Network;
use gamut_spec::error::ErrorKind;
use gamut_spec::{id, time};
use std::collections::BTreeMap;
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
            .mtu()
    }

    /// Makes a network: on record, then in force. Whoever kills the daemon in between finds it
    /// in force afterwards.
    pub(super) fn create(
        &self,
        mut spec: NetworkSpec,
        provenance: Provenance,
    ) -> Result<NetworkRecord> {
        spec.ipv6 |= options::wants_ipv6(&spec.options);
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
        let driver = if spec.driver.is_empty() {
            BRIDGE.to_owned()
        } else {
            spec.driver.clone()
        };
        let bridge = match spec.options.get(OPTION_BRIDGE) {
            _ if driver != BRIDGE => String::new(),
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("br-{}", id::short(&id)),
        };
        if driver == BRIDGE && known.iter().any(|record| record.bridge == bridge) {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("bridge name {bridge} is already in use by another network"),
            ));
        }
        let (addresses, addresses6) = addresses::choose(&spec, &known, &self.ula_seed)?;
        let record = NetworkRecord {
            addresses: Some(addresses),
            addresses6,
            id: id.clone(),
            name: spec.name,
            created_ns: time::now_ns(),
            provenance,
            driver,
            bridge,
            internal: spec.internal,
            attachable: spec.attachable,
            labels: spec.labels,
            options: spec.options,
            ipam_options: spec.ipam_options,
        };
        let live = Arc::new(Live::new(record.clone(), &self.table)?);
        self.store.put(&id, &record, Durability::Disk)?;
        if let Err(error) = live.put_in_force() {
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
    // A space between words, too: clients that show names to people make such.
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ' ');
    let name = &spec.name;
    if is_predefined(name) || name == "default" {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || !name.chars().all(lawful) || name.ends_with(' ') {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed, and spaces between them"
        )));
    }
    if id::is_id(name) {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: it looks like an id"
        )));
    }
    match spec.driver.as_str() {
        "" | BRIDGE | MACVLAN => {}
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
        driver @ "ipvlan" => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the network driver {driver} is not supported yet: use bridge or macvlan"),
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
    options::check_network(&spec.options, spec.ipv6)
}

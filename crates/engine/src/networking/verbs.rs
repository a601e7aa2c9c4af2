//! Making, looking at and removing networks.

use super::record::NetworkRecord;
use crate::container::record::{ContainerRecord, Lease, Provenance};
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A network as asked for. Empty means: the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Name.
    pub name: String,
    /// Driver, `bridge` by default.
    pub driver: String,
    /// Driver of the address management, `default` by default.
    pub ipam_driver: String,
    /// Options of the address management, only shown.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Subnets.
    pub subnets: Vec<SubnetSpec>,
    /// IPv6 is asked for.
    pub ipv6: bool,
    /// It is to have no way out.
    pub internal: bool,
    /// Only shown.
    pub attachable: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// A subnet as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetSpec {
    /// In CIDR notation.
    pub subnet: String,
    /// Addresses to choose from, in CIDR notation.
    pub range: String,
    /// The bridge's own address.
    pub gateway: String,
    /// Addresses that belong to somebody else, by name.
    pub auxiliary: BTreeMap<String, String>,
}

impl Engine {
    /// Makes a network. On disk and in force before it is acknowledged.
    ///
    /// # Errors
    /// `Conflict` for a name in use, `Forbidden` for addresses in use and names of networks that
    /// are always there, `InvalidArgument` for what makes no sense, `Unsupported` for other drivers
    /// and IPv6.
    pub fn create_network(&self, caller: &Caller, spec: NetworkSpec) -> Result<NetworkRecord> {
        let provenance = Provenance {
            uid: caller.peer_uid,
            client: caller.client.clone(),
            purpose: spec
                .labels
                .get("gamut.purpose")
                .cloned()
                .unwrap_or_default(),
        };
        // Half made, it would look damaged to whoever watches over the firewall.
        let moving = self.networking.moving();
        let record = self.networking.create(spec, provenance)?;
        drop(moving);
        self.network_event(&record, "create", None);
        Ok(record)
    }

    /// All networks: the three that are always there first.
    #[must_use]
    pub fn networks(&self) -> Vec<NetworkRecord> {
        self.networking.records()
    }

    /// The network of a name, an id, or the unambiguous beginning of one.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` for an ambiguous beginning.
    pub fn network(&self, name_or_id: &str) -> Result<NetworkRecord> {
        self.networking.find(name_or_id)
    }

    /// Running containers on a network, with what they hold there.
    #[must_use]
    pub fn network_members(
        &self,
        network: &NetworkRecord,
    ) -> Vec<(ContainerRecord, Option<Lease>)> {
        let all = self.containers();
        all.into_iter()
            .filter(|record| record.state.phase.is_live())
            .filter_map(|record| {
                if let Some(lease) = record.lease_in(&network.id).cloned() {
                    return Some((record, Some(lease)));
                }
                // Without a lease: the host's network, and none.
                let here = record.spec.network.predefined_name() == Some(network.name.as_str());
                (here && network.addresses.is_none()).then_some((record, None))
            })
            .collect()
    }

    /// Removes a network that no running container is on.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` for one that is in use or always there.
    pub fn remove_network(&self, _caller: &Caller, name_or_id: &str) -> Result<()> {
        let record = self.network(name_or_id)?;
        if record.is_predefined() {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!(
                    "{} is a pre-defined network and cannot be removed",
                    record.name
                ),
            ));
        }
        let mut holders = String::new();
        for (container, _) in self.network_members(&record) {
            let _ = write!(
                holders,
                " (name:{:?} id:{:?})",
                container.name,
                gamut_spec::id::short(&container.id)
            );
        }
        // Removed in between, its rules would be put back.
        let moving = self.networking.moving();
        self.networking.remove(&record, &holders)?;
        drop(moving);
        self.network_event(&record, "destroy", None);
        Ok(())
    }

    /// Removes all networks that no running container is on and that `wanted` picks; returns
    /// their names.
    ///
    /// # Errors
    /// The first that cannot be removed.
    pub fn prune_networks(
        &self,
        caller: &Caller,
        wanted: &dyn Fn(&NetworkRecord) -> bool,
    ) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for record in self.networks() {
            if record.is_predefined() || !wanted(&record) {
                continue;
            }
            match self.remove_network(caller, &record.id) {
                Ok(()) => removed.push(record.name),
                // In use, or removed by somebody else meanwhile.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Forbidden | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Notes that something happened to a network.
    pub(crate) fn network_event(
        &self,
        network: &NetworkRecord,
        action: &str,
        container: Option<&str>,
    ) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.clone()),
        ]);
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.events.emit("network", action, &network.id, attributes);
    }

    /// Notes that a container was connected to or disconnected from all these.
    pub(crate) fn connection_events(&self, action: &str, container: &str, leases: &[Lease]) {
        for lease in leases {
            if let Ok(network) = self.network(&lease.network_id) {
                self.network_event(&network, action, Some(container));
            }
        }
    }
}

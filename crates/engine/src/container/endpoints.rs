//! A container's places in networks, when it is made.

use super::spec::{ContainerSpec, EndpointSpec, NetworkMode};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::networking::attach::check_endpoint;
use crate::networking::bandwidth;
use crate::networking::record::{BRIDGE, HOST, NONE};
use std::collections::BTreeMap;

impl Engine {
    /// Looks up the networks that a container is to be on: that of its mode first, the others by
    /// name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for what a network cannot give.
    pub(super) fn resolve_endpoints(&self, spec: &mut ContainerSpec) -> Result<Vec<EndpointSpec>> {
        if let NetworkMode::Network(name) = &spec.network {
            let network = self.network(name)?;
            match network.name.as_str() {
                BRIDGE => spec.network = NetworkMode::Bridge,
                HOST => spec.network = NetworkMode::Host,
                NONE => spec.network = NetworkMode::None,
                _ => {}
            }
        }
        let described = std::mem::take(&mut spec.endpoints);
        let own = match &spec.network {
            NetworkMode::Bridge => BRIDGE,
            NetworkMode::Network(name) => name,
            mode => {
                let own = mode.predefined_name().unwrap_or_default();
                let further = described
                    .iter()
                    .find(|one| one.network != own && one.network != spec.network_name);
                return match further {
                    None => Ok(Vec::new()),
                    Some(further) => Err(Error::invalid(format!(
                        "conflicting options: a container with network mode {} cannot be connected to network {}",
                        spec.network_name, further.network
                    ))),
                };
            }
        };
        let own = self.network(own)?;
        bandwidth::of(&BTreeMap::new(), &BTreeMap::new(), &spec.annotations)?;
        let mut endpoints = Vec::new();
        for mut endpoint in described {
            let name = match endpoint.network.as_str() {
                "" | "default" => BRIDGE,
                name => name,
            };
            let network = self.network(name)?;
            if network.addresses.is_none() {
                return Err(Error::invalid(format!(
                    "conflicting options: a container on network {} cannot be connected to network {}",
                    own.name, network.name
                )));
            }
            endpoint.network_id = network.id;
            endpoint.network = network.name;
            let known = |known: &EndpointSpec| known.network_id == endpoint.network_id;
            if endpoints.iter().any(known) {
                return Err(Error::invalid(format!(
                    "network {} is given twice",
                    endpoint.network
                )));
            }
            endpoints.push(endpoint);
        }
        let position = endpoints
            .iter()
            .position(|endpoint| endpoint.network_id == own.id);
        let mut first = match position {
            Some(position) => endpoints.remove(position),
            None => EndpointSpec {
                network: own.name.clone(),
                network_id: own.id.clone(),
                ..EndpointSpec::default()
            },
        };
        first.address = first.address.or(spec.address);
        if first.mac_address.is_none() {
            first.mac_address.clone_from(&spec.mac_address);
        }
        if own.has_names() {
            first.links.append(&mut spec.links);
        }
        for link in &spec.links {
            let name = link.split(':').next().unwrap_or_default();
            self.index.find(name).map_err(|_| {
                Error::invalid(format!(
                    "could not get container for {name}: No such container: {name}"
                ))
            })?;
        }
        endpoints.sort_by(|a, b| a.network.cmp(&b.network));
        endpoints.insert(0, first);
        for endpoint in &endpoints {
            check_endpoint(&self.network(&endpoint.network_id)?, endpoint)?;
        }
        Ok(endpoints)
    }
}

//! What the resolver is told of containers.

use super::record::{BRIDGE, predefined_id};
use crate::container::etc_files;
use crate::container::live::Container;
use crate::container::record::ContainerRecord;
use crate::container::spec::EndpointSpec;
use crate::engine::Engine;
use crate::error::{Error, Result};
use gamut_dns::{Place, Record};
use gamut_network::NetworkNamespace;
use gamut_spec::id;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

pub(super) fn failed(error: &gamut_dns::Error) -> Error {
    Error::new(error.kind(), gamut_spec::error::chain(error))
}

/// Whether a container finds others by name.
pub(crate) fn has_names(record: &ContainerRecord) -> bool {
    let default = predefined_id(BRIDGE);
    record
        .endpoints()
        .iter()
        .any(|endpoint| endpoint.network_id != default)
}

/// The names of a container on one of its networks, its own first.
#[must_use]
pub fn names(record: &ContainerRecord, endpoint: &EndpointSpec) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    names.extend(endpoint.aliases.iter().cloned());
    names.push(id::short(&record.id).to_owned());
    names.push(record.spec.hostname.clone());
    let mut seen = BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}

impl Engine {
    /// Tells the resolver of a container about to start, or of one that changed.
    pub(crate) fn tell_resolver(
        &self,
        record: &ContainerRecord,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        if !has_names(record) {
            return Ok(());
        }
        let told = self.names_of(record);
        self.networking
            .resolver
            .publish(&told, namespace)
            .map_err(|error| failed(&error))
    }

    /// Tells the resolver of a container that changed; with `namespace`, of one that may have come
    /// to have names. That it cannot be told is no reason to undo the change.
    pub(crate) fn resolver_changed(
        &self,
        container: &Container,
        namespace: Option<&NetworkNamespace>,
    ) {
        let record = container.record();
        let told = if !record.state.phase.is_live() {
            Ok(())
        } else if has_names(&record) {
            self.tell_resolver(&record, namespace.map(AsFd::as_fd))
        } else {
            self.networking
                .resolver
                .withdraw(&record.id)
                .map(drop)
                .map_err(|error| failed(&error))
        };
        if let Err(error) = told {
            tracing::error!(container = %record.id, error = %error.full_message(), "the resolver does not know of a change");
        }
    }

    /// Sees to it that the resolver knows what an earlier daemon told it, and nothing else. With
    /// each container comes the id of its first process, 0 if none runs now.
    pub(crate) fn restore_resolver<'a>(&self, live: impl Iterator<Item = (&'a Container, u32)>) {
        let mut stale = self.networking.resolver.known();
        for (container, pid) in live {
            let record = container.record();
            let pid = i32::try_from(pid).unwrap_or(0);
            stale.remove(&record.id);
            let namespace = NetworkNamespace::of_process(pid).ok();
            let told = self.tell_resolver(&record, namespace.as_ref().map(AsFd::as_fd));
            if let Err(error) = told {
                tracing::error!(container = %record.id, error = %error.full_message(), "the names of a running container cannot be served");
            }
        }
        for id in stale {
            if let Err(error) = self.networking.resolver.withdraw(&id) {
                tracing::warn!(container = id, error = %gamut_spec::error::chain(&error), "cannot take back a container's names");
            }
        }
        if let Err(error) = self.networking.resolver.ensure() {
            tracing::error!(error = %gamut_spec::error::chain(&error), "the resolver does not run");
        }
    }

    fn names_of(&self, record: &ContainerRecord) -> Record {
        let default = predefined_id(BRIDGE);
        let mut told = Record::new(&record.id);
        for endpoint in record.endpoints() {
            let lease = record.lease_in(&endpoint.network_id);
            let (false, Some(lease)) = (endpoint.network_id == default, lease) else {
                continue;
            };
            let links = endpoint.links.iter().map(|link| {
                let (name, alias) = link.split_once(':').unwrap_or((link, link));
                let other = self.index.find(name);
                let other = other.map(|other| other.read(|other| other.name.clone()));
                (alias.to_owned(), other.unwrap_or_else(|_| name.to_owned()))
            });
            told.places.push(Place {
                network_id: endpoint.network_id.clone(),
                network: self
                    .networking
                    .name_of(&endpoint.network_id)
                    .unwrap_or_else(|| endpoint.network.clone()),
                address: lease.address,
                address6: lease.ipv6.map(|place| place.address),
                names: names(record, &endpoint),
                links: links.collect(),
            });
        }
        told.forwards = record.leases.iter().any(|lease| {
            lease.gateway.is_some() || lease.ipv6.is_some_and(|place| place.gateway.is_some())
        });
        (told.servers, told.servers_inside) =
            etc_files::upstream(&record.spec, &host_resolvers(), self.loopback_dns());
        told
    }

    /// Where resolvers on the host's loopback are reached from the engine's network, if that is
    /// not the host's.
    fn loopback_dns(&self) -> Option<Ipv4Addr> {
        let rootless = self.options.rootless.as_ref();
        rootless.map(|_| gamut_rootless::DNS_ADDRESS)
    }

    /// What the files below /etc are made from beside the record.
    ///
    /// # Errors
    /// `Conflict` if a container that is linked to does not run.
    pub(crate) fn etc_surroundings(
        &self,
        record: &ContainerRecord,
    ) -> Result<etc_files::Surroundings> {
        let mut links = Vec::new();
        for link in &record.spec.links {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            let other = self.index.find(name)?.record();
            let lease = other.lease_in(&predefined_id(BRIDGE)).ok_or_else(|| {
                Error::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name, record.name
                ))
            })?;
            let mut names = vec![
                alias.to_owned(),
                id::short(&other.id).to_owned(),
                other.name.clone(),
            ];
            names.dedup();
            links.push((lease.address, names));
        }
        Ok(etc_files::Surroundings {
            host_gateway: (!record.leases.is_empty()).then(|| self.networking.host_gateway()),
            loopback_dns: self.loopback_dns(),
            has_names: has_names(record),
            links,
            host_resolvers: host_resolvers(),
        })
    }
}

/// The host's resolv.conf(5).
fn host_resolvers() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

//! Links on the default network: a container that knows another by an alias, its address by
//! `/etc/hosts` and what it offers by variables of its environment. Of a link one may also speak
//! as `PARENT/ALIAS`.

use super::etc_files;
use super::live::Container;
use super::record::ContainerRecord;
use super::spec::Port;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::networking::record::{BRIDGE, predefined_id};
use crate::store::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Variables that say nothing of what a container offers.
const PRIVATE_VARIABLES: [&str; 2] = ["HOME", "PATH"];

/// Name and alias of a link, which is `NAME[:ALIAS]`.
#[must_use]
pub fn split(link: &str) -> (&str, &str) {
    link.split_once(':').unwrap_or((link, link))
}

impl Engine {
    /// What a container's environment tells of those it is linked to.
    ///
    /// # Errors
    /// `NotFound` if one is gone.
    pub(crate) fn link_environment(&self, record: &ContainerRecord) -> Result<Vec<String>> {
        let mut environment = Vec::new();
        for link in &record.spec.links {
            let (name, alias) = split(link);
            let other = self.index.find(name)?.record();
            let lease = other.lease_in(&predefined_id(BRIDGE));
            let address = lease.map(|lease| lease.address);
            let offers = (&other.spec.exposed_ports, &other.process.environment[..]);
            environment.extend(variables((&record.name, alias), offers, address));
        }
        Ok(environment)
    }

    /// The container that a name means, which may be that of a link (`PARENT/ALIAS`).
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn find_linked(&self, name: &str) -> Result<Arc<Container>> {
        let found = self.index.find(name);
        if found.is_ok() {
            return found;
        }
        match self.link(name) {
            Some((_, link)) => self.index.find(split(&link).0),
            None => found,
        }
    }

    /// The container that has the link `PARENT/ALIAS`, and the link.
    fn link(&self, name: &str) -> Option<(Arc<Container>, String)> {
        let (parent, alias) = name.trim_start_matches('/').rsplit_once('/')?;
        let parent = self.index.find(parent).ok()?;
        let links = parent.read(|record| record.spec.links.clone());
        let link = links.into_iter().find(|link| split(link).1 == alias)?;
        Some((parent, link))
    }

    /// The names of links, as `/PARENT/ALIAS`, by the id of the container that each leads to.
    #[must_use]
    pub fn names_of_links(&self, all: &[ContainerRecord]) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for parent in all {
            for link in &parent.spec.links {
                let (name, alias) = split(link);
                if let Ok(other) = self.index.find(name) {
                    let name = format!("/{}/{alias}", parent.name);
                    names.entry(other.id.clone()).or_default().push(name);
                }
            }
        }
        names
    }

    /// Takes a link away, `PARENT/ALIAS`. Both containers stay.
    ///
    /// # Errors
    /// `NotFound` if there is no such link.
    pub fn remove_link(&self, _caller: &Caller, name: &str) -> Result<()> {
        let (parent, link) = self
            .link(name)
            .ok_or_else(|| Error::not_found("link", name))?;
        let _turn = parent.operate();
        let before = parent.record();
        let old = self.etc_surroundings(&before);
        parent.change(&self.store, Durability::Disk, |record| {
            record.spec.links.retain(|known| *known != link);
        })?;
        let after = parent.record();
        if !after.state.phase.is_live() {
            return Ok(());
        }
        // The link is gone also if a file cannot be written.
        let rewritten = old.and_then(|old| {
            etc_files::rewrite(
                &self.container_directory(&parent.id),
                (&before, &old),
                (&after, &self.etc_surroundings(&after)?),
            )
            .map_err(|source| Error::system("rewrite the files below /etc", source))
        });
        if let Err(error) = rewritten {
            tracing::warn!(container = %parent.id, error = %error.full_message(), "a link's name is still in /etc/hosts");
        }
        Ok(())
    }
}

/// As Docker's `--link` has them.
fn variables(
    (parent, alias): (&str, &str),
    (ports, environment): (&BTreeSet<Port>, &[String]),
    address: Option<Ipv4Addr>,
) -> Vec<String> {
    let prefix = alias.to_ascii_uppercase().replace('-', "_");
    let mut list = Vec::new();
    if let (Some(address), Some(first)) = (address, ports.first()) {
        let protocol = first.protocol.as_str();
        list.push(format!(
            "{prefix}_PORT={protocol}://{address}:{}",
            first.number
        ));
        for port in ports {
            let (number, protocol) = (port.number, port.protocol.as_str());
            let name = format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase());
            list.push(format!("{name}={protocol}://{address}:{number}"));
            list.push(format!("{name}_ADDR={address}"));
            list.push(format!("{name}_PORT={number}"));
            list.push(format!("{name}_PROTO={protocol}"));
        }
    }
    list.push(format!("{prefix}_NAME=/{parent}/{alias}"));
    let told = environment
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .filter(|(name, _)| !PRIVATE_VARIABLES.contains(name));
    list.extend(told.map(|(name, value)| format!("{prefix}_ENV_{name}={value}")));
    list
}

#[cfg(test)]
mod tests {
    use super::super::spec::Protocol;
    use super::*;

    #[test]
    fn variables_of_a_link() {
        let port = |number, protocol| Port { number, protocol };
        let ports = [port(80, Protocol::Tcp), port(53, Protocol::Udp)].into();
        let environment = ["PATH=/bin".to_owned(), "FOO=1=2".to_owned()];
        let address = Some(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(
            variables(("web", "the-db"), (&ports, &environment), address),
            [
                "THE_DB_PORT=udp://10.0.0.2:53",
                "THE_DB_PORT_53_UDP=udp://10.0.0.2:53",
                "THE_DB_PORT_53_UDP_ADDR=10.0.0.2",
                "THE_DB_PORT_53_UDP_PORT=53",
                "THE_DB_PORT_53_UDP_PROTO=udp",
                "THE_DB_PORT_80_TCP=tcp://10.0.0.2:80",
                "THE_DB_PORT_80_TCP_ADDR=10.0.0.2",
                "THE_DB_PORT_80_TCP_PORT=80",
                "THE_DB_PORT_80_TCP_PROTO=tcp",
                "THE_DB_NAME=/web/the-db",
                "THE_DB_ENV_FOO=1=2",
            ]
        );
        assert_eq!(split("db"), ("db", "db"));
    }
}

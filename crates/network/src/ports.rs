//! Published ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::conntrack;
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::firewall::{Firewall, PUBLISHED_MAPS};
use crate::network::Network;
use crate::reservation::{self, Place, Reservation};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: refused when it is to be published.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(Error::InvalidArgument(format!(
                "invalid protocol {text:?}: expected tcp, udp or sctp"
            ))),
        }
    }
}

/// A request to publish a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The host's address; none or 0.0.0.0 for all.
    pub host_ip: Option<IpAddr>,
    /// The host's port; 0 to have one chosen.
    pub host_port: u16,
    /// The workload's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The host's address, 0.0.0.0 for all.
    pub host_ip: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
    /// The workload's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// All published ports of one workload, for the record and for [`Ports::restore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The workload's id.
    pub container_id: String,
    /// The workload's address.
    pub address: Ipv4Addr,
    /// Its published ports.
    pub ports: Vec<Published>,
}

/// The published ports of all workloads of one engine. Thread-safe.
#[derive(Debug)]
pub struct Ports {
    firewall: Firewall,
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<String, Held>,
    /// Where the search for a free port goes on, so that a port rests before it is chosen again.
    next_port: u16,
}

#[derive(Debug)]
struct Held {
    address: Ipv4Addr,
    ports: Vec<Published>,
    /// Keep everybody else off the host ports while they are published.
    _reservations: Vec<Reservation>,
}

impl Ports {
    /// The publications in the table of `network`, which serves all networks that share the table.
    /// Call [`Ports::restore`] before the first publication.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        Self {
            firewall: network.firewall().clone(),
            place: Place::default(),
            state: Mutex::default(),
        }
    }

    /// The same where the network is in a namespace of the engine's own, to which somebody else
    /// leads the ports of the host: addresses of the host that are not there are taken as well.
    #[must_use]
    pub fn inside(network: &Network) -> Self {
        Self {
            place: Place::Inside,
            ..Self::new(network)
        }
    }

    /// Publishes all of `mappings` for a workload at `address`, or none. Idempotent: what is
    /// published already for the same id, address and mappings is returned as it is.
    ///
    /// # Errors
    /// [`Error::PortTaken`] if another publication or process has the port, `Conflict` if the id
    /// has other ports published, `InvalidArgument` for a container port of 0 or an address that
    /// is not this host's, `Unsupported` for SCTP and IPv6, `Unavailable` if no port is free.
    pub fn publish(
        &self,
        container_id: &str,
        address: Ipv4Addr,
        mappings: &[PortMapping],
    ) -> Result<Vec<Published>> {
        for mapping in mappings {
            check(mapping)?;
        }
        let mut state = self.lock();
        if let Some(held) = state.held.get(container_id) {
            if held.answers(address, mappings) {
                return Ok(held.ports.clone());
            }
            return Err(Error::Conflict(format!(
                "{container_id} has other ports published already: unpublish them first"
            )));
        }
        if mappings.is_empty() {
            return Ok(Vec::new());
        }
        let mut ports = Vec::with_capacity(mappings.len());
        let mut reservations = Vec::with_capacity(mappings.len());
        // Fixed ports first, so that a chosen one never takes a fixed one's place.
        let mut order: Vec<usize> = (0..mappings.len()).collect();
        order.sort_by_key(|&index| {
            mappings
                .get(index)
                .is_some_and(|mapping| mapping.host_port == 0)
        });
        for index in order {
            let Some(mapping) = mappings.get(index) else {
                continue;
            };
            let host_ip = host_address(mapping)?;
            let reservation = if mapping.host_port == 0 {
                reservation::any(host_ip, mapping.protocol, self.place, &mut state.next_port)?
            } else {
                reservation::exact(host_ip, mapping.host_port, mapping.protocol, self.place)?
            };
            let published = Published {
                host_ip,
                host_port: reservation.port(),
                container_port: mapping.container_port,
                protocol: mapping.protocol,
            };
            ports.push((index, published));
            reservations.push(reservation);
        }
        ports.sort_by_key(|(index, _)| *index);
        let ports: Vec<Published> = ports.into_iter().map(|(_, published)| published).collect();
        self.firewall
            .change_elements("add", elements(address, &ports))?;
        forget_flows(address, &ports);
        let held = Held {
            address,
            ports: ports.clone(),
            _reservations: reservations,
        };
        state.held.insert(container_id.to_owned(), held);
        Ok(ports)
    }

    /// Withdraws all ports of a workload. Returns whether there were any.
    ///
    /// # Errors
    /// nft's; the ports are then still published.
    pub fn unpublish(&self, container_id: &str) -> Result<bool> {
        let mut state = self.lock();
        let Some(held) = state.held.get(container_id) else {
            return Ok(false);
        };
        let (address, ports) = (held.address, held.ports.clone());
        if let Err(error) = self
            .firewall
            .change_elements("delete", elements(address, &ports))
        {
            // Someone else may have emptied the table: put all the others back. Without a table
            // nothing is published; bringing it back is the network's task.
            tracing::warn!(%error, "published ports could not be deleted and are written anew");
            if self.firewall.state()?.is_some() {
                let others = state.held.iter().filter(|(id, _)| *id != container_id);
                self.firewall
                    .replace_published(others.flat_map(|(_, held)| held.elements()))?;
            }
        }
        state.held.remove(container_id);
        forget_flows(address, &ports);
        Ok(true)
    }

    /// Takes over the publications of the daemon before: the table then holds exactly these. The
    /// findings name host ports that another process took meanwhile.
    ///
    /// # Errors
    /// `Conflict` if something is published already; nft's otherwise. Nothing has changed then.
    pub fn restore(&self, publications: &[Publication]) -> Result<Vec<Finding>> {
        let mut state = self.lock();
        if !state.held.is_empty() {
            return Err(Error::Conflict(
                "published ports can be restored at the start only: some are published already"
                    .to_owned(),
            ));
        }
        let mut findings = Vec::new();
        let mut held = BTreeMap::new();
        for publication in publications {
            let mut reservations = Vec::new();
            for port in &publication.ports {
                match reservation::exact(port.host_ip, port.host_port, port.protocol, self.place) {
                    Ok(reservation) => reservations.push(reservation),
                    Err(error) => findings.push(Finding::PortTakenByOther {
                        container_id: publication.container_id.clone(),
                        port: port.host_port,
                        cause: gamut_spec::error::chain(&error),
                    }),
                }
            }
            let entry = Held {
                address: publication.address,
                ports: publication.ports.clone(),
                _reservations: reservations,
            };
            held.insert(publication.container_id.clone(), entry);
        }
        self.firewall
            .replace_published(held.values().flat_map(Held::elements))?;
        state.held = held;
        Ok(findings)
    }

    /// All publications, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Publication> {
        let state = self.lock();
        let publication = |(id, held): (&String, &Held)| Publication {
            container_id: id.clone(),
            address: held.address,
            ports: held.ports.clone(),
        };
        state.held.iter().map(publication).collect()
    }

    /// What differs from what should be: `live` holds the ids of all workloads that run,
    /// including those being started. Changes nothing.
    ///
    /// # Errors
    /// nft's.
    pub fn check(&self, live: &BTreeSet<String>) -> Result<Vec<Finding>> {
        let state = self.lock();
        self.findings(&state, live)
    }

    /// Repairs what [`Ports::check`] finds, and returns it. After [`Network::reconcile`], which
    /// brings back the table.
    ///
    /// # Errors
    /// nft's; nothing has changed then.
    pub fn reconcile(&self, live: &BTreeSet<String>) -> Result<Vec<Finding>> {
        let mut state = self.lock();
        let findings = self.findings(&state, live)?;
        if !findings.is_empty() {
            let kept = state.held.iter().filter(|(id, _)| live.contains(*id));
            self.firewall
                .replace_published(kept.flat_map(|(_, held)| held.elements()))?;
            state.held.retain(|id, _| live.contains(id));
        }
        Ok(findings)
    }

    fn findings(&self, state: &State, live: &BTreeSet<String>) -> Result<Vec<Finding>> {
        let stale = state.held.keys().filter(|id| !live.contains(*id));
        let mut findings: Vec<Finding> = stale
            .map(|id| Finding::StalePublication {
                container_id: id.clone(),
            })
            .collect();
        let table = self.firewall.state()?.unwrap_or_default();
        let mut wrong = 0;
        for map in PUBLISHED_MAPS {
            let wanted: BTreeSet<String> = state
                .held
                .values()
                .flat_map(Held::elements)
                .filter(|(name, _)| *name == map)
                .map(|(_, element)| element)
                .collect();
            wrong += table.elements_of(map).symmetric_difference(&wanted).count();
        }
        if wrong > 0 {
            findings.push(Finding::PublicationsDamaged { entries: wrong });
        }
        Ok(findings)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn elements(&self) -> Vec<(&'static str, String)> {
        elements(self.address, &self.ports)
    }

    /// Whether these publications are what the request asks for.
    fn answers(&self, address: Ipv4Addr, mappings: &[PortMapping]) -> bool {
        let same = |(port, mapping): (&Published, &PortMapping)| {
            host_address(mapping).is_ok_and(|host_ip| host_ip == port.host_ip)
                && (mapping.host_port == 0 || mapping.host_port == port.host_port)
                && mapping.container_port == port.container_port
                && mapping.protocol == port.protocol
        };
        self.address == address
            && self.ports.len() == mappings.len()
            && self.ports.iter().zip(mappings).all(same)
    }
}

/// The map and the element for each port.
fn elements(address: Ipv4Addr, ports: &[Published]) -> Vec<(&'static str, String)> {
    let element = |port: &Published| {
        let target = format!("{address} . {}", port.container_port);
        let any = port.host_ip.is_unspecified();
        let map = match (port.protocol, any) {
            (Protocol::Tcp, false) => "published_tcp",
            (Protocol::Tcp, true) => "published_tcp_any",
            (Protocol::Udp, false) => "published_udp",
            (Protocol::Udp, true) => "published_udp_any",
            (Protocol::Sctp, _) => return None,
        };
        let key = if any {
            port.host_port.to_string()
        } else {
            format!("{} . {}", port.host_ip, port.host_port)
        };
        Some((map, format!("{key} : {target}")))
    };
    ports.iter().filter_map(element).collect()
}

fn check(mapping: &PortMapping) -> Result<()> {
    if mapping.container_port == 0 {
        return Err(Error::InvalidArgument(
            "invalid container port 0: a port to publish lies between 1 and 65535".to_owned(),
        ));
    }
    if mapping.protocol == Protocol::Sctp {
        return Err(Error::Unsupported(format!(
            "port {}/sctp cannot be published: only tcp and udp can",
            mapping.container_port
        )));
    }
    host_address(mapping).map(drop)
}

fn host_address(mapping: &PortMapping) -> Result<Ipv4Addr> {
    match mapping.host_ip {
        None => Ok(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(address)) if address.is_multicast() || address.is_broadcast() => {
            Err(Error::InvalidArgument(format!(
                "host address {address} is not that of a single host"
            )))
        }
        Some(IpAddr::V4(address)) => Ok(address),
        Some(IpAddr::V6(address)) => Err(Error::Unsupported(format!(
            "port {} cannot be published at IPv6 address {address}: this network has no IPv6, use an IPv4 address or none",
            mapping.container_port
        ))),
    }
}

/// Old UDP flows would go on to where they went before. Failing to forget them is no reason to
/// refuse the ports: they expire by themselves.
fn forget_flows(address: Ipv4Addr, ports: &[Published]) {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let udp: Vec<u16> = udp.map(|port| port.host_port).collect();
    if udp.is_empty() {
        return;
    }
    if let Err(error) = conntrack::forget_udp(address, &udp) {
        tracing::warn!(%error, "old UDP flows to published ports live on until they expire");
    }
}

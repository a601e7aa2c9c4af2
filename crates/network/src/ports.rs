//! Published ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::conntrack;
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::firewall::Firewall;
use crate::inet::Family;
use crate::network::Network;
use crate::reservation::{self, Place, Reservation};
use crate::rules::PUBLISHED_MAPS;

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
    /// The host's address, 0.0.0.0 and :: for all of a family; none for all of the families that
    /// the workload has.
    pub host_ip: Option<IpAddr>,
    /// The host's port; 0 to have one chosen.
    pub host_port: u16,
    /// With it, the first port that is free from `host_port` to this one; 0 for `host_port` only.
    #[serde(default)]
    pub host_port_last: u16,
    /// The workload's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The host's address, 0.0.0.0 or :: for all of its family.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The workload's port.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Addresses of a workload to which ports are led. Each family of the host's addresses leads to the
/// same family of the workload's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl From<Ipv4Addr> for Target {
    fn from(address: Ipv4Addr) -> Self {
        Self {
            ipv4: Some(address),
            ipv6: None,
        }
    }
}

impl Target {
    /// The address to which a host address leads.
    fn of(self, host_ip: IpAddr) -> Option<IpAddr> {
        match host_ip {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }
}

/// All published ports of one workload, for the record and for [`Ports::restore`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The workload's id.
    pub container_id: String,
    /// The workload's addresses.
    pub target: Target,
    /// Its published ports.
    pub ports: Vec<Published>,
}

/// The published ports of all workloads of one engine. Thread-safe.
#[derive(Debug)]
pub struct Ports {
    /// The table of each family; that of IPv6 may not exist.
    firewalls: [Firewall; 2],
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
    target: Target,
    ports: Vec<Published>,
    /// Keep everybody else off the host ports while they are published.
    _reservations: Vec<Reservation>,
}

impl Ports {
    /// The publications in the tables of `network`, which serve all networks that share them.
    /// Call [`Ports::restore`] before the first publication.
    ///
    /// # Errors
    /// None that a network's configuration has not had.
    pub fn new(network: &Network) -> Result<Self> {
        let table = network.table();
        Ok(Self {
            firewalls: [
                Firewall::new(Family::V4, table)?,
                Firewall::new(Family::V6, table)?,
            ],
            place: Place::default(),
            state: Mutex::default(),
        })
    }

    /// The same where the network is in a namespace of the engine's own, to which somebody else
    /// leads the ports of the host: addresses of the host that are not there are taken as well.
    /// IPv4 only, since only that is led there.
    ///
    /// # Errors
    /// As [`Ports::new`].
    pub fn inside(network: &Network) -> Result<Self> {
        Ok(Self {
            place: Place::Inside,
            ..Self::new(network)?
        })
    }

    /// Publishes all of `mappings` for a workload, or none. Idempotent: what is published already
    /// for the same id, addresses and mappings is returned as it is. A mapping that names no host
    /// address yields a port of each family that the workload has, with the same number.
    ///
    /// # Errors
    /// [`Error::PortTaken`] if another publication or process has the port, `Conflict` if the id
    /// has other ports published, `InvalidArgument` for a container port of 0 or an address that
    /// is not this host's, `Unsupported` for SCTP and for an address of a family that the workload
    /// has not, `Unavailable` if no port is free.
    pub fn publish(
        &self,
        container_id: &str,
        target: impl Into<Target>,
        mappings: &[PortMapping],
    ) -> Result<Vec<Published>> {
        let target = self.reachable(target.into());
        for mapping in mappings {
            check(mapping)?;
            host_addresses(mapping, target)?;
        }
        let mut state = self.lock();
        if let Some(held) = state.held.get(container_id) {
            if held.answers(target, mappings) {
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
                .is_some_and(|mapping| mapping.choices() != 1)
        });
        for index in order {
            let Some(mapping) = mappings.get(index) else {
                continue;
            };
            let addresses = host_addresses(mapping, target)?;
            let socket = reservation::Wish {
                addresses: &addresses,
                protocol: mapping.protocol,
                place: self.place,
            };
            let held = match (mapping.host_port, mapping.host_port_last) {
                (0, _) => socket.any(&mut state.next_port)?,
                (first, last) if last > first => socket.first_of(first, last)?,
                (port, _) => socket.exact(port)?,
            };
            for (host_ip, reservation) in addresses.into_iter().zip(held) {
                let published = Published {
                    host_ip,
                    host_port: reservation.port(),
                    container_port: mapping.container_port,
                    protocol: mapping.protocol,
                };
                ports.push((index, published));
                reservations.push(reservation);
            }
        }
        ports.sort_by_key(|(index, _)| *index);
        let ports: Vec<Published> = ports.into_iter().map(|(_, published)| published).collect();
        self.change("add", target, &ports)?;
        forget_flows(target, &ports);
        let held = Held {
            target,
            ports: ports.clone(),
            _reservations: reservations,
        };
        state.held.insert(container_id.to_owned(), held);
        Ok(ports)
    }

    /// The addresses of a workload to which ports of the host can be led.
    fn reachable(&self, target: Target) -> Target {
        match self.place {
            Place::Host => target,
            Place::Inside => Target {
                ipv6: None,
                ..target
            },
        }
    }

    /// Adds or deletes the ports of a workload, in each family that they have.
    fn change(&self, verb: &str, target: Target, ports: &[Published]) -> Result<()> {
        let mut done: Vec<&Firewall> = Vec::new();
        for firewall in &self.firewalls {
            let changed = firewall.change_elements(verb, elements(firewall, target, ports));
            if let Err(error) = changed {
                // All or none, over two tables.
                if verb == "add" {
                    for firewall in done {
                        let undone =
                            firewall.change_elements("delete", elements(firewall, target, ports));
                        if let Err(error) = undone {
                            tracing::warn!(%error, "half published ports could not be taken back");
                        }
                    }
                }
                return Err(error);
            }
            done.push(firewall);
        }
        Ok(())
    }

    /// Makes the maps of both tables hold exactly what these hold.
    fn replace(&self, held: &[&Held]) -> Result<()> {
        for firewall in &self.firewalls {
            let elements: Vec<_> = held
                .iter()
                .flat_map(|held| held.elements(firewall))
                .collect();
            // The table of IPv6 is there only if a network has that.
            let optional = firewall.family() == Family::V6 && elements.is_empty();
            if optional && firewall.state()?.is_none() {
                continue;
            }
            firewall.replace_published(elements)?;
        }
        Ok(())
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
        let (target, ports) = (held.target, held.ports.clone());
        if let Err(error) = self.change("delete", target, &ports) {
            // Someone else may have emptied the tables: put all the others back. Without a table
            // nothing is published; bringing it back is the network's task.
            tracing::warn!(%error, "published ports could not be deleted and are written anew");
            let others = state.held.iter().filter(|(id, _)| *id != container_id);
            for firewall in &self.firewalls {
                if firewall.state()?.is_some() {
                    let others = others.clone().map(|(_, held)| held);
                    firewall.replace_published(others.flat_map(|held| held.elements(firewall)))?;
                }
            }
        }
        state.held.remove(container_id);
        forget_flows(target, &ports);
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
                let socket = reservation::Wish {
                    addresses: &[port.host_ip],
                    protocol: port.protocol,
                    place: self.place,
                };
                match socket.exact(port.host_port) {
                    Ok(held) => reservations.extend(held),
                    Err(error) => findings.push(Finding::PortTakenByOther {
                        container_id: publication.container_id.clone(),
                        port: port.host_port,
                        cause: gamut_spec::error::chain(&error),
                    }),
                }
            }
            let entry = Held {
                target: publication.target,
                ports: publication.ports.clone(),
                _reservations: reservations,
            };
            held.insert(publication.container_id.clone(), entry);
        }
        self.replace(&held.values().collect::<Vec<_>>())?;
        state.held = held;
        Ok(findings)
    }

    /// Whether a workload's ports are published as [`Ports::publish`] would do it now.
    #[must_use]
    pub fn holds(
        &self,
        container_id: &str,
        target: impl Into<Target>,
        mappings: &[PortMapping],
    ) -> bool {
        let target = self.reachable(target.into());
        let state = self.lock();
        let held = state.held.get(container_id);
        held.is_some_and(|held| held.answers(target, mappings))
    }

    /// All publications, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Publication> {
        let state = self.lock();
        let publication = |(id, held): (&String, &Held)| Publication {
            container_id: id.clone(),
            target: held.target,
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
            let kept: Vec<&Held> = kept.map(|(_, held)| held).collect();
            self.replace(&kept)?;
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
        let mut wrong = 0;
        for firewall in &self.firewalls {
            let table = firewall.state()?.unwrap_or_default();
            for map in PUBLISHED_MAPS {
                let wanted: BTreeSet<String> = state
                    .held
                    .values()
                    .flat_map(|held| held.elements(firewall))
                    .filter(|(name, _)| *name == map)
                    .map(|(_, element)| element)
                    .collect();
                wrong += table.elements_of(map).symmetric_difference(&wanted).count();
            }
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

impl PortMapping {
    /// How many ports are to be tried, 0 for all.
    fn choices(&self) -> u16 {
        match (self.host_port, self.host_port_last) {
            (0, _) => 0,
            (first, last) => last.saturating_sub(first).saturating_add(1),
        }
    }

    fn allows(&self, port: u16) -> bool {
        match self.choices() {
            0 => true,
            1 => port == self.host_port,
            _ => (self.host_port..=self.host_port_last).contains(&port),
        }
    }
}

impl Held {
    fn elements(&self, firewall: &Firewall) -> Vec<(&'static str, String)> {
        elements(firewall, self.target, &self.ports)
    }

    /// Whether these publications are what the request asks for.
    fn answers(&self, target: Target, mappings: &[PortMapping]) -> bool {
        let mut wanted = Vec::new();
        for mapping in mappings {
            let addresses = host_addresses(mapping, target).unwrap_or_default();
            wanted.extend(addresses.into_iter().map(|address| (address, mapping)));
        }
        let same = |(port, (host_ip, mapping)): (&Published, &(IpAddr, &PortMapping))| {
            *host_ip == port.host_ip
                && mapping.allows(port.host_port)
                && mapping.container_port == port.container_port
                && mapping.protocol == port.protocol
        };
        self.target == target
            && self.ports.len() == wanted.len()
            && self.ports.iter().zip(&wanted).all(same)
    }
}

/// The map and the element for each port of a table's family.
fn elements(
    firewall: &Firewall,
    target: Target,
    ports: &[Published],
) -> Vec<(&'static str, String)> {
    let element = |port: &Published| {
        let target = target
            .of(port.host_ip)
            .filter(|_| Family::of(port.host_ip) == firewall.family())?;
        let target = format!("{target} . {}", port.container_port);
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
    if mapping.host_port == 0 && mapping.host_port_last > 0
        || (1..mapping.host_port).contains(&mapping.host_port_last)
    {
        return Err(Error::InvalidArgument(format!(
            "invalid host ports {}-{}: the last port of a range is not below the first",
            mapping.host_port, mapping.host_port_last
        )));
    }
    Ok(())
}

/// The host's addresses at which a mapping is published.
fn host_addresses(mapping: &PortMapping, target: Target) -> Result<Vec<IpAddr>> {
    let Some(address) = mapping.host_ip else {
        let all = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        return Ok(all
            .into_iter()
            .filter(|address| target.of(*address).is_some())
            .collect());
    };
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_multicast() || is_broadcast {
        return Err(Error::InvalidArgument(format!(
            "host address {address} is not that of a single host"
        )));
    }
    if target.of(address).is_some() {
        return Ok(vec![address]);
    }
    Err(Error::Unsupported(match address {
        IpAddr::V6(_) => format!(
            "port {} cannot be published at IPv6 address {address}: this network has no IPv6, use an IPv4 address or none",
            mapping.container_port
        ),
        IpAddr::V4(_) => format!(
            "port {} cannot be published at IPv4 address {address}: this network has no IPv4, use an IPv6 address or none",
            mapping.container_port
        ),
    }))
}

/// Old UDP flows would go on to where they went before. Failing to forget them is no reason to
/// refuse the ports: they expire by themselves.
fn forget_flows(target: Target, ports: &[Published]) {
    let targets = [target.ipv4.map(IpAddr::V4), target.ipv6.map(IpAddr::V6)];
    for address in targets.into_iter().flatten() {
        let udp = ports.iter().filter(|port| {
            port.protocol == Protocol::Udp && port.host_ip.is_ipv4() == address.is_ipv4()
        });
        let udp: Vec<u16> = udp.map(|port| port.host_port).collect();
        if udp.is_empty() {
            continue;
        }
        if let Err(error) = conntrack::forget_udp(address, &udp) {
            tracing::warn!(%error, "old UDP flows to published ports live on until they expire");
        }
    }
}

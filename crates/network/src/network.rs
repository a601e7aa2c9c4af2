//! A bridged network: its bridge, its place in the firewall, its host-side interfaces.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::address::Ipv4Subnet;
use crate::bridge::{self, Bridge, BridgeConfig, Ipv6Config};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::firewall::{Firewall, Member};
use crate::forwarding::{self, Forwarding};
use crate::inet::{self, Family};
use crate::link;
use crate::namespace::NetworkNamespace;
use crate::netlink::NetlinkSocket;
use crate::shaping;
use crate::statistics::InterfaceStatistics;

/// How the names of our host-side interfaces begin. Followed by eight hexadecimal digits.
const INTERFACE_PREFIX: &str = "gv";
/// How long the kernel may take to clear away the interfaces of namespaces that have just ended.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the kernel may take to let packets through a new bridge port.
const OPENING: Duration = Duration::from_millis(100);
/// How many times to try another name when one is taken.
const NAME_ATTEMPTS: u32 = 16;

/// One bridge with its addresses and rules. Cheap to clone; all clones are the same network.
/// All calls belong into the network namespace in which [`Network::ensure`] was called.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: BridgeConfig,
    subnet: Ipv4Subnet,
    gateway: Ipv4Addr,
    mtu: u32,
    /// Changes only if the bridge had to be made anew.
    index: AtomicU32,
    /// Its place in the table of each family that it has.
    places: Vec<Forwarding>,
    socket: Mutex<NetlinkSocket>,
    /// Host ends of namespaces that are ready and not yet given away.
    prepared: Mutex<BTreeSet<String>>,
    next_name: AtomicU32,
}

impl Network {
    /// Makes the network or adopts what is there of it: bridge, address, kernel settings, table.
    /// Idempotent. `ip_forward` is switched on if it is off, together with a rule that keeps the
    /// host from forwarding for anybody else; nothing else of the host changes.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad configuration, `Conflict` if the name is taken by something
    /// else or no subnet is free, `Forbidden` without CAP_NET_ADMIN or with a read-only /proc/sys,
    /// `Unavailable` without nft; the kernel's otherwise.
    pub fn ensure(config: &BridgeConfig) -> Result<Self> {
        let mut wanted = vec![(Firewall::new(Family::V4, &config.table)?, String::new())];
        if let Some(ipv6) = config.ipv6 {
            let firewall = Firewall::new(Family::V6, &config.table)?;
            wanted.push((firewall, ipv6.subnet.to_string()));
        }
        let mut socket = NetlinkSocket::route()?;
        let bridge = bridge::ensure(&mut socket, config)?;
        if let Some((_, subnet)) = wanted.first_mut() {
            *subnet = bridge.subnet.to_string();
        }
        let mut places = Vec::with_capacity(wanted.len());
        for (firewall, subnet) in wanted {
            let member = Member {
                bridge: config.name.clone(),
                subnet,
                internal: config.internal,
                masquerade: config.masquerade,
                linked: config.linked,
            };
            match forwarding::begin(&firewall, &member) {
                Ok(place) => places.push(place),
                Err(error) => {
                    if bridge.is_new {
                        undo(&mut socket, config, &[(firewall, member)], &places, bridge);
                    }
                    return Err(error);
                }
            }
        }
        let inner = Inner {
            config: config.clone(),
            subnet: bridge.subnet,
            gateway: bridge.gateway,
            mtu: bridge.mtu,
            index: AtomicU32::new(bridge.index),
            places,
            socket: Mutex::new(socket),
            prepared: Mutex::default(),
            next_name: AtomicU32::new(random_u32()?),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Removes the bridge and its rules; the table too if no other network uses it. Pools of this
    /// network are to be dropped before.
    ///
    /// # Errors
    /// `Conflict` while workloads are attached; the kernel's or nft's otherwise.
    pub fn remove(&self) -> Result<()> {
        let mut socket = self.socket();
        if let Some(bridge) = link::find(&mut socket, self.name())? {
            let deadline = Instant::now() + FAREWELL;
            let mut attached = self.attached(&mut socket, bridge.index)?;
            while !attached.is_empty() && Instant::now() < deadline {
                std::thread::sleep(FAREWELL / 50);
                attached = self.attached(&mut socket, bridge.index)?;
            }
            if !attached.is_empty() {
                return Err(Error::Conflict(format!(
                    "network {} has active endpoints ({}): stop their workloads first",
                    self.name(),
                    attached.into_iter().collect::<Vec<_>>().join(", ")
                )));
            }
            socket.execute(vec![link::delete(bridge.index, self.name())])?;
        }
        self.inner.places.iter().try_for_each(Forwarding::end)
    }

    /// The bridge's interface name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// The subnet of the workloads' addresses.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Subnet {
        self.inner.subnet
    }

    /// The bridge's own address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.gateway
    }

    /// Its IPv6 addresses, if it has any.
    #[must_use]
    pub fn ipv6(&self) -> Option<Ipv6Config> {
        self.inner.config.ipv6
    }

    /// The size of the largest packet in bytes.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.inner.mtu
    }

    /// The counters of the workload behind a host-side interface, called `name` in the answer.
    /// Needs no process in its namespace, so it serves machines too.
    ///
    /// # Errors
    /// `NotFound` if there is no such interface; the kernel's otherwise.
    pub fn statistics(&self, host_interface: &str, name: &str) -> Result<InterfaceStatistics> {
        let found = link::find(&mut self.socket(), host_interface)?;
        let counters = found.ok_or_else(|| no_interface(host_interface))?.counters;
        // What the host end received is what the workload sent.
        Ok(InterfaceStatistics {
            name: name.to_owned(),
            rx_bytes: counters.tx_bytes,
            rx_packets: counters.tx_packets,
            rx_errors: counters.tx_errors,
            rx_dropped: counters.tx_dropped,
            tx_bytes: counters.rx_bytes,
            tx_packets: counters.rx_packets,
            tx_errors: counters.rx_errors,
            tx_dropped: counters.rx_dropped,
        })
    }

    /// Removes a workload's interface at once. Not needed when its namespace ends: the kernel
    /// then removes the interface by itself. Returns whether there was one.
    ///
    /// # Errors
    /// `InvalidArgument` if the interface is none of this network's; the kernel's otherwise.
    pub fn detach(&self, host_interface: &str) -> Result<bool> {
        let mut socket = self.socket();
        let Some(found) = link::find(&mut socket, host_interface)? else {
            return Ok(false);
        };
        if !is_ours(host_interface) || !found.is_veth {
            return Err(Error::InvalidArgument(format!(
                "interface {host_interface} is not an endpoint of network {}",
                self.name()
            )));
        }
        match socket.execute(vec![link::delete(found.index, host_interface)]) {
            // Its namespace ended meanwhile.
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// What differs from what should be: `live` holds the host-side interfaces of all workloads
    /// that run, including those being started. Changes nothing.
    ///
    /// # Errors
    /// The kernel's or nft's.
    pub fn check(&self, live: &BTreeSet<String>) -> Result<Vec<Finding>> {
        self.check_among(live, live)
    }

    /// As [`Network::check`], where there are several networks: `own` holds the interfaces of
    /// this one's workloads, `all` those of every network's.
    ///
    /// # Errors
    /// As [`Network::check`].
    pub fn check_among(
        &self,
        own: &BTreeSet<String>,
        all: &BTreeSet<String>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let bridge_name = self.name().to_owned();
        let mut socket = self.socket();
        let links = link::list(&mut socket)?;
        let bridge = links.iter().find(|link| link.name == bridge_name);
        let has_address = match bridge {
            Some(bridge) => self.has_addresses(&mut socket, bridge.index)?,
            None => false,
        };
        drop(socket);
        if !bridge.is_some_and(|bridge| bridge.is_up && has_address) {
            findings.push(Finding::BridgeDamaged {
                bridge: bridge_name,
            });
        }
        let index = bridge.map(|bridge| bridge.index);
        let prepared = self.prepared().clone();
        for link in links
            .iter()
            .filter(|link| link.is_veth && is_ours(&link.name))
        {
            let attached = link.bridge.is_some() && link.bridge == index;
            let known = all.contains(&link.name) || prepared.contains(&link.name);
            // One that hangs on another bridge may be another network's.
            if !known && (attached || link.bridge.is_none()) {
                findings.push(Finding::StaleInterface {
                    interface: link.name.clone(),
                });
            } else if own.contains(&link.name) && link.bridge.is_none() {
                findings.push(Finding::InterfaceDetached {
                    interface: link.name.clone(),
                });
            }
        }
        findings.extend(self.check_rules()?);
        Ok(findings)
    }

    /// Repairs what [`Network::check`] finds, and returns it. A table that was lost comes back
    /// without its published ports: `Ports::reconcile` puts those back.
    ///
    /// # Errors
    /// The kernel's or nft's. What was repaired before stays repaired.
    pub fn reconcile(&self, live: &BTreeSet<String>) -> Result<Vec<Finding>> {
        self.reconcile_among(live, live)
    }

    /// As [`Network::reconcile`], where there are several networks; see [`Network::check_among`].
    ///
    /// # Errors
    /// As [`Network::reconcile`].
    pub fn reconcile_among(
        &self,
        own: &BTreeSet<String>,
        all: &BTreeSet<String>,
    ) -> Result<Vec<Finding>> {
        let findings = self.check_among(own, all)?;
        for finding in &findings {
            match finding {
                Finding::BridgeDamaged { .. } => self.repair_bridge()?,
                Finding::FirewallDamaged { .. } => self.renew(finding)?,
                Finding::StaleInterface { interface } => {
                    self.detach(interface)?;
                }
                Finding::InterfaceDetached { interface } => self.reattach(interface)?,
                _ => {}
            }
        }
        Ok(findings)
    }

    fn check_rules(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for place in &self.inner.places {
            if !place.is_complete()? {
                findings.push(Finding::FirewallDamaged {
                    table: place.table().to_owned(),
                });
            }
        }
        Ok(findings)
    }

    /// Brings its rules back if somebody took them away, and nothing else. A table that was lost
    /// comes back without its published ports.
    ///
    /// # Errors
    /// nft's.
    pub fn reconcile_rules(&self) -> Result<Vec<Finding>> {
        let findings = self.check_rules()?;
        for finding in &findings {
            self.renew(finding)?;
        }
        Ok(findings)
    }

    fn renew(&self, finding: &Finding) -> Result<()> {
        let Finding::FirewallDamaged { table } = finding else {
            return Ok(());
        };
        let mut places = self.inner.places.iter();
        places
            .find(|place| place.table() == table)
            .map_or(Ok(()), Forwarding::renew)
    }

    fn repair_bridge(&self) -> Result<()> {
        let exact = BridgeConfig {
            subnet: Some(self.inner.subnet),
            gateway: Some(self.inner.gateway),
            mtu: Some(self.inner.mtu),
            ..self.inner.config.clone()
        };
        let bridge = bridge::ensure(&mut self.socket(), &exact)?;
        self.inner.index.store(bridge.index, Ordering::Relaxed);
        // Namespaces prepared for the bridge that is gone hang in the air.
        let prepared = self.prepared().clone();
        for interface in prepared {
            self.reattach(&interface)?;
        }
        Ok(())
    }

    fn reattach(&self, interface: &str) -> Result<()> {
        let mut socket = self.socket();
        match link::find(&mut socket, interface)? {
            Some(found) => {
                let bridge = self.inner.index.load(Ordering::Relaxed);
                let isolated = !self.inner.config.linked;
                socket.execute(link::attach(found.index, bridge, interface, isolated).into())
            }
            None => Ok(()),
        }
    }

    /// Makes a veth pair into `namespace` and returns the host end's name. It counts as prepared
    /// until [`Network::given_away`].
    pub(crate) fn make_veth(
        &self,
        namespace: &NetworkNamespace,
        peer_name: &str,
    ) -> Result<String> {
        use std::os::fd::AsFd;
        let mut attempt = 0;
        loop {
            let number = self.inner.next_name.fetch_add(1, Ordering::Relaxed);
            let host_name = format!("{INTERFACE_PREFIX}{number:08x}");
            let pair = link::VethPair {
                host_name: &host_name,
                bridge: self.inner.index.load(Ordering::Relaxed),
                isolated: !self.inner.config.linked,
                mtu: self.inner.mtu,
                peer_name,
                peer_namespace: namespace.as_fd(),
            };
            // Before it exists, so that a concurrent check does not take it for a stale one.
            self.prepared().insert(host_name.clone());
            match self.socket().execute(link::create_veth(&pair).into()) {
                Ok(()) => return Ok(host_name),
                Err(error) => {
                    self.given_away(&host_name);
                    attempt += 1;
                    if error.errno() != Some(libc::EEXIST) || attempt >= NAME_ATTEMPTS {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Waits until packets pass through a port and the bridge, at most [`OPENING`]: late, the
    /// network is slow for a moment; it is not broken.
    pub(crate) fn await_forwarding(&self, host_interface: &str) -> Result<()> {
        let deadline = Instant::now() + OPENING;
        loop {
            let mut socket = self.socket();
            let port = link::find(&mut socket, host_interface)?;
            let bridge = link::find(&mut socket, self.name())?;
            drop(socket);
            if port.is_some_and(|port| port.is_forwarding)
                && bridge.is_some_and(|bridge| bridge.is_operational)
            {
                return Ok(());
            }
            if Instant::now() >= deadline {
                tracing::debug!(host_interface, "the bridge does not forward yet");
                return Ok(());
            }
            std::thread::sleep(OPENING / 1000);
        }
    }

    /// Limits what a host end sends, which is what its workload receives.
    pub(crate) fn limit(&self, host_index: u32, bits_per_second: u64) -> Result<()> {
        let request = shaping::limit(host_index, bits_per_second);
        self.socket().execute(vec![request])
    }

    /// The host end belongs to a workload now, or is gone.
    pub(crate) fn given_away(&self, host_interface: &str) {
        self.prepared().remove(host_interface);
    }

    /// Whether the bridge has all its addresses.
    fn has_addresses(&self, socket: &mut NetlinkSocket, index: u32) -> Result<bool> {
        let inner = &self.inner;
        let wanted = (IpAddr::V4(inner.gateway), inner.subnet.prefix());
        if !inet::addresses(socket, Family::V4, index)?.contains(&wanted) {
            return Ok(false);
        }
        let Some(ipv6) = inner.config.ipv6 else {
            return Ok(true);
        };
        let wanted = (IpAddr::V6(ipv6.gateway), ipv6.subnet.prefix());
        Ok(inet::addresses(socket, Family::V6, index)?.contains(&wanted))
    }

    /// The name of the tables, shared by all networks of one engine.
    pub(crate) fn table(&self) -> &str {
        &self.inner.config.table
    }

    /// Ports of the bridge that are not merely prepared.
    fn attached(&self, socket: &mut NetlinkSocket, index: u32) -> Result<BTreeSet<String>> {
        let prepared = self.prepared().clone();
        let ports = link::list(socket)?
            .into_iter()
            .filter(|link| link.bridge == Some(index));
        Ok(ports
            .map(|link| link.name)
            .filter(|name| !prepared.contains(name))
            .collect())
    }

    fn socket(&self) -> MutexGuard<'_, NetlinkSocket> {
        // The socket skips answers to requests that were given up, so a panic leaves it usable.
        self.inner
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn prepared(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.inner
            .prepared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes back a bridge that was made for nothing.
fn undo(
    socket: &mut NetlinkSocket,
    config: &BridgeConfig,
    begun: &[(Firewall, Member)],
    places: &[Forwarding],
    bridge: Bridge,
) {
    let link = socket.execute(vec![link::delete(bridge.index, &config.name)]);
    let rules = begun
        .iter()
        .map(|(firewall, member)| firewall.remove(member).map(drop));
    let ended = places.iter().map(Forwarding::end);
    let outcomes = std::iter::once(link).chain(rules).chain(ended);
    for error in outcomes.filter_map(Result::err) {
        tracing::warn!(%error, "a half made network could not be removed");
    }
}

fn is_ours(interface: &str) -> bool {
    interface
        .strip_prefix(INTERFACE_PREFIX)
        .is_some_and(|number| {
            number.len() == 8 && number.bytes().all(|digit| digit.is_ascii_hexdigit())
        })
}

fn no_interface(name: &str) -> Error {
    Error::NotFound(format!(
        "interface {name} does not exist: its workload has ended"
    ))
}

/// A start for interface names that differs from that of the daemon before, whose interfaces
/// may still be there.
fn random_u32() -> Result<u32> {
    let mut bytes = [0_u8; 4];
    // SAFETY: getrandom(2) writes at most `bytes.len()` bytes into `bytes`.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(written) == Ok(bytes.len()) {
        Ok(u32::from_ne_bytes(bytes))
    } else {
        Err(Error::last_os("get random bytes"))
    }
}

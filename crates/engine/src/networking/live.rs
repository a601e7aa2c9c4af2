//! A network in force: its record, its bridge, and who has which of its addresses.

use super::record::{Addresses, NetworkRecord, OPTION_ICC, OPTION_MASQUERADE, OPTION_MTU};
use super::{failed, options};
use crate::error::{Error, Result};
use gamut_network::{
    BridgeConfig, Ipam, Ipv6Config, Ipv6Place, Ipv6Subnet, MacvlanConfig, Network, Subnet,
};
use gamut_spec::error::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A network of the bridge driver, or of macvlan.
#[derive(Debug)]
pub(super) struct Live {
    pub record: NetworkRecord,
    ipam: Ipam,
    ipam6: Option<Ipam<Ipv6Subnet>>,
    /// Set where it has no bridge, but an interface of the host's.
    macvlan: Option<MacvlanConfig>,
    table: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` if it could not be had so far.
    bridge: Option<Network>,
    /// It is removed: nobody gets an address any more.
    gone: bool,
}

impl Live {
    /// A network with this record; its bridge is made with [`Live::bridge`].
    ///
    /// # Errors
    /// `InvalidArgument` if the addresses of the record make no sense.
    pub fn new(record: NetworkRecord, table: &str) -> Result<Self> {
        let ipam = ipam(&record)?;
        let ipam6 = record.addresses6.as_ref().map(check).transpose();
        let ipam6 = ipam6.map_err(|error| failed(&error))?;
        let macvlan = options::macvlan(&record)?;
        Ok(Self {
            record,
            ipam,
            ipam6,
            macvlan,
            table: table.to_owned(),
            state: Mutex::default(),
        })
    }

    /// The default network, whose bridge is there.
    ///
    /// # Errors
    /// As [`Live::new`].
    pub fn with_bridge(record: NetworkRecord, table: &str, bridge: Network) -> Result<Self> {
        let live = Self::new(record, table)?;
        live.lock().bridge = Some(bridge);
        Ok(live)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interface of the host's on which it hangs, in place of a bridge.
    pub fn macvlan(&self) -> Option<&MacvlanConfig> {
        self.macvlan.as_ref()
    }

    /// Puts it in force: makes or adopts its bridge, or looks at its parent.
    ///
    /// # Errors
    /// Those of `Network::ensure` and `MacvlanConfig::check`.
    pub fn put_in_force(&self) -> Result<()> {
        match &self.macvlan {
            Some(macvlan) => macvlan.check().map_err(|error| failed(&error)),
            None => self.bridge().map(drop),
        }
    }

    /// The size of its largest packet in bytes.
    ///
    /// # Errors
    /// As [`Live::put_in_force`].
    pub fn mtu(&self) -> Result<u32> {
        match &self.macvlan {
            Some(macvlan) => macvlan.mtu().map_err(|error| failed(&error)),
            None => self.bridge().map(|bridge| bridge.mtu()),
        }
    }

    /// Its bridge, which is made or adopted if that has not succeeded yet.
    ///
    /// # Errors
    /// Those of `Network::ensure`; `InvalidArgument` if it has none by its driver.
    pub fn bridge(&self) -> Result<Network> {
        if self.macvlan.is_some() {
            return Err(Error::invalid(format!(
                "network {} has no bridge: its driver is {}",
                self.record.name, self.record.driver
            )));
        }
        let mut state = self.lock();
        if let Some(bridge) = &state.bridge {
            return Ok(bridge.clone());
        }
        let made = Network::ensure(&self.config()).map_err(|error| {
            Error::new(
                error.kind(),
                format!(
                    "network {}: {}",
                    self.record.name,
                    gamut_spec::error::chain(&error)
                ),
            )
        })?;
        state.bridge = Some(made.clone());
        Ok(made)
    }

    /// Works on its bridge while nobody takes it down; `None` if somebody has, or it was never had.
    /// What is repaired meanwhile is not left behind by a removal.
    pub fn while_in_force<T>(&self, work: impl FnOnce(&Network) -> T) -> Option<T> {
        let state = self.lock();
        let bridge = state.bridge.as_ref().filter(|_| !state.gone);
        bridge.map(work)
    }

    fn config(&self) -> BridgeConfig {
        let record = &self.record;
        let addresses = record.addresses.as_ref();
        BridgeConfig {
            name: record.bridge.clone(),
            subnet: addresses.map(|addresses| addresses.subnet),
            gateway: addresses.map(|addresses| addresses.gateway),
            mtu: record
                .options
                .get(OPTION_MTU)
                .and_then(|mtu| mtu.parse().ok()),
            table: self.table.clone(),
            candidates: Vec::new(),
            internal: record.internal,
            masquerade: record.switch(OPTION_MASQUERADE, true),
            linked: record.switch(OPTION_ICC, true),
            ipv6: record.addresses6.as_ref().map(|addresses| Ipv6Config {
                subnet: addresses.subnet,
                gateway: addresses.gateway,
            }),
        }
    }

    /// The gateway, if it leads anywhere.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        let addresses = self.record.addresses.as_ref();
        addresses
            .map(|addresses| addresses.gateway)
            .filter(|_| !self.record.internal)
    }

    /// The IPv6 gateway, if there is one that leads anywhere.
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        let addresses = self.record.addresses6.as_ref();
        addresses
            .map(|addresses| addresses.gateway)
            .filter(|_| !self.record.internal)
    }

    /// Leases an address of each family that the network has; both or none.
    ///
    /// # Errors
    /// `NotFound` if the network is being removed; otherwise `Ipam::allocate`'s.
    pub fn lease(
        &self,
        preferred: Option<Ipv4Addr>,
        preferred6: Option<Ipv6Addr>,
    ) -> Result<(Ipv4Addr, Option<Ipv6Place>)> {
        let state = self.lock();
        if state.gone {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("network {} not found", self.record.name),
            ));
        }
        let address = self.allocate(&self.ipam, preferred)?;
        let place = self.ipam6.as_ref().map(|ipam| {
            self.allocate(ipam, preferred6).map(|address| Ipv6Place {
                address,
                prefix: ipam.subnet().prefix(),
                gateway: self.gateway6(),
            })
        });
        match place.transpose() {
            Ok(place) => Ok((address, place)),
            Err(error) => {
                self.ipam.release(address);
                Err(error)
            }
        }
    }

    fn allocate<S: Subnet>(
        &self,
        ipam: &Ipam<S>,
        preferred: Option<S::Address>,
    ) -> Result<S::Address> {
        ipam.allocate(preferred).map_err(|error| match preferred {
            Some(address) if error.kind() == ErrorKind::Conflict => Error::new(
                ErrorKind::Forbidden,
                format!(
                    "Address already in use: {address} on network {}",
                    self.record.name
                ),
            ),
            _ => failed(&error),
        })
    }

    /// Ends a lease.
    pub fn release(&self, address: Ipv4Addr, place: Option<Ipv6Place>) {
        self.ipam.release(address);
        if let (Some(ipam), Some(place)) = (&self.ipam6, place) {
            ipam.release(place.address);
        }
    }

    /// Takes the network out of force, if nobody has an address of it.
    ///
    /// # Errors
    /// `Forbidden` if somebody has, with docker's words; the kernel's otherwise. It is in force
    /// as before then.
    pub fn take_down(&self, holders: &str) -> Result<()> {
        {
            let mut state = self.lock();
            if !self.ipam.in_use().is_empty() {
                return Err(Error::new(
                    ErrorKind::Forbidden,
                    format!(
                        "error while removing network: network {} has active endpoints{holders}",
                        self.record.name
                    ),
                ));
            }
            state.gone = true;
        }
        if self.macvlan.is_some() {
            return Ok(());
        }
        // Adopted first if need be, since what is left of it shall go.
        let removed = self
            .bridge()
            .and_then(|bridge| bridge.remove().map_err(|error| failed(&error)));
        if removed.is_err() {
            self.lock().gone = false;
        }
        removed
    }
}

fn ipam(record: &NetworkRecord) -> Result<Ipam> {
    let Some(addresses) = &record.addresses else {
        return Err(Error::invalid(format!(
            "network {} has no addresses",
            record.name
        )));
    };
    check(addresses).map_err(|error| failed(&error))
}

/// The address management of a network, if its addresses make sense.
pub(super) fn check<S: Subnet>(
    addresses: &Addresses<S, S::Address>,
) -> gamut_network::Result<Ipam<S>> {
    let mut ipam = Ipam::new(addresses.subnet, addresses.gateway)?;
    if let Some(range) = addresses.range {
        ipam = ipam.within(range)?;
    }
    for address in addresses.auxiliary.values() {
        ipam = ipam.without(*address)?;
    }
    Ok(ipam)
}

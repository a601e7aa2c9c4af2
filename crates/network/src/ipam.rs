//! Which addresses of a subnet are leased.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::address::Ipv4Subnet;
use crate::error::{Error, Result};
use crate::subnet::Subnet;

/// Leases the addresses of one subnet. Thread-safe; nothing is kept on disk: the owner of the
/// leases calls [`Ipam::reserve`] for each live one when it starts.
#[derive(Debug)]
pub struct Ipam<S: Subnet = Ipv4Subnet> {
    subnet: S,
    gateway: S::Address,
    /// The addresses that are chosen from.
    range: (u128, u128),
    /// Addresses that belong to somebody else for good.
    reserved: BTreeSet<u128>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    leased: BTreeSet<u128>,
    /// Where the next search begins, so that an address rests as long as possible before it is
    /// leased again and late packets for its last holder reach nobody.
    next: u128,
}

impl<S: Subnet> Ipam<S> {
    /// An empty pool of `subnet` without its gateway, and without the addresses that no host may
    /// have.
    ///
    /// # Errors
    /// `InvalidArgument` for a subnet without room for a gateway and a container, or a gateway
    /// that is not a host address of it.
    pub fn new(subnet: S, gateway: S::Address) -> Result<Self> {
        if !S::NETWORK_PREFIXES.contains(&subnet.prefix()) {
            return Err(Error::InvalidArgument(format!(
                "subnet {subnet} cannot be used: its prefix must lie between /{} and /{}",
                S::NETWORK_PREFIXES.start(),
                S::NETWORK_PREFIXES.end()
            )));
        }
        if gateway < subnet.first_host() || gateway > subnet.last_host() {
            return Err(Error::InvalidArgument(format!(
                "gateway {gateway} is not a host address of subnet {subnet}"
            )));
        }
        let range = (
            S::to_number(subnet.first_host()),
            S::to_number(subnet.last_host()),
        );
        let state = Mutex::new(State {
            leased: BTreeSet::new(),
            next: range.0,
        });
        Ok(Self {
            subnet,
            gateway,
            range,
            reserved: BTreeSet::new(),
            state,
        })
    }

    /// Has addresses chosen from `range` only; others of the subnet can still be asked for.
    ///
    /// # Errors
    /// `InvalidArgument` if it does not lie in the subnet.
    pub fn within(mut self, range: S) -> Result<Self> {
        if range.prefix() < self.subnet.prefix() || !self.subnet.contains(range.first()) {
            return Err(Error::InvalidArgument(format!(
                "invalid address range {range}: it does not lie in subnet {}",
                self.subnet
            )));
        }
        let first = S::to_number(range.first()).max(self.range.0);
        let last = S::to_number(range.last()).min(self.range.1);
        self.range = (first, last);
        self.lock().next = first;
        Ok(self)
    }

    /// Keeps an address from being leased to anybody.
    ///
    /// # Errors
    /// `InvalidArgument` if it does not lie in the subnet.
    pub fn without(mut self, address: S::Address) -> Result<Self> {
        if !self.subnet.contains(address) {
            return Err(Error::InvalidArgument(format!(
                "invalid auxiliary address {address}: it does not lie in subnet {}",
                self.subnet
            )));
        }
        self.reserved.insert(S::to_number(address));
        Ok(self)
    }

    /// Leases `preferred`, or the next free address.
    ///
    /// # Errors
    /// As [`Ipam::reserve`] for a preferred address; [`Error::AddressesExhausted`] otherwise.
    pub fn allocate(&self, preferred: Option<S::Address>) -> Result<S::Address> {
        if let Some(address) = preferred {
            self.reserve(address)?;
            return Ok(address);
        }
        let (first, last) = self.range;
        let mut state = self.lock();
        let address = self
            .first_free(&state.leased, state.next, last)
            .or_else(|| self.first_free(&state.leased, first, state.next.saturating_sub(1)))
            .ok_or(Error::AddressesExhausted {
                subnet: self.subnet.to_string(),
            })?;
        state.leased.insert(address);
        state.next = if address >= last { first } else { address + 1 };
        Ok(S::from_number(address))
    }

    /// Leases exactly `address`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no container address of the subnet, `Conflict` if it is leased.
    pub fn reserve(&self, address: S::Address) -> Result<()> {
        let in_range = address >= self.subnet.first_host() && address <= self.subnet.last_host();
        if self.reserved.contains(&S::to_number(address)) {
            return Err(Error::Conflict(format!(
                "address {address} is already in use: it is an auxiliary address of the network"
            )));
        }
        if !in_range || address == self.gateway {
            return Err(Error::InvalidArgument(format!(
                "address {address} cannot be given to a container: subnet {} offers {} to {} without the gateway {}",
                self.subnet,
                self.subnet.first_host(),
                self.subnet.last_host(),
                self.gateway
            )));
        }
        if self.lock().leased.insert(S::to_number(address)) {
            Ok(())
        } else {
            Err(Error::Conflict(format!(
                "address {address} is already in use"
            )))
        }
    }

    /// Ends a lease. Returns whether there was one.
    pub fn release(&self, address: S::Address) -> bool {
        self.lock().leased.remove(&S::to_number(address))
    }

    /// The leased addresses, ascending.
    #[must_use]
    pub fn in_use(&self) -> Vec<S::Address> {
        self.lock()
            .leased
            .iter()
            .copied()
            .map(S::from_number)
            .collect()
    }

    /// The subnet whose addresses are leased.
    #[must_use]
    pub fn subnet(&self) -> S {
        self.subnet
    }

    /// The lowest free address in `from..=to`. Its cost is that of the run of taken addresses right
    /// after `from`.
    fn first_free(&self, leased: &BTreeSet<u128>, from: u128, to: u128) -> Option<u128> {
        let gateway = S::to_number(self.gateway);
        let is_free = |candidate: &u128| {
            *candidate != gateway
                && !leased.contains(candidate)
                && !self.reserved.contains(candidate)
        };
        (from..=to).find(is_free)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves the set valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address6::Ipv6Subnet;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn small() -> Ipam {
        Ipam::new("10.9.8.0/29".parse().unwrap(), Ipv4Addr::new(10, 9, 8, 3)).unwrap()
    }

    #[test]
    fn gives_every_address_once_and_rests_released_ones() {
        let ipam = small();
        let all: Vec<_> = (0..5)
            .map(|_| ipam.allocate(None).unwrap().octets()[3])
            .collect();
        assert_eq!(all, [1, 2, 4, 5, 6]);
        assert!(matches!(
            ipam.allocate(None),
            Err(Error::AddressesExhausted { .. })
        ));
        ipam.release(Ipv4Addr::new(10, 9, 8, 6));
        ipam.release(Ipv4Addr::new(10, 9, 8, 2));
        assert_eq!(ipam.allocate(None).unwrap().octets()[3], 2);
        ipam.release(Ipv4Addr::new(10, 9, 8, 2));
        assert_eq!(
            ipam.allocate(None).unwrap().octets()[3],
            6,
            "next fit, not first fit"
        );
    }

    #[test]
    fn ranges_and_auxiliary_addresses_are_kept() {
        let subnet: Ipv4Subnet = "10.9.8.0/24".parse().unwrap();
        let ipam = Ipam::new(subnet, Ipv4Addr::new(10, 9, 8, 129)).unwrap();
        let ipam = ipam.within("10.9.8.128/29".parse().unwrap()).unwrap();
        let ipam = ipam.without(Ipv4Addr::new(10, 9, 8, 130)).unwrap();
        let given: Vec<_> = (0..6)
            .map(|_| ipam.allocate(None).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [128, 131, 132, 133, 134, 135]);
        assert!(ipam.allocate(None).is_err(), "the range is full");
        ipam.reserve(Ipv4Addr::new(10, 9, 8, 7)).unwrap();
        assert!(ipam.reserve(Ipv4Addr::new(10, 9, 8, 130)).is_err());
        let other = || Ipam::new(subnet, Ipv4Addr::new(10, 9, 8, 1)).unwrap();
        assert!(other().within("10.9.9.0/29".parse().unwrap()).is_err());
        assert!(other().within("10.9.0.0/16".parse().unwrap()).is_err());
        assert!(other().without(Ipv4Addr::new(10, 9, 9, 1)).is_err());
    }

    #[test]
    fn refuses_what_is_no_container_address() {
        let ipam = small();
        for last in [0, 3, 7, 8] {
            assert!(
                ipam.reserve(Ipv4Addr::new(10, 9, 8, last)).is_err(),
                "{last}"
            );
        }
        ipam.reserve(Ipv4Addr::new(10, 9, 8, 4)).unwrap();
        assert!(matches!(
            ipam.reserve(Ipv4Addr::new(10, 9, 8, 4)),
            Err(Error::Conflict(_))
        ));
        let subnet: Ipv4Subnet = "10.0.0.0/31".parse().unwrap();
        assert!(Ipam::new(subnet, Ipv4Addr::new(10, 0, 0, 1)).is_err());
    }

    #[test]
    fn addresses_of_the_sixth_version_are_leased_alike() {
        let subnet: Ipv6Subnet = "fd00:1::/64".parse().unwrap();
        let ipam = Ipam::new(subnet, subnet.first_host()).unwrap();
        let ipam = ipam.within("fd00:1::/80".parse().unwrap()).unwrap();
        let ipam = ipam.without("fd00:1::2".parse().unwrap()).unwrap();
        assert_eq!(ipam.allocate(None).unwrap().to_string(), "fd00:1::3");
        let fixed = "fd00:1::ffff:0:0:1".parse().unwrap();
        assert_eq!(ipam.allocate(Some(fixed)).unwrap(), fixed);
        assert!(ipam.reserve(fixed).is_err());
        assert!(ipam.reserve("fd00:1::".parse().unwrap()).is_err());
        assert!(ipam.reserve("fd00:2::1".parse().unwrap()).is_err());
        assert_eq!(ipam.in_use().len(), 2);
        let tiny: Ipv6Subnet = "fd00::/126".parse().unwrap();
        let tiny = Ipam::new(tiny, tiny.first_host()).unwrap();
        let all: Vec<String> = (0..2)
            .map(|_| tiny.allocate(None).unwrap().to_string())
            .collect();
        assert_eq!(all, ["fd00::2", "fd00::3"]);
        assert!(tiny.allocate(None).is_err());
        let link: Ipv6Subnet = "fd00::/127".parse().unwrap();
        assert!(Ipam::new(link, link.first_host()).is_err());
    }

    proptest! {
        /// Against a model: a set and the rule "free until leased".
        #[test]
        fn leases_are_unique_and_lawful(
            prefix in 24_u8..=30,
            gateway_offset in 1_u32..=2,
            steps in prop::collection::vec((0_u8..3, 0_u32..70), 0..200),
        ) {
            let subnet = Ipv4Subnet::containing(Ipv4Addr::new(10, 1, 2, 0), prefix).unwrap();
            let gateway = Ipv4Addr::from(u32::from(subnet.network()) + gateway_offset);
            let ipam = Ipam::new(subnet, gateway).unwrap();
            let room = (1_usize << (32 - prefix)) - 3;
            let mut model = BTreeSet::new();
            for (verb, offset) in steps {
                let address = Ipv4Addr::from(u32::from(subnet.network()) + offset);
                match verb {
                    0 => match ipam.allocate(None) {
                        Ok(given) => {
                            prop_assert!(subnet.contains(given) && given != gateway);
                            prop_assert!(given != subnet.network() && given != subnet.broadcast());
                            prop_assert!(model.insert(given), "leased twice");
                        }
                        Err(_) => prop_assert_eq!(model.len(), room),
                    },
                    1 => {
                        let lawful = subnet.contains(address) && address != gateway
                            && address != subnet.network() && address != subnet.broadcast();
                        prop_assert_eq!(ipam.reserve(address).is_ok(), lawful && model.insert(address));
                    }
                    _ => prop_assert_eq!(ipam.release(address), model.remove(&address)),
                }
                prop_assert_eq!(ipam.in_use(), model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}

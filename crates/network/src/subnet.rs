//! What subnets of both families have in common.

use std::fmt::{Debug, Display};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::address::Ipv4Subnet;
use crate::address6::Ipv6Subnet;

/// A subnet of either family.
pub trait Subnet: Copy + Debug + Display {
    /// Its addresses.
    type Address: Copy + Ord + Debug + Display;

    /// Prefix lengths in bits with which it can be a network's: room for a gateway and a workload.
    const NETWORK_PREFIXES: RangeInclusive<u8>;

    /// The prefix length in bits.
    fn prefix(self) -> u8;
    /// The first address.
    fn first(self) -> Self::Address;
    /// The last address.
    fn last(self) -> Self::Address;
    /// The first address that a host may have.
    fn first_host(self) -> Self::Address;
    /// The last address that a host may have.
    fn last_host(self) -> Self::Address;
    /// Whether `address` lies in it.
    fn contains(self, address: Self::Address) -> bool;
    /// Whether the two share an address.
    fn overlaps(self, other: Self) -> bool;
    /// An address as a number.
    fn to_number(address: Self::Address) -> u128;
    /// The address that [`Subnet::to_number`] made a number of.
    fn from_number(number: u128) -> Self::Address;
}

impl Subnet for Ipv4Subnet {
    type Address = Ipv4Addr;
    const NETWORK_PREFIXES: RangeInclusive<u8> = 8..=30;

    fn prefix(self) -> u8 {
        Self::prefix(self)
    }
    fn first(self) -> Ipv4Addr {
        self.network()
    }
    fn last(self) -> Ipv4Addr {
        self.broadcast()
    }
    fn first_host(self) -> Ipv4Addr {
        Self::first_host(self)
    }
    fn last_host(self) -> Ipv4Addr {
        Self::last_host(self)
    }
    fn contains(self, address: Ipv4Addr) -> bool {
        Self::contains(self, address)
    }
    fn overlaps(self, other: Self) -> bool {
        Self::overlaps(self, other)
    }
    fn to_number(address: Ipv4Addr) -> u128 {
        u32::from(address).into()
    }
    fn from_number(number: u128) -> Ipv4Addr {
        // Numbers come from addresses and from steps between two of them.
        Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))
    }
}

impl Subnet for Ipv6Subnet {
    type Address = Ipv6Addr;
    const NETWORK_PREFIXES: RangeInclusive<u8> = 16..=126;

    fn prefix(self) -> u8 {
        Self::prefix(self)
    }
    fn first(self) -> Ipv6Addr {
        self.network()
    }
    fn last(self) -> Ipv6Addr {
        Self::last(self)
    }
    fn first_host(self) -> Ipv6Addr {
        Self::first_host(self)
    }
    fn last_host(self) -> Ipv6Addr {
        Self::last(self)
    }
    fn contains(self, address: Ipv6Addr) -> bool {
        Self::contains(self, address)
    }
    fn overlaps(self, other: Self) -> bool {
        Self::overlaps(self, other)
    }
    fn to_number(address: Ipv6Addr) -> u128 {
        address.into()
    }
    fn from_number(number: u128) -> Ipv6Addr {
        number.into()
    }
}

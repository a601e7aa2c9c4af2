//! IPv6 subnets.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An IPv6 subnet in CIDR form, always with its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv6Subnet {
    network: u128,
    prefix: u8,
}

impl Ipv6Subnet {
    /// The subnet of `prefix` bits (0 to 128) that holds `address`.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix above 128.
    pub fn containing(address: Ipv6Addr, prefix: u8) -> Result<Self, Error> {
        if prefix > 128 {
            return Err(Error::InvalidArgument(format!(
                "invalid prefix length /{prefix}: an IPv6 prefix has 0 to 128 bits"
            )));
        }
        Ok(Self {
            network: u128::from(address) & mask(prefix),
            prefix,
        })
    }

    /// The first address, which names the subnet; on a link it is any router's (RFC 4291, 2.6.1).
    #[must_use]
    pub fn network(self) -> Ipv6Addr {
        self.network.into()
    }

    /// The last address.
    #[must_use]
    pub fn last(self) -> Ipv6Addr {
        (self.network | !mask(self.prefix)).into()
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address that a host may have.
    #[must_use]
    pub fn first_host(self) -> Ipv6Addr {
        (self.network + u128::from(self.prefix < 127)).into()
    }

    /// Whether `address` lies in the subnet.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        u128::from(address) & mask(self.prefix) == self.network
    }

    /// Whether the two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.network & shorter == other.network & shorter
    }

    /// Whether its addresses mean one host on one link each, and are not the kernel's own: neither
    /// loopback, link-local, multicast nor addresses of IPv4 in disguise.
    #[must_use]
    pub fn is_for_hosts(self) -> bool {
        let reserved = [
            (Ipv6Addr::UNSPECIFIED, 8),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
            (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
        ];
        let reserved = reserved
            .into_iter()
            .filter_map(|(address, prefix)| Self::containing(address, prefix).ok());
        !reserved.into_iter().any(|other| other.overlaps(self))
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv6Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Ipv6Subnet {
    type Err = Error;

    /// Parses `ADDRESS/PREFIX`; host bits must be zero, so that a typing error is not taken for a
    /// subnet.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || {
            Error::InvalidArgument(format!(
                "invalid subnet {text:?}: expected an address and a prefix such as fd12:3456:789a:1::/64"
            ))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
        let subnet = Self::containing(address, prefix.parse().map_err(|_| invalid())?)?;
        if subnet.network() != address {
            return Err(Error::InvalidArgument(format!(
                "invalid subnet {text:?}: host bits are set, did you mean {subnet}?"
            )));
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Ipv6Subnet {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Ipv6Subnet> for String {
    fn from(subnet: Ipv6Subnet) -> Self {
        subnet.to_string()
    }
}

/// Feeds arbitrary bytes to the parser; part of a target for fuzzing.
pub(crate) fn fuzz_subnet(text: &str) {
    if let Ok(subnet) = text.parse::<Ipv6Subnet>() {
        assert_eq!(subnet.to_string().parse::<Ipv6Subnet>().ok(), Some(subnet));
        assert!(subnet.contains(subnet.network()) && subnet.contains(subnet.last()));
        assert!(subnet.contains(subnet.first_host()) && subnet.overlaps(subnet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Ipv6Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_are_read_and_told() {
        let one = subnet("fd00:1::/64");
        assert_eq!(one.to_string(), "fd00:1::/64");
        assert_eq!(one.first_host().to_string(), "fd00:1::1");
        assert_eq!(one.last().to_string(), "fd00:1::ffff:ffff:ffff:ffff");
        assert!(subnet("fd00::/8").overlaps(one) && !subnet("fd00:2::/64").overlaps(one));
        for bad in [
            "",
            "fd00::",
            "fd00::/",
            "fd00::/129",
            "fd00::1/64",
            "fd00::/+4",
            "10.0.0.0/8",
            "x/64",
        ] {
            assert!(bad.parse::<Ipv6Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn some_are_nobodys() {
        for (text, is_for_hosts) in [
            ("fd00::/64", true),
            ("2001:db8::/48", true),
            ("fe80::/64", false),
            ("ff02::/16", false),
            ("::/64", false),
            ("::ffff:0:0/96", false),
            ("::/0", false),
        ] {
            assert_eq!(subnet(text).is_for_hosts(), is_for_hosts, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text: String, address: u128, prefix in 0_u8..=140) {
            fuzz_subnet(&text);
            fuzz_subnet(&format!("{}/{prefix}", Ipv6Addr::from(address)));
            if let Ok(subnet) = Ipv6Subnet::containing(address.into(), prefix) {
                prop_assert!(subnet.contains(address.into()));
                fuzz_subnet(&subnet.to_string());
            }
        }
    }
}

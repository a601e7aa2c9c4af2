//! Subnets and hardware addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An IPv4 subnet in CIDR form, always with its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    network: u32,
    prefix: u8,
}

impl Ipv4Subnet {
    /// The subnet of `prefix` bits (0 to 32) that holds `address`.
    ///
    /// # Errors
    /// `InvalidArgument` for a prefix above 32.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Result<Self, Error> {
        if prefix > 32 {
            return Err(Error::InvalidArgument(format!(
                "invalid prefix length /{prefix}: an IPv4 prefix has 0 to 32 bits"
            )));
        }
        Ok(Self {
            network: u32::from(address) & mask(prefix),
            prefix,
        })
    }

    /// The first address, which names the subnet.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network)
    }

    /// The last address, the broadcast address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network | !mask(self.prefix))
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address that a host may have.
    #[must_use]
    pub fn first_host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network.saturating_add(u32::from(self.prefix < 31)))
    }

    /// The last address that a host may have.
    #[must_use]
    pub fn last_host(self) -> Ipv4Addr {
        let last = u32::from(self.broadcast());
        Ipv4Addr::from(last.saturating_sub(u32::from(self.prefix < 31)))
    }

    /// Whether `address` lies in the subnet.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether the two subnets share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.network & shorter == other.network & shorter
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = Error;

    /// Parses `A.B.C.D/PREFIX`; host bits must be zero, so that a typing error is not taken for a subnet.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || {
            Error::InvalidArgument(format!(
                "invalid subnet {text:?}: expected an address and a prefix such as 172.29.0.0/16"
            ))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let subnet = Self::containing(address, prefix.parse().map_err(|_| invalid())?)?;
        if subnet.network() != address {
            return Err(Error::InvalidArgument(format!(
                "invalid subnet {text:?}: host bits are set, did you mean {subnet}?"
            )));
        }
        Ok(subnet)
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that belongs to an IPv4 address: `02:42:` and its four bytes. An address that is
    /// leased again has the same hardware address, so no neighbour's ARP cache is ever wrong.
    #[must_use]
    pub fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Whether a single host may have it: not a group address, not all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    /// Parses six hexadecimal pairs joined by `:` or `-`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || {
            Error::InvalidArgument(format!(
                "invalid MAC address {text:?}: expected six pairs such as 02:42:ac:1d:00:02"
            ))
        };
        let mut bytes = [0_u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(invalid)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            Err(invalid())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

/// Feeds arbitrary bytes to the parsers of this module; a target for fuzzing.
pub fn fuzz_addresses(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(subnet) = text.parse::<Ipv4Subnet>() {
        assert!(subnet.contains(subnet.first_host()) && subnet.contains(subnet.last_host()));
        assert_eq!(subnet.to_string().parse::<Ipv4Subnet>().ok(), Some(subnet));
    }
    crate::address6::fuzz_subnet(text);
    if let Ok(mac) = text.parse::<MacAddress>() {
        assert_eq!(mac.to_string().parse::<MacAddress>().ok(), Some(mac));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subnets_parse_and_show() {
        let subnet: Ipv4Subnet = "172.29.0.0/16".parse().unwrap();
        assert_eq!(subnet.first_host().to_string(), "172.29.0.1");
        assert_eq!(subnet.last_host().to_string(), "172.29.255.254");
        assert_eq!(subnet.broadcast().to_string(), "172.29.255.255");
        for bad in [
            "",
            "1.2.3.4",
            "1.2.3.4/33",
            "1.2.3.4/16",
            "1.2.3.0/+8",
            "1.2.3.0/",
            "::/0",
        ] {
            assert!(bad.parse::<Ipv4Subnet>().is_err(), "{bad}");
        }
        assert!("0.0.0.0/0".parse::<Ipv4Subnet>().unwrap().overlaps(subnet));
    }

    #[test]
    fn mac_follows_the_address() {
        let mac = MacAddress::from_ipv4(Ipv4Addr::new(172, 29, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:1d:00:02");
        assert!(mac.is_unicast());
        assert!("02:42:ac:1d:00".parse::<MacAddress>().is_err());
        assert!("+2:42:ac:1d:00:01".parse::<MacAddress>().is_err());
    }

    proptest! {
        #[test]
        fn overlap_means_a_shared_address(a: u32, b: u32, p in 0_u8..=32, q in 0_u8..=32) {
            let x = Ipv4Subnet::containing(a.into(), p).unwrap();
            let y = Ipv4Subnet::containing(b.into(), q).unwrap();
            let shared = x.contains(y.network()) || y.contains(x.network());
            prop_assert_eq!(x.overlaps(y), shared);
            prop_assert_eq!(y.overlaps(x), shared);
        }

        #[test]
        fn any_text_is_safe(data: Vec<u8>, text in "[0-9a-f:./-]{0,24}") {
            fuzz_addresses(&data);
            fuzz_addresses(text.as_bytes());
        }
    }
}

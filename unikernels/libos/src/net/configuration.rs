//! What the configuration text says about the network.

use alloc::vec::Vec;
use core::net::IpAddr;

use gamut_abi::guest::config;

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index in requests.
    pub index: u16,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Most bytes of an IP packet.
    pub mtu: u16,
    /// Its addresses.
    pub addresses: Vec<Subnet>,
    /// Its gateways.
    pub gateways: Vec<IpAddr>,
    /// Whether it asks by DHCP.
    pub asks_by_dhcp: bool,
}

/// The guest's own address where somebody answers on the loopback.
const LOOPBACK: Subnet = Subnet {
    address: IpAddr::V4(core::net::Ipv4Addr::LOCALHOST),
    prefix: 8,
};
/// MTU if nobody says.
const DEFAULT_MTU: u16 = 1500;
/// The least that IPv4 hosts must take, and the most that a frame holds.
const MTU_RANGE: core::ops::RangeInclusive<u16> = 576..=65_500;

/// `02:00:00:00:00:01` as bytes; none if it is no hardware address of a single device.
#[must_use]
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    let is_single = bytes[0] & 1 == 0 && bytes != [0; 6];
    (parts.next().is_none() && is_single).then_some(bytes)
}

fn subnet(text: &str) -> Option<Subnet> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some(Subnet { address, prefix })
}

/// The devices, in order. Several lines of a device add up; a device without a hardware address
/// is none.
#[must_use]
pub fn devices(text: &[u8]) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for line in config::values(text, "net") {
        let mut words = config::words(line);
        let Some(index) = words.next().and_then(|(word, _)| word.parse().ok()) else {
            continue;
        };
        let known = devices.iter().position(|device| device.index == index);
        let place = known.unwrap_or(devices.len());
        if known.is_none() {
            devices.push(Device {
                index,
                mac: [0; 6],
                mtu: DEFAULT_MTU,
                addresses: Vec::new(),
                gateways: Vec::new(),
                asks_by_dhcp: false,
            });
        }
        let Some(device) = devices.get_mut(place) else {
            continue;
        };
        for (word, value) in words {
            match word {
                "mac" => device.mac = mac(value).unwrap_or(device.mac),
                "mtu" => {
                    if let Some(mtu) = value.parse().ok().filter(|mtu| MTU_RANGE.contains(mtu)) {
                        device.mtu = mtu;
                    }
                }
                "address" => device.addresses.extend(subnet(value)),
                "gateway" => device.gateways.extend(value.parse::<IpAddr>().ok()),
                "dhcp" => device.asks_by_dhcp = true,
                _ => {}
            }
        }
    }
    devices.retain(|device| device.mac != [0; 6]);
    // A name server on the loopback is one of the monitor's, at the other end of the cable.
    let is_loopback = |server: IpAddr| server.is_ipv4() && server.is_loopback();
    if name_servers(text).any(is_loopback)
        && let Some(device) = devices.iter_mut().find(|one| !one.addresses.is_empty())
    {
        device.addresses.push(LOOPBACK);
    }
    devices
}

/// The name servers, in order.
pub fn name_servers(text: &[u8]) -> impl Iterator<Item = IpAddr> + '_ {
    config::values(text, "dns").filter_map(|value| value.parse().ok())
}

/// The domains searched, in order.
pub fn search_domains(text: &[u8]) -> impl Iterator<Item = &str> {
    config::values(text, "search")
}

/// The addresses of a name by the configuration's lines of `/etc/hosts`. Names are compared
/// without regard to case.
pub fn host_addresses<'text>(
    text: &'text [u8],
    name: &'text str,
) -> impl Iterator<Item = IpAddr> + 'text {
    config::values(text, "host").filter_map(move |line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    })
}

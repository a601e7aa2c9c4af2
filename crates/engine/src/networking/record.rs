//! What the store keeps about a network.

use crate::container::record::Provenance;
use gamut_network::{Ipv4Subnet, Ipv6Subnet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Version of [`NetworkRecord`] on disk.
pub(super) const RECORD_VERSION: u32 = 1;
/// The default network.
pub const BRIDGE: &str = "bridge";
/// The driver of networks on an interface of the host's.
pub const MACVLAN: &str = "macvlan";
/// The host's own network.
pub const HOST: &str = "host";
/// A network of loopback interfaces only.
pub const NONE: &str = "none";

/// Driver option: name of the bridge's interface.
pub const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
/// Driver option: whether workloads reach each other.
pub const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
/// Driver option: whether workloads speak to the outside with the host's address.
pub const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// Driver option: address of the host on which ports without one are published.
pub const OPTION_HOST_ADDRESS: &str = "com.docker.network.bridge.host_binding_ipv4";
/// Driver option: size of the largest packet in bytes.
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Id, 64 hexadecimal digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// When it was made, in nanoseconds since the epoch.
    pub created_ns: u64,
    /// Who made it, through what, and why.
    pub provenance: Provenance,
    /// `bridge` or `macvlan`, or of the networks that are always there `host` and `null`.
    pub driver: String,
    /// Its addresses; none only where there is no bridge.
    pub addresses: Option<Addresses>,
    /// Its IPv6 addresses, if it has any.
    #[serde(default)]
    pub addresses6: Option<Addresses6>,
    /// Interface name of the bridge; empty where there is none.
    pub bridge: String,
    /// It has no way out.
    pub internal: bool,
    /// Only shown.
    pub attachable: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as given.
    pub options: BTreeMap<String, String>,
    /// Options of the address management, only shown.
    pub ipam_options: Option<BTreeMap<String, String>>,
}

/// The IPv6 addresses of a network.
pub type Addresses6 = Addresses<Ipv6Subnet, Ipv6Addr>;

/// The addresses of a network, of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses<Subnet = Ipv4Subnet, Address = Ipv4Addr> {
    /// All of them.
    pub subnet: Subnet,
    /// The bridge's own.
    pub gateway: Address,
    /// Those that are chosen from; all by default.
    pub range: Option<Subnet>,
    /// Those that belong to somebody else, by name.
    pub auxiliary: BTreeMap<String, Address>,
    /// The user named the subnet, so that containers may ask for addresses of it.
    pub is_configured: bool,
}

impl NetworkRecord {
    /// Whether it is one of those that are always there.
    #[must_use]
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// Whether containers on it find each other by name.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.is_predefined()
    }

    /// A driver option that is a boolean.
    pub(super) fn switch(&self, option: &str, default: bool) -> bool {
        self.options
            .get(option)
            .map_or(default, |value| is_true(value))
    }

    /// A network that is always there.
    pub(super) fn predefined(name: &str, created_ns: u64) -> Self {
        Self {
            id: predefined_id(name),
            name: name.to_owned(),
            created_ns,
            provenance: Provenance::default(),
            driver: if name == NONE { "null" } else { name }.to_owned(),
            addresses: None,
            addresses6: None,
            bridge: String::new(),
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            ipam_options: None,
        }
    }
}

/// Go's words for true.
pub(super) fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE")
}

/// Go's words for true and false.
pub(super) fn is_boolean(value: &str) -> bool {
    is_true(value) || matches!(value, "0" | "f" | "F" | "false" | "False" | "FALSE")
}

/// Whether a network of this name is always there.
#[must_use]
pub fn is_predefined(name: &str) -> bool {
    matches!(name, BRIDGE | HOST | NONE)
}

/// 64 hexadecimal digits that depend on nothing but the words.
fn stable_id(words: &[&str]) -> String {
    let mut id = String::with_capacity(64);
    for round in 0u64..4 {
        // FNV-1a, which is stable over builds; nothing rests on its quality.
        let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ round;
        for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        id.push_str(&format!("{hash:016x}"));
    }
    id
}

/// Id of a network that is always there.
#[must_use]
pub fn predefined_id(name: &str) -> String {
    stable_id(&["network", name])
}

/// Id of a container's endpoint on a network.
#[must_use]
pub fn endpoint_id(container: &str, network: &str) -> String {
    stable_id(&["endpoint", container, network])
}

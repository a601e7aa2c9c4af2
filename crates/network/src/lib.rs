//! Bridges, addresses, NAT, published ports and the pool of prepared network namespaces.
//!
//! A [`Network`] is a bridge with its subnet and its place in our nftables table. A
//! [`NamespacePool`] makes namespaces that hang on it in advance; [`Prepared::connect`] gives one
//! of them an address leased from [`Ipam`] and yields an [`Endpoint`]. [`Ports`] leads ports of
//! the host to workloads. Networks `host` and `container:` need nothing from here but
//! [`NetworkNamespace::current`] and [`NetworkNamespace::of_process`].
//!
//! # The host's own firewall
//!
//! All our rules live in one nftables table of family `ip`, and one of family `ip6` where a network
//! has IPv6; no other table is read, changed or flushed. A drop of another table stays a drop: a host whose FORWARD policy is drop has to let
//! the bridge pass by itself. Containers are reached from outside by published ports only, also
//! where a neighbour routes to their addresses. Where the host did not forward packets before,
//! it forwards for our bridges only. Who loads rules with `flush ruleset` removes ours as well:
//! [`FirewallWatch`] tells, and [`Network::reconcile_rules`] and [`Ports::reconcile`] put them back.
//!
//! # Use
//!
//! All calls are synchronous. Nothing is kept on disk: the owner of the record calls
//! [`Ipam::reserve`] and [`Ports::restore`] when it starts. Everything works on the network
//! namespace of the calling thread.

mod address;
mod address6;
mod bridge;
mod conntrack;
mod endpoint;
mod error;
mod finding;
mod firewall;
mod firewall_watch;
mod forwarding;
mod inet;
mod ipam;
mod link;
mod link_local;
mod macvlan;
mod namespace;
mod netlink;
mod network;
mod pool;
mod ports;
mod redirect;
mod reservation;
mod rules;
mod shaping;
pub mod statistics;
mod subnet;
mod sysctl;

pub use address::{Ipv4Subnet, MacAddress};
pub use address6::Ipv6Subnet;
pub use bridge::{BridgeConfig, Ipv6Config, free_subnet, free_subnet6};
pub use endpoint::{
    Connected, Endpoint, EndpointConfig, Ipv6Place, Prepared, interfaces, plug, route_by,
};
pub use error::{Error, Refusal, Result};
pub use finding::Finding;
pub use firewall_watch::FirewallWatch;
pub use ipam::Ipam;
pub use link_local::{add_link_local, check_link_local};
pub use macvlan::{MacvlanConfig, MacvlanMode, plug_macvlan, unplug};
pub use namespace::NetworkNamespace;
pub use network::Network;
pub use pool::NamespacePool;
pub use ports::{PortMapping, Ports, Protocol, Publication, Published, Target};
pub use redirect::redirect_resolver;
pub use shaping::Bandwidth;
pub use statistics::InterfaceStatistics;
pub use subnet::Subnet;

/// Entries for fuzz targets, one per parser.
pub mod fuzz {
    pub use crate::address::fuzz_addresses;
    pub use crate::conntrack::fuzz_flow;
    pub use crate::firewall::fuzz_table_state;
    pub use crate::firewall_watch::fuzz_notice;
    pub use crate::netlink::fuzz_netlink;
    pub use crate::statistics::fuzz_statistics;
}

//! The rules of our tables.
//!
//! All rules live in one table of family `ip`, and one of the same name of family `ip6` as soon as a
//! network has IPv6; no other table is read, changed or flushed. What
//! another table drops stays dropped: an accept here never overrides a drop elsewhere, so a host
//! whose own FORWARD policy is drop must itself allow the bridge (as with any other bridge).
//!
//! - A connection to a published port is sent on to its container by destination NAT, looked up
//!   in maps, so that the number of publications does not matter.
//! - It keeps its source address, but for those that could not come back otherwise: from
//!   127.0.0.1, and from a container of ours (hairpin). From ::1 it cannot be led on at all: the
//!   kernel has no `route_localnet` for IPv6.
//! - Traffic from a container to the outside is masqueraded, unless its network is not to be.
//! - Networks do not reach each other, but for published ports; an internal one reaches nothing,
//!   and nothing but the host reaches it.
//! - Nobody reaches a container from another interface but through a published port, even where
//!   a neighbour routes packets to the container's address by way of this host.
//! - The bridge has `route_localnet` set so that 127.0.0.1:PORT works; packets of containers
//!   with a loopback address are therefore dropped before anything else sees them.
//! - A host that did not forward packets before does not become a router for others: where we
//!   switched forwarding on, an extra chain drops what neither comes from nor goes to a bridge
//!   of ours. (Its administrator has it otherwise by switching it on beforehand.)

use crate::inet::Family;

/// The statements of a table, each to be preceded by the verb and the table's name. In braces stand
/// the words of a family, see [`spell`].
/// Sets: bridges of ours, their subnets, which of those are masqueraded, which bridge may forward
/// to which, and which is to have no way out.
/// Maps: where a published host address and port (or any local address and port) leads.
pub(crate) const OBJECTS: &[(&str, &str)] = &[
    ("set", "bridges { type ifname; }"),
    ("set", "subnets { type {address}; flags interval; }"),
    ("set", "masqueraded { type {address}; flags interval; }"),
    ("set", "linked_bridges { type ifname . ifname; }"),
    ("set", "internal_bridges { type ifname; }"),
    (
        "map",
        "published_tcp { type {address} . inet_service : {address} . inet_service; }",
    ),
    (
        "map",
        "published_tcp_any { type inet_service : {address} . inet_service; }",
    ),
    (
        "map",
        "published_udp { type {address} . inet_service : {address} . inet_service; }",
    ),
    (
        "map",
        "published_udp_any { type inet_service : {address} . inet_service; }",
    ),
    (
        "chain",
        "guard { type filter hook prerouting priority -300; policy accept; }",
    ),
    (
        "chain",
        "arriving { type nat hook prerouting priority -100; policy accept; }",
    ),
    (
        "chain",
        "local { type nat hook output priority -100; policy accept; }",
    ),
    (
        "chain",
        "leaving { type nat hook postrouting priority 100; policy accept; }",
    ),
    (
        "chain",
        "forwarding { type filter hook forward priority 0; policy accept; }",
    ),
];

pub(crate) const RULES: &[(&str, &str)] = &[
    ("guard", "iifname @bridges {ip} daddr {loopback} drop"),
    ("guard", "iifname @bridges {ip} saddr {loopback} drop"),
    (
        "arriving",
        "{ip} daddr != {loopback} dnat {ip} to {ip} daddr . tcp dport map @published_tcp",
    ),
    (
        "arriving",
        "{ip} daddr != {loopback} dnat {ip} to {ip} daddr . udp dport map @published_udp",
    ),
    (
        "arriving",
        "{ip} daddr != {loopback} fib daddr type local dnat {ip} to tcp dport map @published_tcp_any",
    ),
    (
        "arriving",
        "{ip} daddr != {loopback} fib daddr type local dnat {ip} to udp dport map @published_udp_any",
    ),
    (
        "local",
        "dnat {ip} to {ip} daddr . tcp dport map @published_tcp",
    ),
    (
        "local",
        "dnat {ip} to {ip} daddr . udp dport map @published_udp",
    ),
    (
        "local",
        "fib daddr type local dnat {ip} to tcp dport map @published_tcp_any",
    ),
    (
        "local",
        "fib daddr type local dnat {ip} to udp dport map @published_udp_any",
    ),
    (
        "leaving",
        "oifname @bridges {ip} saddr {loopback} masquerade",
    ),
    (
        "leaving",
        "oifname @bridges {ip} saddr @subnets ct status dnat masquerade",
    ),
    (
        "leaving",
        "oifname != @bridges {ip} saddr @masqueraded masquerade",
    ),
    ("forwarding", "iifname . oifname @linked_bridges accept"),
    ("forwarding", "iifname @internal_bridges drop"),
    ("forwarding", "oifname @internal_bridges drop"),
    (
        "forwarding",
        "oifname @bridges ct state established,related accept",
    ),
    ("forwarding", "oifname @bridges ct status dnat accept"),
    ("forwarding", "oifname @bridges drop"),
];

/// The extra chain of a host that is to forward for us only.
pub(crate) const OTHERS: &str = "others";
pub(crate) const OTHERS_HOOK: &str = "{ type filter hook forward priority 0; policy accept; }";
pub(crate) const OTHERS_RULE: &str = "iifname != @bridges oifname != @bridges drop";

/// The names of the maps of published ports.
pub(crate) const PUBLISHED_MAPS: [&str; 4] = [
    "published_tcp",
    "published_tcp_any",
    "published_udp",
    "published_udp_any",
];

/// A statement in the words of a family.
pub(crate) fn spell(statement: &str, family: Family) -> String {
    let (ip, address, loopback) = match family {
        Family::V4 => ("ip", "ipv4_addr", "127.0.0.0/8"),
        Family::V6 => ("ip6", "ipv6_addr", "::1"),
    };
    statement
        .replace("{ip}", ip)
        .replace("{address}", address)
        .replace("{loopback}", loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_words() {
        let all = OBJECTS.iter().chain(RULES).map(|(_, statement)| *statement);
        for statement in all.chain([OTHERS_HOOK, OTHERS_RULE]) {
            for (family, foreign) in [
                (Family::V4, ["ip6 ", "ipv6_addr", "::1"]),
                (Family::V6, ["ip daddr", "ipv4_addr", "127."]),
            ] {
                let spelled = spell(statement, family);
                assert!(
                    !foreign.iter().any(|word| spelled.contains(word)),
                    "{spelled}"
                );
                assert!(
                    !spelled.contains("{ip}") && !spelled.contains("{a"),
                    "{spelled}"
                );
            }
        }
        assert_eq!(
            spell("{ip} saddr {loopback} drop", Family::V6),
            "ip6 saddr ::1 drop"
        );
    }
}

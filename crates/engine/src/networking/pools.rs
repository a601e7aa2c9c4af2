//! Where the addresses of networks come from that name none.

use gamut_network::{Ipv4Subnet, Ipv6Subnet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Docker's pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 to 192.168.240.0/20; those
/// that overlap no subnet of `taken`.
pub(super) fn candidates(taken: &[Ipv4Subnet]) -> Vec<Ipv4Subnet> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=15).map(|third| (Ipv4Addr::new(192, 168, third * 16, 0), 20));
    large
        .chain(small)
        .filter_map(|(address, prefix)| Ipv4Subnet::containing(address, prefix).ok())
        .filter(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
        .collect()
}

/// Subnets of 64 bits below the engine's own prefix of 48, which is drawn by lot (RFC 4193, 3.2.2)
/// from `seed`; those that overlap no subnet of `taken`.
pub(super) fn unique_local(seed: &str, taken: &[Ipv6Subnet]) -> impl Iterator<Item = Ipv6Subnet> {
    // The seed is random: any forty bits of it are.
    let global = u128::from_str_radix(seed.get(..10).unwrap_or("0"), 16).unwrap_or(0);
    let site = (0xfd_u128 << 120) | (global << 80);
    (0..=u128::from(u16::MAX))
        .filter_map(move |subnet| {
            Ipv6Subnet::containing(Ipv6Addr::from(site | (subnet << 64)), 64).ok()
        })
        .filter(move |subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_dockers_without_what_is_taken() {
        let all = candidates(&[]);
        assert_eq!(all.len(), 31);
        assert_eq!(all[0].to_string(), "172.17.0.0/16");
        assert_eq!(all[30].to_string(), "192.168.240.0/20");
        let left = candidates(&["172.16.0.0/12".parse().unwrap()]);
        assert_eq!(left[0].to_string(), "192.168.0.0/20");
    }

    #[test]
    fn unique_local_subnets_are_the_engines_own() {
        let mut all = unique_local("0123456789abcdef", &[]);
        let first = all.next().unwrap();
        assert_eq!(first.to_string(), "fd01:2345:6789::/64");
        assert_eq!(all.last().unwrap().to_string(), "fd01:2345:6789:ffff::/64");
        let next = unique_local("0123456789abcdef", &[first]).next().unwrap();
        assert_eq!(next.to_string(), "fd01:2345:6789:1::/64");
        assert_eq!(
            unique_local("", &[]).next().unwrap().to_string(),
            "fd00::/64"
        );
    }
}

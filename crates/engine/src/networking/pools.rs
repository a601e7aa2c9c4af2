//! Where the addresses of networks come from that name none.

use gamut_network::Ipv4Subnet;
use std::net::Ipv4Addr;

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
}

//! Weights of v1 in the scales of v2 and back.

/// Converts v1 `cpu.shares` (2..=262144, default 1024) to v2 `cpu.weight` (1..=10000, default
/// 100), in proportion and rounded, so that the default stays the default and two to one stays
/// two to one. Values beyond the other scale are clamped. (systemd converts the same way; the
/// linear formula of the OCI runtimes, `1 + (shares - 2) * 9999 / 262142`, makes 39 of the
/// default, and the newer logarithmic one makes 1.7 to 1 of two to one.)
#[must_use]
pub fn shares_to_weight(shares: u64) -> u32 {
    let weight = (shares.min(262_144) * 100 + 512) / 1024;
    u32::try_from(weight.clamp(1, 10_000)).unwrap_or(10_000)
}

/// Converts v2 `cpu.weight` to v1 `cpu.shares`; the inverse of [`shares_to_weight`].
#[must_use]
pub fn weight_to_shares(weight: u32) -> u64 {
    ((u64::from(weight.min(10_000)) * 1024 + 50) / 100).clamp(2, 262_144)
}

/// Converts a v1 blkio weight (10..=1000) to v2 `io.weight` (1..=10000), as runc and crun do.
#[must_use]
pub fn blkio_to_io_weight(weight: u16) -> u32 {
    let weight = u32::from(weight.clamp(10, 1000));
    1 + (weight - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_and_proportions_are_kept() {
        assert_eq!(shares_to_weight(1024), 100);
        assert_eq!(shares_to_weight(512), 50);
        assert_eq!(shares_to_weight(2048), 200);
        assert_eq!(shares_to_weight(0), 1);
        assert_eq!(shares_to_weight(2), 1);
        assert_eq!(shares_to_weight(u64::MAX), 10_000);
        assert_eq!(weight_to_shares(100), 1024);
        assert_eq!(weight_to_shares(1), 10);
        assert_eq!(weight_to_shares(10_000), 102_400);
        assert_eq!(weight_to_shares(u32::MAX), 102_400);
        assert_eq!(blkio_to_io_weight(10), 1);
        assert_eq!(blkio_to_io_weight(500), 4950);
        assert_eq!(blkio_to_io_weight(1000), 10_000);
    }

    #[test]
    fn every_weight_survives_the_way_there_and_back() {
        for weight in 1..=10_000 {
            assert_eq!(shares_to_weight(weight_to_shares(weight)), weight);
        }
    }
}

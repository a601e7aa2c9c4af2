//! How much passes a container's interfaces, in the words of options and annotations.

use crate::error::{Error, Result};
use gamut_network::Bandwidth;
use std::collections::BTreeMap;

/// Options of endpoints and networks, in bits per second.
const OPTIONS: [&str; 2] = ["gamut.bandwidth.ingress", "gamut.bandwidth.egress"];
/// Annotations of containers, as Kubernetes has them for its pods (CNI's plugin `bandwidth`).
const ANNOTATIONS: [&str; 2] = [
    "kubernetes.io/ingress-bandwidth",
    "kubernetes.io/egress-bandwidth",
];

type Words = BTreeMap<String, String>;

/// The limits of an endpoint: its own, else those of its network, else those of the container.
///
/// # Errors
/// `InvalidArgument`, naming the option or annotation.
pub(crate) fn of(endpoint: &Words, network: &Words, annotations: &Words) -> Result<Bandwidth> {
    let [ingress, egress] = [0, 1].map(|direction| {
        let [option, annotation] = [OPTIONS, ANNOTATIONS]
            .map(|names| names.get(direction).copied().unwrap_or_default());
        let found = [(endpoint, option), (network, option), (annotations, annotation)]
            .into_iter()
            .find_map(|(words, name)| Some((name, words.get(name)?)));
        found
            .map(|(name, text)| {
                quantity(text).ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid bandwidth {text:?} in {name}: expected bits per second such as 10M, with K, M, G or Ki, Mi, Gi"
                    ))
                })
            })
            .transpose()
    });
    let bandwidth = Bandwidth {
        ingress_bits_per_second: ingress?,
        egress_bits_per_second: egress?,
    };
    bandwidth.check().map_err(|error| super::failed(&error))?;
    Ok(bandwidth)
}

/// A whole number with a suffix of Kubernetes' quantities.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at_checked(digits)?;
    let factor: u64 = match suffix {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, value: &str) -> Words {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_nearest_limit_counts() {
        let none = Words::new();
        let network = words("gamut.bandwidth.ingress", "20M");
        let pod = words("kubernetes.io/ingress-bandwidth", "30M");
        let ingress = |endpoint: &Words, network: &Words| {
            of(endpoint, network, &pod).unwrap().ingress_bits_per_second
        };
        assert_eq!(
            ingress(&words("gamut.bandwidth.ingress", "10Mi"), &network),
            Some(10 << 20)
        );
        assert_eq!(ingress(&none, &network), Some(20_000_000));
        assert_eq!(ingress(&none, &none), Some(30_000_000));
        assert_eq!(of(&none, &none, &none).unwrap(), Bandwidth::default());
        for bad in [
            "",
            "M",
            "1.5M",
            "10m",
            "1T",
            "-1",
            "99999999999G",
            "7",
            "2000G",
        ] {
            let words = words("kubernetes.io/egress-bandwidth", bad);
            assert!(of(&none, &none, &words).is_err(), "{bad}");
        }
    }
}

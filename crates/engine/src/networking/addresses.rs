//! The addresses of a network that is made: those asked for, or some that are free.

use super::record::{Addresses, Addresses6, NetworkRecord};
use super::verbs::{NetworkSpec, SubnetSpec};
use super::{failed, live, pools};
use crate::error::{Error, Result};
use gamut_network::{Ipv4Subnet, Ipv6Subnet, Subnet};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::str::FromStr;

/// The addresses of a new network among those that are known. `ula_seed` tells engines apart that
/// choose addresses of their own for IPv6.
///
/// # Errors
/// `InvalidArgument` for what makes no sense, `Forbidden` for addresses in use, `Unavailable` if
/// none are free.
pub(super) fn choose(
    spec: &NetworkSpec,
    known: &[NetworkRecord],
    ula_seed: &str,
) -> Result<(Addresses, Option<Addresses6>)> {
    let is_sixth = |config: &&SubnetSpec| config.subnet.contains(':');
    let taken: Vec<Ipv4Subnet> = known
        .iter()
        .filter_map(|record| Some(record.addresses.as_ref()?.subnet))
        .collect();
    let mut configured = spec.subnets.iter().filter(|config| !is_sixth(config));
    let fourth = one(&mut configured)?;
    let addresses = match fourth {
        Some(config) => asked(config, &taken)?,
        None => free(
            "IPv4",
            gamut_network::free_subnet(&pools::candidates(&taken)),
        )?,
    };
    // As dockerd does it, subnets of IPv6 are passed over where that is not asked for.
    if !spec.ipv6 {
        return Ok((addresses, None));
    }
    let taken: Vec<Ipv6Subnet> = known
        .iter()
        .filter_map(|record| Some(record.addresses6.as_ref()?.subnet))
        .collect();
    let mut configured = spec.subnets.iter().filter(is_sixth);
    let addresses6 = match one(&mut configured)? {
        Some(config) => {
            let addresses: Addresses6 = asked(config, &taken)?;
            if !addresses.subnet.is_for_hosts() {
                return Err(Error::invalid(format!(
                    "invalid subnet {}: its addresses are loopback, link-local, multicast or otherwise reserved",
                    addresses.subnet
                )));
            }
            addresses
        }
        None => free(
            "IPv6",
            gamut_network::free_subnet6(pools::unique_local(ula_seed, &taken)),
        )?,
    };
    Ok((addresses, Some(addresses6)))
}

/// The one configuration of a family, if it names a subnet.
fn one<'a>(configured: &mut dyn Iterator<Item = &'a SubnetSpec>) -> Result<Option<&'a SubnetSpec>> {
    let first = configured.next();
    if configured.next().is_some() {
        return Err(Error::invalid(
            "bridge driver doesn't support multiple subnets",
        ));
    }
    let wanted = first.filter(|config| !config.subnet.is_empty());
    if let (Some(config), None) = (first, wanted)
        && !(config.gateway.is_empty() && config.range.is_empty() && config.auxiliary.is_empty())
    {
        return Err(Error::invalid(
            "invalid address configuration: a gateway, a range or auxiliary addresses need a subnet",
        ));
    }
    Ok(wanted)
}

fn free<S: Subnet>(
    family: &str,
    subnet: gamut_network::Result<S>,
) -> Result<Addresses<S, S::Address>> {
    let subnet = subnet.map_err(|_| {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "could not find an available, non-overlapping {family} address pool among the defaults to assign to the network: remove networks that are not needed (gamut network prune) or name a --subnet"
            ),
        )
    })?;
    Ok(Addresses {
        subnet,
        gateway: subnet.first_host(),
        range: None,
        auxiliary: BTreeMap::new(),
        is_configured: false,
    })
}

fn asked<S>(config: &SubnetSpec, taken: &[S]) -> Result<Addresses<S, S::Address>>
where
    S: Subnet + FromStr<Err = gamut_network::Error>,
    S::Address: FromStr,
{
    let parse = |text: &str| S::from_str(text).map_err(|error| failed(&error));
    let subnet = parse(&config.subnet)?;
    let address = |what: &str, text: &str| {
        S::Address::from_str(text).map_err(|_| {
            Error::invalid(format!(
                "invalid {what} {text:?}: expected an address of subnet {subnet}"
            ))
        })
    };
    if taken.iter().any(|other| other.overlaps(subnet)) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            "invalid pool request: Pool overlaps with other one on this address space",
        ));
    }
    let range = Some(&config.range).filter(|range| !range.is_empty());
    let range = range.map(|range| parse(range)).transpose()?;
    let mut auxiliary = BTreeMap::new();
    for (name, text) in &config.auxiliary {
        auxiliary.insert(name.clone(), address("auxiliary address", text)?);
    }
    let gateway = if config.gateway.is_empty() {
        range.map_or(subnet.first_host(), |range| {
            range.first().max(subnet.first_host())
        })
    } else {
        // Docker takes a gateway with the prefix of its subnet as well.
        let (text, _) = config
            .gateway
            .split_once('/')
            .unwrap_or((&config.gateway, ""));
        address("gateway", text)?
    };
    let addresses = Addresses {
        subnet,
        gateway,
        range,
        auxiliary,
        is_configured: true,
    };
    live::check(&addresses).map_err(|error| failed(&error))?;
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(subnet: &str, gateway: &str, range: &str) -> SubnetSpec {
        SubnetSpec {
            subnet: subnet.to_owned(),
            gateway: gateway.to_owned(),
            range: range.to_owned(),
            auxiliary: BTreeMap::new(),
        }
    }

    fn network(ipv6: bool, subnets: &[SubnetSpec]) -> NetworkSpec {
        NetworkSpec {
            ipv6,
            subnets: subnets.to_vec(),
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn both_families_are_taken_from_what_is_asked_for() {
        let four = subnet("10.1.0.0/24", "", "");
        let six = subnet("fd00:1::/64", "fd00:1::ff", "fd00:1::/80");
        let both = network(true, &[six.clone(), four.clone()]);
        let (addresses, addresses6) = choose(&both, &[], "a").unwrap();
        assert_eq!(addresses.gateway.to_string(), "10.1.0.1");
        let addresses6 = addresses6.unwrap();
        assert_eq!(addresses6.gateway.to_string(), "fd00:1::ff");
        assert!(addresses6.is_configured);
        let (_, without) = choose(&network(false, &[six.clone(), four.clone()]), &[], "a").unwrap();
        assert_eq!(without, None, "passed over, as dockerd does");

        let mut known = NetworkRecord::predefined("bridge", 0);
        known.addresses6 = Some(addresses6);
        let taken = network(true, &[four.clone(), subnet("fd00:1::/48", "", "")]);
        let error = choose(&taken, &[known], "a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        for bad in [
            vec![four.clone(), six.clone(), six.clone()],
            vec![four.clone(), subnet("fe80::/64", "", "")],
            vec![four.clone(), subnet("fd00:1::1/64", "", "")],
            vec![four.clone(), subnet("fd00:1::/64", "fd00:2::1", "")],
            vec![four.clone(), subnet("fd00:1::/64", "", "fd00:2::/80")],
            vec![four, subnet("fd00:1::/127", "", "")],
        ] {
            let error = choose(&network(true, &bad), &[], "a").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}: {error}");
        }
    }
}

//! Options of networks and endpoints, in Docker's words.

use super::bandwidth;
use super::record::{
    MACVLAN, NetworkRecord, OPTION_HOST_ADDRESS, OPTION_ICC, OPTION_MASQUERADE, OPTION_MTU,
    is_boolean, is_true,
};
use crate::error::{Error, Result};
use gamut_network::{MacvlanConfig, MacvlanMode};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Driver option of a network: how names of interfaces in containers begin, instead of `eth`.
pub(super) const OPTION_PREFIX: &str = "com.docker.network.container_iface_prefix";
/// Driver option of a network: the same as asking for IPv6.
pub(super) const OPTION_IPV6: &str = "com.docker.network.enable_ipv6";
/// Driver option of an endpoint: the name of its interface.
pub(super) const OPTION_INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// Driver option of an endpoint: kernel settings of its interface.
pub(super) const OPTION_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// Driver option of a macvlan network: the interface of the host's on which it hangs.
const OPTION_PARENT: &str = "parent";
/// Driver option of a macvlan network: who reaches whom.
const OPTION_MODE: &str = "macvlan_mode";
/// The longest name of an interface (linux/if.h: IFNAMSIZ less the end).
const MAX_INTERFACE_BYTES: usize = 15;
/// How names of interfaces in containers begin.
const DEFAULT_PREFIX: &str = "eth";

/// Options of Docker's that would change who reaches whom, with the values that change nothing.
/// To show another one without doing it would be a hole in somebody's wall.
const UNSUPPORTED: [(&str, &[&str]); 7] = [
    ("com.docker.network.bridge.gateway_mode_ipv4", &["", "nat"]),
    ("com.docker.network.bridge.gateway_mode_ipv6", &["", "nat"]),
    ("com.docker.network.bridge.inhibit_ipv4", &["", "false"]),
    ("com.docker.network.bridge.trusted_host_interfaces", &[""]),
    ("com.docker.network.host_ipv4", &[""]),
    ("com.docker.network.host_ipv6", &[""]),
    ("com.docker.network.enable_ipv4", &["", "true", "1"]),
];

/// Refuses options that a network cannot have.
pub(super) fn check_network(options: &BTreeMap<String, String>, ipv6: bool) -> Result<()> {
    bandwidth::of(&BTreeMap::new(), options, &BTreeMap::new())?;
    let smallest_mtu = if ipv6 { 1280 } else { 68 };
    for (name, value) in options {
        let bad = |expected: &str| {
            Err(Error::invalid(format!(
                "invalid value {value:?} for network option {name}: expected {expected}"
            )))
        };
        match name.as_str() {
            OPTION_ICC | OPTION_MASQUERADE | OPTION_IPV6 if !is_boolean(value) => {
                return bad("true or false");
            }
            OPTION_MTU
                if !value
                    .parse()
                    .is_ok_and(|mtu: u32| (smallest_mtu..=65535).contains(&mtu)) =>
            {
                return bad(&format!("{smallest_mtu} to 65535 bytes"));
            }
            OPTION_HOST_ADDRESS if value.parse::<Ipv4Addr>().is_err() => {
                return bad("an IPv4 address");
            }
            // Room for the number.
            OPTION_PREFIX if !is_interface(value) || value.len() > MAX_INTERFACE_BYTES - 2 => {
                return bad("up to 13 characters of an interface's name");
            }
            name => {
                let known = UNSUPPORTED.iter().find(|(known, _)| *known == name);
                if known.is_some_and(|(_, harmless)| !harmless.contains(&value.as_str())) {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("network option {name}={value} is not supported yet: leave it out"),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Where a network of the driver macvlan hangs; `None` for one of another driver.
///
/// # Errors
/// `InvalidArgument` for a mode that there is not, `Unsupported` without a parent.
pub(super) fn macvlan(record: &NetworkRecord) -> Result<Option<MacvlanConfig>> {
    if record.driver != MACVLAN {
        return Ok(None);
    }
    let option = |name: &str| record.options.get(name).map_or("", String::as_str);
    let parent = option(OPTION_PARENT);
    if parent.is_empty() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a macvlan network without a parent is not supported yet: name an interface of the host by -o parent=NAME, or use an internal bridge network",
        ));
    }
    if parent != "lo" && !is_interface(parent) {
        return Err(Error::invalid(format!(
            "invalid parent {parent:?}: it is no name of an interface"
        )));
    }
    let mode = match option(OPTION_MODE) {
        "" | "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        other => {
            return Err(Error::invalid(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default; the others are private, vepa and passthru"
            )));
        }
    };
    Ok(Some(MacvlanConfig {
        parent: parent.to_owned(),
        mode,
        mtu: record
            .options
            .get(OPTION_MTU)
            .and_then(|mtu| mtu.parse().ok()),
    }))
}

/// Whether a network's options ask for IPv6.
pub(super) fn wants_ipv6(options: &BTreeMap<String, String>) -> bool {
    options.get(OPTION_IPV6).is_some_and(|value| is_true(value))
}

/// Refuses options that an endpoint cannot have. Those of other drivers are only shown.
pub(super) fn check_endpoint(options: &BTreeMap<String, String>) -> Result<()> {
    if let Some(name) = options.get(OPTION_INTERFACE)
        && !is_interface(name)
    {
        return Err(Error::invalid(format!(
            "invalid interface name {name:?}: expected 1 to {MAX_INTERFACE_BYTES} bytes without spaces, '/' and ':', and not \"lo\""
        )));
    }
    sysctls(options, "IFNAME").map(drop)
}

/// The name of the interface number `number` of a container.
pub(super) fn interface_name(
    network: &BTreeMap<String, String>,
    endpoint: &BTreeMap<String, String>,
    number: usize,
) -> String {
    if let Some(name) = endpoint.get(OPTION_INTERFACE) {
        return name.clone();
    }
    let prefix = network
        .get(OPTION_PREFIX)
        .map_or(DEFAULT_PREFIX, String::as_str);
    format!("{prefix}{number}")
}

fn is_interface(name: &str) -> bool {
    let is_lawful = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    (1..=MAX_INTERFACE_BYTES).contains(&name.len())
        && name.chars().all(is_lawful)
        && !matches!(name, "lo" | "." | ".." | "all" | "default")
}

/// Kernel settings of an endpoint's interface: paths below `/proc/sys/net`, and values. As Docker's:
/// `net.ipv6.conf.IFNAME.accept_ra=2`, joined by commas.
///
/// # Errors
/// `InvalidArgument` for settings of something else than this interface.
pub(super) fn sysctls(
    options: &BTreeMap<String, String>,
    interface: &str,
) -> Result<Vec<(String, String)>> {
    let text = options.get(OPTION_SYSCTLS).map_or("", String::as_str);
    let settings = text.split(',').filter(|setting| !setting.is_empty());
    settings
        .map(|setting| {
            let bad = || {
                Error::invalid(format!(
                    "invalid setting {setting:?} in {OPTION_SYSCTLS}: expected one of its interface, such as net.ipv6.conf.IFNAME.accept_ra=2"
                ))
            };
            let (key, value) = setting.split_once('=').ok_or_else(bad)?;
            let is_word = |word: &str| {
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            let parts: Vec<&str> = key.trim().split('.').collect();
            match parts.as_slice() {
                ["net", family @ ("ipv4" | "ipv6" | "mpls"), kind @ ("conf" | "neigh"), "IFNAME", name]
                    if is_word(name) =>
                {
                    Ok((
                        format!("{family}/{kind}/{interface}/{name}"),
                        value.trim().to_owned(),
                    ))
                }
                _ => Err(bad()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_would_not_be_done_is_refused() {
        let gateway = "com.docker.network.bridge.gateway_mode_ipv6";
        assert!(check_network(&options(&[(gateway, "nat"), ("mine", "x")]), true).is_ok());
        let error = check_network(&options(&[(gateway, "routed")]), true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for (name, value) in [
            (OPTION_MTU, "1279"),
            (OPTION_ICC, "maybe"),
            (OPTION_PREFIX, "a/b"),
            (OPTION_PREFIX, "fourteen-bytes"),
        ] {
            let error = check_network(&options(&[(name, value)]), true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}={value}");
        }
        assert!(check_network(&options(&[(OPTION_MTU, "1279")]), false).is_ok());
        assert!(wants_ipv6(&options(&[(OPTION_IPV6, "1")])) && !wants_ipv6(&options(&[])));
    }

    #[test]
    fn interfaces_have_names_as_asked() {
        let prefix = options(&[(OPTION_PREFIX, "net")]);
        assert_eq!(interface_name(&options(&[]), &options(&[]), 1), "eth1");
        assert_eq!(interface_name(&prefix, &options(&[]), 0), "net0");
        let own = options(&[(OPTION_INTERFACE, "lan")]);
        assert_eq!(interface_name(&prefix, &own, 0), "lan");
        for bad in ["", "lo", "all", "..", "a b", "a/b", "sixteen-letters-"] {
            assert!(
                check_endpoint(&options(&[(OPTION_INTERFACE, bad)])).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn settings_are_those_of_the_interface() {
        let both = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2";
        let read = sysctls(&options(&[(OPTION_SYSCTLS, both)]), "eth0").unwrap();
        let expected = [
            ("ipv4/conf/eth0/log_martians", "1"),
            ("ipv6/conf/eth0/accept_ra", "2"),
        ];
        assert_eq!(
            read,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        for bad in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.log_martians=1",
            "net.ipv4.conf.IFNAME.=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net.ipv4.conf.IFNAME.log_martians",
            "kernel.conf.IFNAME.x.y=1",
        ] {
            assert!(
                sysctls(&options(&[(OPTION_SYSCTLS, bad)]), "eth0").is_err(),
                "{bad}"
            );
        }
    }
}

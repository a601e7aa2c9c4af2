//! The files below `/etc` that an engine provides: `hosts`, `hostname` and `resolv.conf`.

use super::oci;
use super::record::ContainerRecord;
use super::spec::ContainerSpec;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Resolvers for containers on a bridge of a host whose own resolvers are out of their reach.
const FALLBACK_DNS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// What the files are made from beside the record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Where the host is reached, if it is at all.
    pub host_gateway: Option<Ipv4Addr>,
    /// Where resolvers on the host's loopback are reached from the engine's network, if that is
    /// not the host's.
    pub loopback_dns: Option<Ipv4Addr>,
    /// Names are asked of the embedded resolver.
    pub has_names: bool,
    /// Addresses and names of containers that are linked to on the default network.
    pub links: Vec<(Ipv4Addr, Vec<String>)>,
    /// The host's resolv.conf(5).
    pub host_resolvers: String,
}

/// Writes the files into `directory`.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn write(
    directory: &Path,
    record: &ContainerRecord,
    surroundings: &Surroundings,
) -> io::Result<()> {
    let hostname = oci::hostname(record);
    write_in_place(&directory.join("hostname"), &format!("{hostname}\n"))?;
    write_in_place(&directory.join("hosts"), &hosts(record, surroundings))?;
    write_in_place(
        &directory.join("resolv.conf"),
        &resolv_conf(record, surroundings),
    )
}

/// Brings the files of a running container up to date: lines that its networks have changed come
/// and go, others stay as whoever changed them left them.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn rewrite(
    directory: &Path,
    (before, before_surroundings): (&ContainerRecord, &Surroundings),
    (after, after_surroundings): (&ContainerRecord, &Surroundings),
) -> io::Result<()> {
    let files = [
        (
            "hosts",
            hosts(before, before_surroundings),
            hosts(after, after_surroundings),
        ),
        (
            "resolv.conf",
            resolv_conf(before, before_surroundings),
            resolv_conf(after, after_surroundings),
        ),
    ];
    for (name, before, after) in files {
        if before == after {
            continue;
        }
        let path = directory.join(name);
        let current = fs::read_to_string(&path)?;
        write_in_place(&path, &merge(&current, &before, &after))?;
    }
    Ok(())
}

/// `current` without the lines that only `before` has, and with those that only `after` has.
fn merge(current: &str, before: &str, after: &str) -> String {
    let gone = |line: &&str| {
        before.lines().any(|one| one == *line) && !after.lines().any(|one| one == *line)
    };
    let mut lines: Vec<&str> = current.lines().filter(|line| !gone(line)).collect();
    let fresh: Vec<&str> = after
        .lines()
        .filter(|line| !before.lines().any(|one| one == *line))
        .collect();
    // Of resolvers, the first one counts.
    let at = if fresh.iter().any(|line| line.starts_with("nameserver")) {
        0
    } else {
        lines.len()
    };
    lines.splice(at..at, fresh);
    lines.join("\n") + "\n"
}

/// Refuses names and addresses that would be more than one word of these files.
///
/// # Errors
/// [`gamut_spec::error::ErrorKind::InvalidArgument`], naming the option.
pub fn check(spec: &ContainerSpec) -> Result<()> {
    let words: [(&str, &[String]); 6] = [
        ("hostname", std::slice::from_ref(&spec.hostname)),
        ("domainname", std::slice::from_ref(&spec.domainname)),
        ("dns", &spec.dns),
        ("dns-search", &spec.dns_search),
        ("dns-option", &spec.dns_options),
        ("add-host", &spec.extra_hosts),
    ];
    for (option, words) in words {
        let breaks_out = |word: &&String| word.contains(|c: char| c.is_control() || c == ' ');
        if let Some(word) = words.iter().find(breaks_out) {
            return Err(Error::invalid(format!(
                "invalid {option} {word:?}: it must be one word, without spaces and control characters"
            )));
        }
    }
    Ok(())
}

/// Overwrites rather than replaces: the file may be mounted somewhere.
fn write_in_place(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
}

fn hosts(record: &ContainerRecord, surroundings: &Surroundings) -> String {
    let hostname = oci::hostname(record);
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let gateway = surroundings.host_gateway;
    if let Some(gateway) = gateway {
        text.push_str(&format!("{gateway}\thost.docker.internal\n"));
    }
    for entry in &record.spec.extra_hosts {
        let Some((name, address)) = entry.split_once([':', '=']) else {
            continue;
        };
        let gateway = gateway
            .map(|gateway| gateway.to_string())
            .unwrap_or_default();
        let address = if address == "host-gateway" {
            gateway.as_str()
        } else {
            address
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    for (address, names) in &surroundings.links {
        text.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    let full = if record.spec.domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{} {hostname}", record.spec.domainname)
    };
    for lease in &record.leases {
        text.push_str(&format!("{}\t{full}\n", lease.address));
        if let Some(place) = lease.ipv6 {
            text.push_str(&format!("{}\t{full}\n", place.address));
        }
    }
    text
}

/// The values of a keyword of resolv.conf(5).
fn values<'a>(text: &'a str, keyword: &'static str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim().strip_prefix(keyword))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .map(str::trim)
}

/// The resolvers that the embedded one asks, and whether those on a loopback address are the
/// container's own: only if a user has named them.
pub(crate) fn upstream(
    spec: &ContainerSpec,
    host: &str,
    loopback_dns: Option<Ipv4Addr>,
) -> (Vec<IpAddr>, bool) {
    if !spec.dns.is_empty() {
        let named = spec.dns.iter().filter_map(|server| server.parse().ok());
        return (named.collect(), true);
    }
    let of_host = values(host, "nameserver").filter_map(|server| server.parse().ok());
    let mut servers: Vec<IpAddr> = of_host
        .map(|server: IpAddr| match loopback_dns {
            Some(address) if server.is_loopback() => address.into(),
            _ => server,
        })
        .collect();
    servers.dedup();
    if servers.is_empty() {
        servers.extend(
            FALLBACK_DNS
                .iter()
                .filter_map(|server| server.parse::<IpAddr>().ok()),
        );
    }
    (servers, false)
}

/// For a container that asks the embedded resolver.
fn embedded(spec: &ContainerSpec, surroundings: &Surroundings) -> String {
    let host = &surroundings.host_resolvers;
    let mut text = format!("nameserver {}\n", gamut_dns::ADDRESS);
    text.push_str(&search_and_options(spec, host, Some("ndots:0")));
    let (servers, _) = upstream(spec, host, surroundings.loopback_dns);
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    text.push_str(&format!("\n# ExtServers: [{}]\n", servers.join(" ")));
    text
}

/// The host's resolvers, without those on its loopback, or what the user asked for.
fn resolv_conf(record: &ContainerRecord, surroundings: &Surroundings) -> String {
    let spec = &record.spec;
    let host = surroundings.host_resolvers.as_str();
    let loopback_dns = surroundings.loopback_dns;
    if surroundings.has_names {
        return embedded(spec, surroundings);
    }
    let shares_host = spec.network == super::spec::NetworkMode::Host;
    let untouched =
        spec.dns.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty();
    if shares_host && untouched && loopback_dns.is_none() {
        return host.to_owned();
    }
    let mut text = String::new();
    if spec.dns.is_empty() {
        let reachable = |server: &&str| {
            (shares_host && loopback_dns.is_none())
                || server
                    .parse::<IpAddr>()
                    .is_ok_and(|address| !address.is_loopback())
        };
        let mut servers: Vec<String> = values(host, "nameserver")
            .filter(reachable)
            .map(str::to_owned)
            .collect();
        if let (true, Some(address)) = (servers.is_empty(), loopback_dns)
            && values(host, "nameserver").next().is_some()
        {
            servers.push(address.to_string());
        }
        if servers.is_empty() {
            servers.extend(FALLBACK_DNS.map(str::to_owned));
        }
        for server in servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
    } else {
        for server in &spec.dns {
            text.push_str(&format!("nameserver {server}\n"));
        }
    }
    text + &search_and_options(spec, host, None)
}

/// The lines after the resolvers. `option` is added unless something else is said of it.
fn search_and_options(spec: &ContainerSpec, host: &str, option: Option<&str>) -> String {
    let mut text = String::new();
    if spec.dns_search.is_empty() {
        if let Some(search) = values(host, "search").last() {
            text.push_str(&format!("search {search}\n"));
        }
    } else if spec.dns_search != ["."] {
        text.push_str(&format!("search {}\n", spec.dns_search.join(" ")));
    }
    let mut options = if spec.dns_options.is_empty() {
        values(host, "options")
            .last()
            .unwrap_or_default()
            .to_owned()
    } else {
        spec.dns_options.join(" ")
    };
    if let Some(option) = option {
        let key = option.split(':').next().unwrap_or_default();
        let said = spec
            .dns_options
            .iter()
            .any(|one| one.split(':').next() == Some(key));
        if !said {
            let kept: Vec<&str> = options
                .split_whitespace()
                .filter(|one| one.split(':').next() != Some(key))
                .chain([option])
                .collect();
            options = kept.join(" ");
        }
    }
    if !options.is_empty() {
        text.push_str(&format!("options {options}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a.test\n\
        search corp.test\noptions edns0 ndots:2\n";

    #[test]
    fn the_embedded_resolver_is_asked_and_asks_the_hosts() {
        let surroundings = Surroundings {
            has_names: true,
            host_resolvers: HOST.to_owned(),
            ..Surroundings::default()
        };
        let mut spec = ContainerSpec::default();
        assert_eq!(
            embedded(&spec, &surroundings),
            "nameserver 127.0.0.11\nsearch corp.test\noptions edns0 ndots:0\n\n\
             # ExtServers: [127.0.0.53 192.0.2.1]\n"
        );
        let inside = Some(Ipv4Addr::new(169, 254, 1, 1));
        let (servers, is_inside) = upstream(&spec, HOST, inside);
        assert_eq!(servers[0], IpAddr::from([169, 254, 1, 1]));
        assert!(!is_inside);
        spec.dns = vec!["127.0.0.1".to_owned()];
        spec.dns_options = vec!["ndots:3".to_owned()];
        spec.dns_search = vec![".".to_owned()];
        assert_eq!(
            embedded(&spec, &surroundings),
            "nameserver 127.0.0.11\noptions ndots:3\n\n# ExtServers: [127.0.0.1]\n"
        );
        assert!(upstream(&spec, HOST, None).1);
        assert_eq!(upstream(&ContainerSpec::default(), "", None).0.len(), 2);
    }

    #[test]
    fn what_a_user_wrote_into_the_files_stays() {
        let before = "127.0.0.1\tlocalhost\n172.29.0.2\tc\n";
        let after = "127.0.0.1\tlocalhost\n172.29.0.2\tc\n10.0.0.2\tc\n";
        let current = format!("{before}10.1.1.1\tmine\n");
        let merged = merge(&current, before, after);
        assert_eq!(merged, format!("{before}10.1.1.1\tmine\n10.0.0.2\tc\n"));
        assert_eq!(merge(&merged, after, before), current);
    }
}

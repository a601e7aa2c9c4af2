//! The files below `/etc` that an engine provides: `hosts`, `hostname` and `resolv.conf`.

use super::oci;
use super::record::{ContainerRecord, Lease};
use super::spec::ContainerSpec;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Resolvers for containers on a bridge of a host whose own resolvers are out of their reach.
const FALLBACK_DNS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Writes the files into `directory`. `loopback_dns` is where resolvers on the host's loopback
/// are reached from the engine's network, if that is not the host's.
///
/// # Errors
/// If they cannot be written.
pub fn write(
    directory: &Path,
    record: &ContainerRecord,
    lease: Option<&Lease>,
    gateway: Option<Ipv4Addr>,
    loopback_dns: Option<Ipv4Addr>,
) -> io::Result<()> {
    let hostname = oci::hostname(record);
    write_in_place(&directory.join("hostname"), &format!("{hostname}\n"))?;
    write_in_place(
        &directory.join("hosts"),
        &hosts(record, hostname, lease, gateway),
    )?;
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    write_in_place(
        &directory.join("resolv.conf"),
        &resolv_conf(record, &host, loopback_dns),
    )
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

fn hosts(
    record: &ContainerRecord,
    hostname: &str,
    lease: Option<&Lease>,
    gateway: Option<Ipv4Addr>,
) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
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
    if let Some(lease) = lease {
        let full = if record.spec.domainname.is_empty() {
            hostname.to_owned()
        } else {
            format!("{hostname}.{} {hostname}", record.spec.domainname)
        };
        text.push_str(&format!("{}\t{full}\n", lease.address));
    }
    text
}

/// The host's resolvers, without those on its loopback, or what the user asked for.
fn resolv_conf(record: &ContainerRecord, host: &str, loopback_dns: Option<Ipv4Addr>) -> String {
    let spec = &record.spec;
    let shares_host = spec.network == super::spec::NetworkMode::Host;
    let untouched =
        spec.dns.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty();
    if shares_host && untouched && loopback_dns.is_none() {
        return host.to_owned();
    }
    let of_host = |keyword: &'static str| {
        host.lines()
            .filter_map(move |line| line.trim().strip_prefix(keyword))
            .map(str::trim)
    };
    let mut text = String::new();
    if spec.dns.is_empty() {
        let reachable = |server: &&str| {
            (shares_host && loopback_dns.is_none())
                || server
                    .parse::<IpAddr>()
                    .is_ok_and(|address| !address.is_loopback())
        };
        let mut servers: Vec<String> = of_host("nameserver")
            .filter(reachable)
            .map(str::to_owned)
            .collect();
        if let (true, Some(address)) = (servers.is_empty(), loopback_dns)
            && of_host("nameserver").next().is_some()
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
    if spec.dns_search.is_empty() {
        if let Some(search) = of_host("search").next_back() {
            text.push_str(&format!("search {search}\n"));
        }
    } else if spec.dns_search != ["."] {
        text.push_str(&format!("search {}\n", spec.dns_search.join(" ")));
    }
    if spec.dns_options.is_empty() {
        if let Some(options) = of_host("options").next_back() {
            text.push_str(&format!("options {options}\n"));
        }
    } else {
        text.push_str(&format!("options {}\n", spec.dns_options.join(" ")));
    }
    text
}

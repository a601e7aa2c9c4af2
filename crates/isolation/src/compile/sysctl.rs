//! `linux.sysctl`: only parameters that belong to a namespace of the container.

use super::field::{invalid, text};
use super::namespaces::Namespaces;
use crate::error::Error;
use gamut_abi::plan::NamespaceKind;
use oci_spec::runtime::Linux;

/// Parameters by exact name and the namespace that they belong to
/// (Linux `ipc/ipc_sysctl.c`, `kernel/utsname_sysctl.c`).
const NAMES: [(&str, NamespaceKind); 13] = [
    ("kernel.domainname", NamespaceKind::Uts),
    ("kernel.hostname", NamespaceKind::Uts),
    ("kernel.msg_next_id", NamespaceKind::Ipc),
    ("kernel.msgmax", NamespaceKind::Ipc),
    ("kernel.msgmnb", NamespaceKind::Ipc),
    ("kernel.msgmni", NamespaceKind::Ipc),
    ("kernel.sem", NamespaceKind::Ipc),
    ("kernel.sem_next_id", NamespaceKind::Ipc),
    ("kernel.shm_next_id", NamespaceKind::Ipc),
    ("kernel.shm_rmid_forced", NamespaceKind::Ipc),
    ("kernel.shmall", NamespaceKind::Ipc),
    ("kernel.shmmax", NamespaceKind::Ipc),
    ("kernel.shmmni", NamespaceKind::Ipc),
];

/// Whole trees of parameters.
const TREES: [(&str, NamespaceKind); 3] = [
    ("fs.mqueue.", NamespaceKind::Ipc),
    ("net.", NamespaceKind::Network),
    ("user.", NamespaceKind::User),
];

/// Compiles the parameters, sorted by name.
pub(super) fn sysctls(
    linux: &Linux,
    namespaces: &Namespaces,
    hostname: Option<&str>,
) -> Result<Vec<(String, String)>, Error> {
    let mut compiled = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let field = format!("linux.sysctl.{key}");
        text(&field, key)?;
        text(&field, value)?;
        let name = dotted(key);
        if !is_plain(&name) {
            return Err(invalid(field, "is not the name of a kernel parameter"));
        }
        let owner = NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .or_else(|| TREES.iter().find(|(tree, _)| name.starts_with(tree)))
            .map(|(_, owner)| *owner);
        let Some(owner) = owner else {
            return Err(invalid(
                field,
                "belongs to the whole host, not to a namespace; set it on the host with sysctl(8)",
            ));
        };
        let foreign = match owner {
            NamespaceKind::Network => namespaces.host_network,
            NamespaceKind::User => !namespaces.is_new(owner),
            _ => !namespaces.has(owner),
        };
        if foreign {
            return Err(invalid(
                field,
                format!("needs a {owner:?} namespace of the container's own, not the host's"),
            ));
        }
        if name == "kernel.hostname" && hostname.is_some() {
            return Err(invalid(field, "contradicts hostname; set one of them"));
        }
        compiled.push((name, value.clone()));
    }
    compiled.sort();
    if let Some(pair) = compiled.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(invalid(
            format!("linux.sysctl.{}", pair[0].0),
            "is set twice",
        ));
    }
    Ok(compiled)
}

/// The dotted form of a name: sysctl(8) takes dots or slashes, whichever comes first separates,
/// and the other one stands for the separator inside a component (`net/ipv4/conf/eth0.1/mtu`).
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// No component of the file name that the dotted name stands for is empty, `.` or `..`, so that
/// it cannot lead out of its tree.
fn is_plain(name: &str) -> bool {
    name.split('.').count() > 1
        && name.split('.').all(|part| {
            let part = part.replace('/', ".");
            !matches!(part.as_str(), "" | "." | "..")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_both_spellings() {
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(
            dotted("net/ipv4/conf/eth0.1/mtu"),
            "net.ipv4.conf.eth0/1.mtu"
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["net", "net.", "net..x", "net.//.kernel.x", "net./.x", ""] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("net.ipv4.conf.eth0/1.mtu"));
    }
}

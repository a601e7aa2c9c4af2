//! Which capabilities a container gets.

use crate::error::{Error, Result};
use gamut_abi::capability;

/// What a container has unless told otherwise: the set that Docker and Podman agree on.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

fn bit(name: &str) -> Result<u64> {
    capability::number(&name.to_ascii_uppercase())
        .map(|number| 1 << number)
        .ok_or_else(|| Error::invalid(format!("unknown capability: {name:?}")))
}

fn of_option(option: &str, error: &Error) -> Error {
    Error::invalid(format!("invalid {option}: {}", error.full_message()))
}

/// The set of bits for a container.
///
/// `held` are those of the engine itself: `ALL` and `privileged` mean these, since nobody can give
/// what he does not have.
///
/// # Errors
/// If a name is unknown.
pub fn resolve(add: &[String], drop: &[String], privileged: bool, held: u64) -> Result<u64> {
    let is_all =
        |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    if privileged {
        return Ok(held);
    }
    let mut set = if add.iter().any(is_all) {
        held
    } else if drop.iter().any(is_all) {
        0
    } else {
        let mut set = 0;
        for name in DEFAULT {
            set |= bit(name)?;
        }
        set & held
    };
    if add.iter().any(is_all) || !drop.iter().any(is_all) {
        for name in drop.iter().filter(|name| !is_all(name)) {
            set &= !bit(name).map_err(|error| of_option("CapDrop", &error))?;
        }
    }
    for name in add.iter().filter(|name| !is_all(name)) {
        set |= bit(name).map_err(|error| of_option("CapAdd", &error))?;
    }
    Ok(set)
}

/// Names with the `CAP_` prefix of the bits in `set`.
#[must_use]
pub fn names(set: u64) -> Vec<String> {
    capability::NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| set & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

/// The capabilities that this process holds (bounding set), from `/proc/self/status`.
///
/// # Errors
/// If procfs cannot be read.
pub fn held() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    fn resolved(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        names(resolve(&own(add), &own(drop), false, ALL & !(1 << 24)).unwrap())
    }

    #[test]
    fn add_and_drop_follow_docker() {
        assert_eq!(resolved(&[], &[]).len(), 14);
        assert_eq!(resolved(&[], &["ALL"]).len(), 0);
        assert_eq!(resolved(&["CHOWN"], &["all"]), ["CAP_CHOWN"]);
        assert!(resolved(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!resolved(&[], &["CAP_MKNOD"]).contains(&"CAP_MKNOD".to_owned()));
        let all_but_one = resolved(&["ALL"], &["SYS_ADMIN"]);
        assert_eq!(all_but_one.len(), 39);
        assert!(resolve(&["NOPE".to_owned()], &[], false, ALL).is_err());
        assert_eq!(resolve(&[], &[], true, 7).unwrap(), 7);
    }
}

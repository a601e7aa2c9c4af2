//! `linux.devices` and the rules of `linux.resources.devices`.

use super::field::{absolute, invalid};
use crate::error::Error;
use gamut_abi::plan::DeviceNode;
use gamut_abi::resources::{DeviceKind, DeviceRule, access};
use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType};

/// Largest major number of a device (Linux `include/linux/kdev_t.h`: 12 bits).
const MAX_MAJOR: u32 = (1 << 12) - 1;
/// Largest minor number of a device (20 bits).
const MAX_MINOR: u32 = (1 << 20) - 1;
/// Permission bits of a node whose configuration names none.
const DEFAULT_MODE: u32 = 0o666;

/// A device number in range.
pub(super) fn number(field: &str, number: i64, largest: u32) -> Result<u32, Error> {
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= largest)
        .ok_or_else(|| invalid(field, format!("{number} is not between 0 and {largest}")))
}

/// A pair of device numbers in range.
pub(super) fn numbers(entry: &str, major: i64, minor: i64) -> Result<(u32, u32), Error> {
    Ok((
        number(&format!("{entry}.major"), major, MAX_MAJOR)?,
        number(&format!("{entry}.minor"), minor, MAX_MINOR)?,
    ))
}

/// Compiles the device nodes.
pub(super) fn nodes(linux: &Linux) -> Result<Vec<DeviceNode>, Error> {
    let mut nodes: Vec<DeviceNode> = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let entry = format!("linux.devices[{index}]");
        let field = format!("{entry}.path");
        let path = absolute(&field, device.path())?;
        if path.ends_with('/') || path.split('/').any(|part| part == "..") {
            return Err(invalid(
                field,
                format!("{path:?} does not name a device node"),
            ));
        }
        let kind = match device.typ() {
            LinuxDeviceType::B => b'b',
            LinuxDeviceType::C | LinuxDeviceType::U => b'c',
            LinuxDeviceType::P => b'p',
            LinuxDeviceType::A => {
                return Err(invalid(format!("{entry}.type"), "use c, u, b or p"));
            }
        };
        // A FIFO has no device number.
        let (major, minor) = if kind == b'p' {
            (0, 0)
        } else {
            numbers(&entry, device.major(), device.minor())?
        };
        let node = DeviceNode {
            path,
            kind,
            major,
            minor,
            // Some callers pass the whole st_mode.
            mode: device.file_mode().unwrap_or(DEFAULT_MODE) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        };
        match nodes.iter().find(|known| known.path == node.path) {
            None => nodes.push(node),
            Some(known) if *known == node => {}
            Some(_) => {
                return Err(invalid(
                    format!("{entry}.path"),
                    format!("{:?} is already another device", node.path),
                ));
            }
        }
    }
    Ok(nodes)
}

/// Rules that every container has besides its own: making any node, and using the default ones
/// (OCI runtime-spec, "Default Devices").
const DEFAULT_RULES: [(DeviceKind, Option<u32>, Option<u32>, u8); 11] = [
    (DeviceKind::Character, None, None, access::MKNOD),
    (DeviceKind::Block, None, None, access::MKNOD),
    (DeviceKind::Character, Some(1), Some(3), access::ALL), // null
    (DeviceKind::Character, Some(1), Some(5), access::ALL), // zero
    (DeviceKind::Character, Some(1), Some(7), access::ALL), // full
    (DeviceKind::Character, Some(1), Some(8), access::ALL), // random
    (DeviceKind::Character, Some(1), Some(9), access::ALL), // urandom
    (DeviceKind::Character, Some(5), Some(0), access::ALL), // tty
    (DeviceKind::Character, Some(5), Some(1), access::ALL), // console
    (DeviceKind::Character, Some(5), Some(2), access::ALL), // ptmx
    (DeviceKind::Character, Some(136), None, access::ALL),  // pts
];

/// Compiles the access rules: everything is denied, then the configuration's own rules apply,
/// then the defaults.
pub(super) fn rules(list: Option<&[LinuxDeviceCgroup]>) -> Result<Vec<DeviceRule>, Error> {
    let mut rules = vec![DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        access: access::ALL,
    }];
    for (index, rule) in list.unwrap_or_default().iter().enumerate() {
        let rule = compile_rule(&format!("linux.resources.devices[{index}]"), rule)?;
        if rule != rules[0] || index > 0 {
            rules.push(rule);
        }
    }
    rules.extend(
        DEFAULT_RULES
            .iter()
            .map(|&(kind, major, minor, access)| DeviceRule {
                allow: true,
                kind,
                major,
                minor,
                access,
            }),
    );
    Ok(rules)
}

fn compile_rule(entry: &str, rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => DeviceKind::All,
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
        LinuxDeviceType::P => {
            return Err(invalid(
                format!("{entry}.type"),
                "use a, b or c: a FIFO is not a device",
            ));
        }
    };
    let wildcard = |name: &str, value: Option<i64>, largest: u32| match value {
        None | Some(-1) => Ok(None),
        Some(value) => number(&format!("{entry}.{name}"), value, largest).map(Some),
    };
    let mut bits = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        bits |= match letter {
            'r' => access::READ,
            'w' => access::WRITE,
            'm' => access::MKNOD,
            // "All", as in the type, of old callers. To deny more than was meant is safe.
            'a' if !rule.allow() => access::ALL,
            other => {
                return Err(invalid(
                    format!("{entry}.access"),
                    format!("unknown letter {other:?}; use r, w and m"),
                ));
            }
        };
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: wildcard("major", rule.major(), MAX_MAJOR)?,
        minor: wildcard("minor", rule.minor(), MAX_MINOR)?,
        access: if bits == 0 { access::ALL } else { bits },
    })
}

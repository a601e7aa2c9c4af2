//! Device access: files in v1, an eBPF program in v2.

use crate::bpf;
use crate::controller::Controller;
use crate::error::Error;
use crate::group::{Group, absolute};
use crate::hierarchy::Hierarchy;
use gamut_abi::resources::{DeviceKind, DeviceRule, access};
use std::os::fd::AsFd;

/// Puts device rules into force: first everything is allowed, then later rules win. An update
/// replaces what was there before. Device access is a matter of security, so whatever cannot be
/// had is an error.
pub(crate) fn apply(group: &Group, rules: &[DeviceRule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    if let Some(hierarchy) = group.hierarchies.locate(Controller::Devices) {
        return apply_v1(group, hierarchy, rules);
    }
    let Some(hierarchy) = group.hierarchies.v2() else {
        return Err(Error::invalid(
            "restrict device access of",
            group.path(),
            "the machine has neither the devices controller nor cgroup v2",
        ));
    };
    let failed = |operation| {
        move |source| Error::system(operation, absolute(hierarchy, &group.relative), source)
    };
    let Some(directory) = group.directory_v2() else {
        return Err(failed("open")(std::io::Error::from_raw_os_error(
            libc::ENOENT,
        )));
    };
    bpf::attach_device_filter(directory.as_fd(), &bpf::device_filter(rules))
        .map_err(failed("attach the device filter to"))
}

/// One entry of `devices.list`; -1 would be `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: u8,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Entry {
    fn text(self) -> String {
        let mut text = String::with_capacity(24);
        text.push(char::from(self.kind));
        text.push(' ');
        text.push_str(&number(self.major));
        text.push(':');
        text.push_str(&number(self.minor));
        text.push(' ');
        for (bit, letter) in [
            (access::READ, 'r'),
            (access::WRITE, 'w'),
            (access::MKNOD, 'm'),
        ] {
            if self.access & bit != 0 {
                text.push(letter);
            }
        }
        text
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let kind = *words.next()?.as_bytes().first()?;
        let (major, minor) = words.next()?.split_once(':')?;
        let mut bits = 0;
        for letter in words.next()?.bytes() {
            bits |= match letter {
                b'r' => access::READ,
                b'w' => access::WRITE,
                b'm' => access::MKNOD,
                _ => 0,
            };
        }
        Some(Self {
            kind,
            major: parse_number(major)?,
            minor: parse_number(minor)?,
            access: bits,
        })
    }

    fn same_device(self, other: Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(|| String::from("*"), |value| value.to_string())
}

fn parse_number(text: &str) -> Option<Option<u32>> {
    match text {
        "*" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// Whether a rule speaks of every device and every access.
pub(crate) fn is_total(rule: &DeviceRule) -> bool {
    rule.kind == DeviceKind::All
        && rule.major.is_none()
        && rule.minor.is_none()
        && rule.access & access::ALL == access::ALL
}

/// v1 takes kind `a` as "everything", whatever numbers stand behind it: split it.
fn entries(rule: &DeviceRule) -> Vec<Entry> {
    let kinds: &[u8] = match rule.kind {
        DeviceKind::All => b"bc",
        DeviceKind::Block => b"b",
        DeviceKind::Character => b"c",
    };
    if rule.access & access::ALL == 0 {
        return Vec::new();
    }
    kinds
        .iter()
        .map(|kind| Entry {
            kind: *kind,
            major: rule.major,
            minor: rule.minor,
            access: rule.access & access::ALL,
        })
        .collect()
}

fn apply_v1(group: &Group, hierarchy: &Hierarchy, rules: &[DeviceRule]) -> Result<(), Error> {
    let file = |allow: bool| {
        if allow {
            "devices.allow"
        } else {
            "devices.deny"
        }
    };
    // Rules before the last one about everything have no effect.
    let start = rules.iter().rposition(is_total);
    let allowed_at_first = start.is_none_or(|at| rules[at].allow);
    let rest = start.map_or(rules, |at| &rules[at + 1..]);
    let exact = !allowed_at_first && rest.iter().all(|rule| rule.allow);
    if exact && let Some(current) = allow_list(group, hierarchy) {
        return change_allow_list(group, hierarchy, &current, rest);
    }
    group.write(hierarchy, file(allowed_at_first), "a")?;
    for rule in rest {
        for entry in entries(rule) {
            group.write(hierarchy, file(rule.allow), &entry.text())?;
        }
    }
    Ok(())
}

/// The group's entries if it has an allow-list by now, `None` if it allows everything.
fn allow_list(group: &Group, hierarchy: &Hierarchy) -> Option<Vec<Entry>> {
    let text = String::from_utf8(group.try_read(hierarchy, "devices.list").ok()?).ok()?;
    let current: Option<Vec<Entry>> = text.lines().map(Entry::parse).collect();
    current.filter(|list| list.iter().all(|entry| entry.kind != b'a'))
}

/// Goes from one allow-list to another without a moment in which a device of both is denied.
fn change_allow_list(
    group: &Group,
    hierarchy: &Hierarchy,
    current: &[Entry],
    rules: &[DeviceRule],
) -> Result<(), Error> {
    let mut wanted: Vec<Entry> = Vec::new();
    for entry in rules.iter().flat_map(entries) {
        match wanted.iter_mut().find(|known| known.same_device(entry)) {
            Some(known) => known.access |= entry.access,
            None => wanted.push(entry),
        }
    }
    for entry in &wanted {
        let there = current
            .iter()
            .any(|known| known.same_device(*entry) && known.access & entry.access == entry.access);
        if !there {
            group.write(hierarchy, "devices.allow", &entry.text())?;
        }
    }
    for old in current {
        let kept = wanted
            .iter()
            .find(|entry| entry.same_device(*old))
            .map_or(0, |entry| entry.access);
        let surplus = Entry {
            access: old.access & !kept,
            ..*old
        };
        if surplus.access != 0 {
            group.write(hierarchy, "devices.deny", &surplus.text())?;
        }
    }
    Ok(())
}

//! Device nodes and access rules in OCI's terms.

use super::super::record::ContainerRecord;
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> Value {
    let mut value = json!({"allow": allow, "type": kind, "access": access});
    if let Some(major) = major {
        value["major"] = json!(major);
    }
    if let Some(minor) = minor {
        value["minor"] = json!(minor);
    }
    value
}

/// Device nodes and access rules of an ordinary container.
pub(super) fn devices(record: &ContainerRecord) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        rule(true, "c", None, None, "m"),
        rule(true, "b", None, None, "m"),
    ];
    for (major, minor) in [
        (1, 3),
        (1, 5),
        (1, 7),
        (1, 8),
        (1, 9),
        (5, 0),
        (5, 1),
        (5, 2),
    ] {
        rules.push(rule(true, "c", Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, "c", Some(136), None, "rwm"));
    let mut nodes = Vec::new();
    for device in &record.spec.devices {
        let access = if device.access.is_empty() {
            "rwm"
        } else {
            device.access.as_str()
        };
        if !access.bytes().all(|c| matches!(c, b'r' | b'w' | b'm')) {
            return Err(Error::invalid(format!(
                "invalid device mode {access:?} for {}: use letters of rwm",
                device.host_path
            )));
        }
        for (host, container) in expand_device(&device.host_path, &device.container_path)? {
            let node = device_node(&host, &container)?;
            let number = |key: &str| node[key].as_i64();
            let kind = node["type"].as_str().unwrap_or("c").to_owned();
            rules.push(rule(true, &kind, number("major"), number("minor"), access));
            nodes.push(node);
        }
    }
    for text in &record.spec.device_cgroup_rules {
        rules.push(device_cgroup_rule(text)?);
    }
    Ok((nodes, rules))
}

/// `c 13:* rwm` as `--device-cgroup-rule` has it.
fn device_cgroup_rule(text: &str) -> Result<Value> {
    let bad = || Error::invalid(format!("invalid device cgroup format: '{text}'"));
    let words: Vec<&str> = text.split_whitespace().collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words.as_slice() else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |word: &str| match word {
        "*" => Ok(None),
        digits => digits.parse::<i64>().map(Some).map_err(|_| bad()),
    };
    if access.is_empty() || !access.bytes().all(|c| matches!(c, b'r' | b'w' | b'm')) {
        return Err(bad());
    }
    Ok(rule(true, kind, number(major)?, number(minor)?, access))
}

/// In docker's words, after which its client exits with 127 if there is no such file.
fn no_device(host: &str, source: std::io::Error) -> Error {
    let what = format!("error gathering device information while adding custom device {host:?}");
    if source.kind() == std::io::ErrorKind::NotFound {
        return Error::invalid(format!("{what}: no such file or directory"));
    }
    Error::system(what, source)
}

/// A directory stands for every device below it.
fn expand_device(host: &str, container: &str) -> Result<Vec<(String, String)>> {
    let metadata = std::fs::metadata(host).map_err(|source| no_device(host, source))?;
    if !metadata.is_dir() {
        return Ok(vec![(host.to_owned(), container.to_owned())]);
    }
    let entries = std::fs::read_dir(host)
        .map_err(|source| Error::system(format!("read the devices below {host}"), source))?;
    let mut list = Vec::new();
    for entry in entries.flatten() {
        let kind = entry.file_type();
        if kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device()) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            list.push((format!("{host}/{name}"), format!("{container}/{name}")));
        }
    }
    list.sort();
    Ok(list)
}

fn device_node(host: &str, container: &str) -> Result<Value> {
    let metadata = std::fs::metadata(host).map_err(|source| no_device(host, source))?;
    let kind = metadata.file_type();
    let letter = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return Err(Error::invalid(format!("{host}: not a device node")));
    };
    let device = metadata.rdev();
    Ok(json!({
        "path": container,
        "type": letter,
        "major": libc::major(device),
        "minor": libc::minor(device),
        "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(),
        "gid": metadata.gid(),
    }))
}

/// Every device of the host, for privileged containers; what a container has of its own is left.
pub(super) fn host_devices() -> Vec<Value> {
    let mut nodes = Vec::new();
    let mut directories = vec!["/dev".to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            let own = [
                "/dev/pts",
                "/dev/shm",
                "/dev/mqueue",
                "/dev/fd",
                "/dev/console",
                "/dev/ptmx",
            ];
            if own.contains(&path.as_str()) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                    // One that has just been unplugged is no error.
                    nodes.extend(device_node(&path, &path));
                }
                _ => {}
            }
        }
    }
    nodes
}

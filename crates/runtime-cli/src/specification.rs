//! `spec`: a configuration to begin with.

use crate::arguments::Specification;
use crate::error::Error;
use crate::state::OCI_VERSION;
use gamut_cgroup::{Hierarchies, Mode};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Capabilities of a program that needs none in particular.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Writes `config.json`.
///
/// # Errors
/// If there is one already, or it cannot be written.
pub fn write(options: &Specification) -> Result<(), Error> {
    let directory = options.bundle.as_deref().unwrap_or(Path::new("."));
    let path = directory.join("config.json");
    let is_v2 = Hierarchies::detect()?.mode() == Mode::V2;
    let mut spec = example(is_v2);
    if options.rootless {
        make_rootless(&mut spec);
    }
    let text = tabbed(&spec)?;
    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    created
        .and_then(|mut file| file.write_all(&text))
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Content {
                path: path.clone(),
                problem: format!("File {} exists. Remove it first", path.display()),
            },
            _ => Error::file("write", &path)(error),
        })
}

/// JSON with one tab a level, as other runtimes write it.
fn tabbed(spec: &Value) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(spec, &mut serializer)
        .map_err(|error| Error::Output(error.into()))?;
    text.push(b'\n');
    Ok(text)
}

/// On version 1, where a container sees little of it, others share the cgroup namespace.
fn example(own_cgroup_namespace: bool) -> Value {
    let mount = |destination: &str, fstype: &str, source: &str, options: &[&str]| {
        json!({
            "destination": destination, "type": fstype, "source": source, "options": options
        })
    };
    let mut proc = mount("/proc", "proc", "proc", &[]);
    proc.as_object_mut().map(|proc| proc.remove("options"));
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "gamut",
        "mounts": [
            proc,
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &[
                "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
            ]),
            mount("/dev/shm", "tmpfs", "shm", &[
                "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"
            ]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &[
                "nosuid", "noexec", "nodev", "relatime", "ro"
            ])
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
                "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    });
    if own_cgroup_namespace && let Some(list) = spec["linux"]["namespaces"].as_array_mut() {
        list.push(json!({"type": "cgroup"}));
    }
    spec
}

/// Without privileges there is a user namespace that maps the caller to root, no network and no
/// limits of its own, and what cannot be mounted is bound.
fn make_rootless(spec: &mut Value) {
    // SAFETY: cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = map(uid);
    linux["gidMappings"] = map(gid);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        for mount in mounts.iter_mut() {
            if let Some(options) = mount["options"].as_array_mut() {
                // The group is not mapped.
                options.retain(|option| option != "gid=5");
            }
            if mount["destination"] == "/sys" {
                *mount = json!({
                    "destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]
                });
            }
        }
        mounts.retain(|mount| mount["type"] != "cgroup");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_examples_are_configurations() {
        let mut spec = example(true);
        let parsed: Result<oci_spec::runtime::Spec, _> = serde_json::from_value(spec.clone());
        parsed.unwrap();
        make_rootless(&mut spec);
        let parsed: oci_spec::runtime::Spec = serde_json::from_value(spec).unwrap();
        assert!(parsed.linux().as_ref().unwrap().uid_mappings().is_some());
    }

    #[test]
    fn none_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let options = Specification {
            bundle: Some(directory.path().to_owned()),
            rootless: false,
        };
        write(&options).unwrap();
        let error = write(&options).unwrap_err().to_string();
        assert!(error.contains("Remove it first"), "{error}");
    }
}

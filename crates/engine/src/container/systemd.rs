//! Containers whose first process is systemd: what its container interface asks for
//! (<https://systemd.io/CONTAINER_INTERFACE>), set up as podman's `--systemd` does.

use super::record::ContainerRecord;
use super::spec::{ContainerSpec, NamespaceMode};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// Annotation that carries `--systemd`: `true` (the default), `false` or `always`.
pub const ANNOTATION: &str = "gamut.systemd";

/// The signal by which systemd shuts its system down in good order, systemd(1).
pub const STOP_SIGNAL: i32 = 34 + 3;

/// Commands that are taken for systemd, beside every program of that name.
const COMMANDS: [&str; 3] = ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"];

/// Directories that systemd wants empty and writable at every start, with tmpfs options.
const TEMPORARY: [(&str, &[&str]); 4] = [
    ("/run", &["nosuid", "nodev", "mode=755", "tmpcopyup"]),
    ("/run/lock", &["nosuid", "nodev", "noexec", "mode=1777"]),
    ("/tmp", &["nosuid", "nodev", "mode=1777"]),
    (
        "/var/log/journal",
        &["nosuid", "nodev", "noexec", "mode=755"],
    ),
];

/// Whether the container is set up for systemd as its first process.
///
/// # Errors
/// For an unknown value of the annotation, and if systemd is wanted (`always`) together with what
/// keeps it from working.
pub fn is_wanted(spec: &ContainerSpec, command: &[String]) -> Result<bool> {
    let is_always = match spec.annotations.get(ANNOTATION).map(String::as_str) {
        None | Some("" | "true") => false,
        Some("always") => true,
        Some("false") => return Ok(false),
        Some(other) => {
            return Err(Error::invalid(format!(
                "invalid --systemd: {other:?}: use true, false or always"
            )));
        }
    };
    let hindrance = if spec.init {
        Some("--init, which would be the first process itself: leave it out")
    } else if spec.pid_mode != NamespaceMode::Private {
        Some("--pid, since systemd must be the first process of its PID namespace: leave it out")
    } else if spec.cgroup_namespace_mode != NamespaceMode::Private {
        Some(
            "--cgroupns host, since systemd needs control groups of its own: use --cgroupns private",
        )
    } else {
        None
    };
    match (is_always, hindrance) {
        (true, Some(hindrance)) => Err(Error::invalid(format!(
            "conflicting options: --systemd=always and {hindrance}"
        ))),
        (true, None) => Ok(true),
        (false, Some(_)) => Ok(false),
        (false, None) => Ok(command.first().is_some_and(|program| {
            COMMANDS.contains(&program.as_str()) || program.rsplit('/').next() == Some("systemd")
        })),
    }
}

/// Refuses systemd (`always`) on a host that has only cgroup v1.
///
/// # Errors
/// Then, with the way out.
pub fn check_host(spec: &ContainerSpec) -> Result<()> {
    if spec
        .annotations
        .get(ANNOTATION)
        .is_some_and(|mode| mode == "always")
        && !has_unified()
    {
        return Err(Error::invalid(
            "--systemd=always: systemd needs cgroup v2, of which this host has no hierarchy: \
             mount one (mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified), or leave it out",
        ));
    }
    Ok(())
}

/// Whether the host has a cgroup v2 hierarchy, alone or beside those of v1 (cgroups(7)).
fn has_unified() -> bool {
    std::fs::read_to_string("/proc/self/cgroup")
        .is_ok_and(|text| text.lines().any(|line| line.starts_with("0::")))
}

/// Whether this container's record asks for systemd. What could be wrong was refused when it was
/// made.
pub(super) fn is_wanted_by(record: &ContainerRecord) -> bool {
    is_wanted(&record.spec, &record.process.args).unwrap_or(false)
}

/// Environment of the first process: who manages the container, and an id for `machine-id(5)`.
pub(super) fn environment(record: &ContainerRecord) -> [String; 2] {
    let uuid = record.id.get(..32).unwrap_or(&record.id);
    [
        "container=gamut".to_owned(),
        format!("container_uuid={uuid}"),
    ]
}

/// Replaces the default mounts by those that systemd needs; a user's own mounts win later.
pub(super) fn adjust_mounts(list: &mut Vec<Value>) {
    let unified = has_unified();
    for mount in &mut *list {
        if unified && mount["destination"] == "/sys/fs/cgroup" {
            // On a hybrid host the v2 hierarchy alone: the limits of the v1 hierarchies stay out of
            // the container's reach, and systemd prefers v2 wherever it finds it.
            *mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup",
                "options": ["rw", "nosuid", "noexec", "nodev"]});
        }
    }
    for (destination, options) in TEMPORARY {
        list.push(json!({
            "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(value: &str, command: &str) -> bool {
        is_wanted(&spec(value), &[command.to_owned()]).unwrap()
    }

    fn spec(value: &str) -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        if !value.is_empty() {
            spec.annotations
                .insert(ANNOTATION.to_owned(), value.to_owned());
        }
        spec
    }

    #[test]
    fn systemd_is_known_by_its_command() {
        for command in [
            "/sbin/init",
            "/usr/sbin/init",
            "/lib/systemd/systemd",
            "systemd",
        ] {
            assert!(wanted("", command), "{command}");
            assert!(!wanted("false", command), "{command}");
        }
        assert!(!wanted("true", "/bin/sh") && wanted("always", "/bin/sh"));
        assert!(is_wanted(&spec("sometimes"), &[]).is_err());
    }

    #[test]
    fn what_keeps_systemd_from_working_is_told() {
        let hindered = |change: fn(&mut ContainerSpec)| {
            let mut always = spec("always");
            change(&mut always);
            let command = ["/sbin/init".to_owned()];
            assert!(is_wanted(&always, &command).is_err());
            always.annotations.clear();
            assert!(!is_wanted(&always, &command).unwrap());
        };
        hindered(|spec| spec.init = true);
        hindered(|spec| spec.pid_mode = NamespaceMode::Host);
        hindered(|spec| spec.cgroup_namespace_mode = NamespaceMode::Host);
    }
}

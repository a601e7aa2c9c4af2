//! From a container's record to an OCI runtime configuration.

mod devices;
mod resources;

pub use resources::resource_limits;

use super::apparmor::AppArmor;
use super::capabilities;
use super::record::{ContainerRecord, MountKind, ResolvedMount};
use super::security::SecurityOptions;
use super::spec::{IpcMode, NamespaceMode, NetworkMode, RecursiveReadonly};
use super::systemd;
use crate::error::{Error, Result};
use gamut_isolation::SUBPATH_OPTION;
use oci_spec::runtime::{LinuxSeccomp, Process, Spec};
use serde_json::{Value, json};
use std::path::Path;

/// Debian's `tty`, which every engine gives terminals to.
pub(super) const TERMINAL_GROUP: u32 = 5;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hidden unless told otherwise: what tells of, or reaches into, the host.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only unless told otherwise.
pub const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the configuration is made from beside the record.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Capabilities that the engine holds.
    pub held_capabilities: u64,
    /// Control group of the container, as `/gamut/ID`.
    pub cgroup_path: String,
    /// Directory with the generated `hosts`, `hostname` and `resolv.conf`; `None` binds none.
    pub etc_directory: Option<&'a Path>,
    /// Process ids of the containers whose namespaces are shared: (pid mode, ipc mode).
    pub shared_pids: (Option<u32>, Option<u32>),
    /// The group of terminals (5) exists: in a user namespace it may not.
    pub has_terminal_group: bool,
    /// The host's name, for containers that share its UTS namespace.
    pub hostname: &'a str,
    /// What the host has of AppArmor.
    pub apparmor: AppArmor,
    /// Variables that tell of linked containers.
    pub link_environment: &'a [String],
}

/// Makes the runtime configuration of a container.
///
/// # Errors
/// [`gamut_spec::error::ErrorKind::InvalidArgument`] for options that make no sense, naming them.
pub fn runtime_spec(record: &ContainerRecord, surroundings: &Surroundings<'_>) -> Result<Spec> {
    let spec = &record.spec;
    let security = SecurityOptions::parse(&spec.security_options)?;
    let capability_set = capabilities::resolve(
        &spec.capabilities_add,
        &spec.capabilities_drop,
        spec.privileged,
        surroundings.held_capabilities,
    )?;
    let unmasked = spec.privileged || security.system_paths_unconfined;
    let masked = spec
        .masked_paths
        .clone()
        .unwrap_or_else(|| owned(&MASKED_PATHS));
    let readonly = spec
        .readonly_paths
        .clone()
        .unwrap_or_else(|| owned(&READONLY_PATHS));
    let shares_host_uts = spec.uts_mode == NamespaceMode::Host || spec.network == NetworkMode::Host;
    let hostname = if shares_host_uts && spec.hostname.is_empty() {
        surroundings.hostname
    } else {
        hostname(record)
    };
    let (mut devices, mut device_rules) = devices::devices(record)?;
    if spec.privileged {
        let all = devices::host_devices();
        // Those that were asked for by another name come on top.
        devices.retain(|own| all.iter().all(|node| node["path"] != own["path"]));
        devices.splice(0..0, all);
        device_rules = vec![json!({"allow": true, "access": "rwm"})];
    }
    let mut linux = json!({
        "namespaces": namespaces(record, surroundings.shared_pids)?,
        "resources": resources::resources(&spec.resources, device_rules)?,
        "cgroupsPath": surroundings.cgroup_path,
        "devices": devices,
        "maskedPaths": if unmasked { Vec::new() } else { masked },
        "readonlyPaths": if unmasked { Vec::new() } else { readonly },
        "sysctl": spec.sysctls,
    });
    if let Some(ids) = record.ids {
        let mapping = json!([{"containerID": 0, "hostID": ids.first, "size": ids.count}]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
    }
    if let Some(propagation) = root_propagation(&record.mounts) {
        linux["rootfsPropagation"] = json!(propagation);
    }
    let links = surroundings.link_environment;
    let mut process_value = process(record, &security, capability_set, (hostname, links))?;
    if let Some(profile) = surroundings
        .apparmor
        .profile(&security.apparmor, spec.privileged)
    {
        process_value["apparmorProfile"] = json!(profile);
    }
    let mut config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": spec.readonly_root},
        "process": process_value,
        "mounts": mounts(record, surroundings)?,
        "linux": linux,
        "annotations": spec.annotations,
    });
    // A container in the host's UTS namespace must not rename the host.
    if spec.uts_mode != NamespaceMode::Host {
        config["hostname"] = json!(hostname);
        if !spec.domainname.is_empty() {
            config["domainname"] = json!(spec.domainname);
        }
    }
    let mut config: Spec = serde_json::from_value(config)
        .map_err(|source| Error::system("make the runtime configuration", source))?;
    let filter = seccomp(&security, spec.privileged, capability_set)?;
    if let Some(linux) = config.linux_mut() {
        linux.set_seccomp(filter);
    }
    Ok(config)
}

/// The process of an exec session in a container.
///
/// # Errors
/// As [`runtime_spec`].
pub fn exec_process(
    record: &ContainerRecord,
    request: &super::exec::ExecRequest,
    held_capabilities: u64,
    apparmor: AppArmor,
    link_environment: &[String],
) -> Result<Process> {
    let mut as_if = record.clone();
    as_if.process.args.clone_from(&request.command);
    merge_environment(&mut as_if.process.environment, &request.environment);
    if !request.working_directory.is_empty() {
        as_if
            .process
            .working_directory
            .clone_from(&request.working_directory);
    }
    as_if.spec.terminal = request.terminal;
    as_if.spec.console_size = request.console_size;
    let privileged = request.privileged || record.spec.privileged;
    let security = SecurityOptions::parse(&record.spec.security_options)?;
    let set = capabilities::resolve(
        &record.spec.capabilities_add,
        &record.spec.capabilities_drop,
        privileged,
        held_capabilities,
    )?;
    let surroundings = (hostname(record), link_environment);
    let mut value = process(&as_if, &security, set, surroundings)?;
    if let Some(profile) = apparmor.profile(&security.apparmor, privileged) {
        value["apparmorProfile"] = json!(profile);
    }
    serde_json::from_value(value)
        .map_err(|source| Error::system("make the configuration of the exec session", source))
}

/// The host name of a container: the one asked for, or its short id.
#[must_use]
pub fn hostname(record: &ContainerRecord) -> &str {
    if record.spec.hostname.is_empty() {
        gamut_spec::id::short(&record.id)
    } else {
        &record.spec.hostname
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Replaces or adds `NAME=value` entries; a bare `NAME` removes.
pub fn merge_environment(base: &mut Vec<String>, changes: &[String]) {
    for change in changes {
        let name = change
            .split_once('=')
            .map_or(change.as_str(), |(name, _)| name);
        let same = |entry: &String| entry.split_once('=').is_some_and(|(n, _)| n == name);
        if !change.contains('=') {
            base.retain(|entry| !same(entry));
        } else if let Some(entry) = base.iter_mut().find(|entry| same(entry)) {
            entry.clone_from(change);
        } else {
            base.push(change.clone());
        }
    }
}

fn process(
    record: &ContainerRecord,
    security: &SecurityOptions,
    capability_set: u64,
    (hostname, link_environment): (&str, &[String]),
) -> Result<Value> {
    let spec = &record.spec;
    let mut environment = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if spec.terminal {
        environment.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut environment, link_environment);
    if systemd::is_wanted_by(record) {
        environment.extend(systemd::environment(record));
    }
    merge_environment(&mut environment, &record.process.environment);
    let cwd = &record.process.working_directory;
    let names = capabilities::names(capability_set);
    // Root keeps everything over execve; for other users the kernel clears what is not ambient.
    let mut value = json!({
        "terminal": spec.terminal,
        "user": {"uid": 0, "gid": 0},
        "args": record.process.args,
        "env": environment,
        "cwd": if cwd.is_empty() { "/" } else { cwd.as_str() },
        "capabilities": {
            "bounding": names,
            "effective": names,
            "permitted": names,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": rlimits(record)?,
        "noNewPrivileges": security.no_new_privileges,
    });
    if let Some((rows, columns)) = spec.console_size {
        value["consoleSize"] = json!({"height": rows, "width": columns});
    }
    if let Some(adjustment) = spec.oom_score_adj {
        value["oomScoreAdj"] = json!(adjustment);
    }
    Ok(value)
}

fn rlimits(record: &ContainerRecord) -> Result<Vec<Value>> {
    record
        .spec
        .ulimits
        .iter()
        .map(|limit| {
            let name = limit.name.to_ascii_uppercase();
            if limit.hard >= 0 && (limit.soft > limit.hard || limit.soft < 0) {
                return Err(Error::invalid(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    limit.soft, limit.hard
                )));
            }
            let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
            Ok(json!({
                "type": format!("RLIMIT_{name}"),
                "soft": number(limit.soft),
                "hard": number(limit.hard),
            }))
        })
        .collect()
}

fn namespaces(record: &ContainerRecord, shared: (Option<u32>, Option<u32>)) -> Result<Vec<Value>> {
    let spec = &record.spec;
    let mut list = vec![json!({"type": "mount"})];
    let of = |pid: Option<u32>, name: &str| -> Result<String> {
        pid.map(|pid| format!("/proc/{pid}/ns/{name}"))
            .ok_or_else(|| {
                Error::conflict(format!(
                    "cannot join the {name} namespace of a container that is not running"
                ))
            })
    };
    match &spec.pid_mode {
        NamespaceMode::Private => list.push(json!({"type": "pid"})),
        NamespaceMode::Host => {}
        NamespaceMode::Container(_) => {
            list.push(json!({"type": "pid", "path": of(shared.0, "pid")?}));
        }
    }
    match &spec.ipc_mode {
        IpcMode::Private | IpcMode::Shareable | IpcMode::None => {
            list.push(json!({"type": "ipc"}));
        }
        IpcMode::Host => {}
        IpcMode::Container(_) => {
            list.push(json!({"type": "ipc", "path": of(shared.1, "ipc")?}));
        }
    }
    if spec.uts_mode != NamespaceMode::Host {
        list.push(json!({"type": "uts"}));
    }
    if spec.cgroup_namespace_mode != NamespaceMode::Host {
        list.push(json!({"type": "cgroup"}));
    }
    if spec.network != NetworkMode::Host {
        list.push(json!({"type": "network"}));
    }
    if record.ids.is_some() {
        list.push(json!({"type": "user"}));
    }
    Ok(list)
}

fn mounts(record: &ContainerRecord, surroundings: &Surroundings<'_>) -> Result<Vec<Value>> {
    let spec = &record.spec;
    let ro = if spec.privileged { "rw" } else { "ro" };
    let shm = spec.shm_size_bytes.unwrap_or(64 << 20);
    let mut terminals = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    let enough = record.ids.is_none_or(|ids| ids.count > TERMINAL_GROUP);
    if surroundings.has_terminal_group && enough {
        terminals.push("gid=5");
    }
    let mut list = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": terminals}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", ro]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": [ro, "nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
    ];
    match &spec.ipc_mode {
        IpcMode::None => {}
        IpcMode::Private | IpcMode::Shareable => list.push(json!({
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", format!("size={shm}")],
        })),
        IpcMode::Host => list.push(json!({
            "destination": "/dev/shm", "type": "bind", "source": "/dev/shm",
            "options": ["rbind", "nosuid", "noexec", "nodev"],
        })),
        IpcMode::Container(_) => {
            let pid = surroundings.shared_pids.1.unwrap_or(0);
            list.push(json!({
                "destination": "/dev/shm", "type": "bind",
                "source": format!("/proc/{pid}/root/dev/shm"),
                "options": ["bind", "nosuid", "noexec", "nodev"],
            }));
        }
    }
    if systemd::is_wanted_by(record) {
        systemd::adjust_mounts(&mut list);
    }
    let taken = |path: &str| record.mounts.iter().any(|mount| mount.destination == path);
    if let Some(directory) = surroundings.etc_directory {
        for name in ["resolv.conf", "hostname", "hosts"] {
            let destination = format!("/etc/{name}");
            if !taken(&destination) {
                let access = if spec.readonly_root { "ro" } else { "rw" };
                let mut options = vec!["rbind", "rprivate", access];
                if record.ids.is_some() {
                    options.push("idmap");
                }
                list.push(json!({
                    "destination": destination, "type": "bind",
                    "source": directory.join(name),
                    "options": options,
                }));
            }
        }
    }
    // A user's mount replaces the default one at the same place, and parents come first.
    list.retain(|mount| {
        mount["destination"]
            .as_str()
            .is_none_or(|path| !taken(path))
    });
    let mut own: Vec<&ResolvedMount> = record.mounts.iter().collect();
    own.sort_by_key(|mount| {
        mount
            .destination
            .split('/')
            .filter(|part| !part.is_empty())
            .count()
    });
    for mount in own {
        list.push(user_mount(mount, record.ids.is_some()));
    }
    Ok(list)
}

fn user_mount(mount: &ResolvedMount, has_own_ids: bool) -> Value {
    let access = if mount.readonly { "ro" } else { "rw" };
    if mount.kind == MountKind::Tmpfs {
        let mut options = owned(&["noexec", "nosuid", "nodev", access]);
        for option in mount.options.split(',').filter(|option| !option.is_empty()) {
            options.retain(|have| have != option.strip_prefix("no").unwrap_or("\0"));
            let opposite = format!("no{option}");
            options.retain(|have| *have != opposite);
            options.push(option.to_owned());
        }
        return json!({
            "destination": mount.destination, "type": "tmpfs", "source": "tmpfs",
            "options": options,
        });
    }
    let propagation = if mount.propagation.is_empty() {
        "rprivate"
    } else {
        mount.propagation.as_str()
    };
    let bind = if mount.non_recursive { "bind" } else { "rbind" };
    let mut options = vec![bind, access, propagation];
    // Volumes are the engine's: they hold the ids of the inside, whoever has them mounted.
    if has_own_ids && (mount.idmap || mount.kind == MountKind::Volume) {
        options.push("idmap");
    }
    let mut options = owned(&options);
    // Mounts below a source would otherwise be a way to write to it.
    if mount.readonly && !mount.non_recursive && mount.recursive_readonly != RecursiveReadonly::No {
        options.push("rro".to_owned());
    }
    if !mount.subpath.is_empty() {
        options.push(format!("{SUBPATH_OPTION}={}", mount.subpath));
    }
    json!({
        "destination": mount.destination, "type": "bind", "source": mount.source,
        "options": options,
    })
}

/// Shared or slave mounts need a root that lets propagation through.
fn root_propagation(mounts: &[ResolvedMount]) -> Option<&'static str> {
    let wants = |word: &str| mounts.iter().any(|mount| mount.propagation.ends_with(word));
    if wants("shared") {
        Some("shared")
    } else if wants("slave") {
        Some("slave")
    } else {
        None
    }
}

fn seccomp(
    security: &SecurityOptions,
    privileged: bool,
    capability_set: u64,
) -> Result<Option<LinuxSeccomp>> {
    use super::security::SeccompChoice;
    match &security.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default if privileged => Ok(None),
        SeccompChoice::Default => Ok(Some(gamut_seccomp::default_profile(
            capability_set,
            kernel_version(),
        ))),
        SeccompChoice::Profile(json) => {
            gamut_seccomp::resolve_docker_profile(json.as_bytes(), capability_set, kernel_version())
                .map(Some)
                .map_err(|error| {
                    Error::invalid(format!(
                        "opening seccomp profile failed: {}",
                        gamut_spec::error::chain(&error)
                    ))
                })
        }
    }
}

/// Major and minor version of the running kernel.
fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}

//! From the OCI configuration of a unikernel to the jail of its monitor, and what the monitor is
//! told.
//!
//! The jail is a container with one process, the monitor, and a read-only root in which there is
//! nothing but what the monitor opens before it gives up its rights. Everything that a container
//! has (log, exit status, restarts, limits, freezing, statistics) comes with that.

use super::blocks::{self, Block};
use super::directory::DEBUG_SOCKET;
use super::refusals;
use crate::contract::Feature;
use crate::error::Error;
use gamut_abi::guest::note::Note;
use gamut_abi::monitor::{
    Accelerator, BlockConfig, CONFIG_PATH, MONITOR_CONFIG_VERSION, MonitorConfig,
};
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Name of the monitor in its jail.
const MONITOR_PATH: &str = "/gamut-monitor";

/// Name of the unikernel in the jail.
const IMAGE_PATH: &str = "/unikernel";
const FILES_PATH: &str = "/unikernel.rofs";

/// Name of the file in which the monitor tells of the machine.
const STATUS_PATH: &str = "/machine.json";

/// Name of the directory in the jail for what QEMU reads.
const SCRATCH_PATH: &str = "/qemu";

/// Room in it beside the unikernel's file, in bytes: arguments and environment.
const SCRATCH_BYTES: u64 = 4 << 20;

/// Where the monitor listens for debuggers in the jail.
const DEBUG_PATH: &str = "/debug";

/// Memory of a guest when neither the user nor the image says, in bytes.
pub const DEFAULT_MEMORY_BYTES: u64 = 32 << 20;

/// What the monitor itself may need on /dev/kvm beside the guest's memory, in bytes.
pub const KVM_ALLOWANCE_BYTES: u64 = 16 << 20;

/// The same with QEMU's translator, which keeps translated code.
pub const TCG_ALLOWANCE_BYTES: u64 = 256 << 20;

/// Threads that a monitor may have; a limit for a monitor gone wild, whatever the user says.
const MAX_TASKS: i64 = 64;

/// What the monitor needs before it gives everything up: interfaces, the files of others that the
/// user has named, and giving up itself.
const CAPABILITIES: [&str; 5] = [
    "CAP_DAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
];

/// `major:minor` of /dev/kvm and /dev/net/tun (Linux, Documentation/admin-guide/devices.txt).
const KVM: (i64, i64) = (10, 232);
const TUN: (i64, i64) = (10, 200);

/// The annotation that chooses the accelerator: `auto`, `kvm` or `tcg`.
pub const ACCELERATOR_ANNOTATION: &str = "dev.gamut.unikernel.accelerator";

/// Where things are on the host.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The monitor's program.
    pub monitor: &'a Path,
    /// The unikernel's ELF file.
    pub image: &'a Path,
    /// The image of its read-only file system, if it has one.
    pub files: Option<&'a Path>,
    /// Where the configuration of the monitor will be.
    pub config: &'a Path,
    /// The file in which the monitor tells of the machine.
    pub status: &'a Path,
    /// The directory in which the monitor listens for debuggers.
    pub debug: &'a Path,
    /// Where the resolver's configuration for the guest will be.
    pub resolv_conf: &'a Path,
}

/// What the host can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// /dev/kvm can be opened.
    pub has_kvm: bool,
    /// /dev/net/tun is there.
    pub has_tun: bool,
    /// Major and minor version of its kernel.
    pub kernel: (u32, u32),
}

/// The jail and what goes with it.
#[derive(Debug)]
pub struct Jail {
    /// The configuration of the jail, without a root.
    pub config: Spec,
    /// What the monitor is told.
    pub monitor: MonitorConfig,
    /// Directories in which there must be a file for a block device.
    pub block_directories: Vec<blocks::Directory>,
    /// The resolver's configuration, out of which the guest's is made.
    pub resolv_conf: Option<PathBuf>,
    /// What had to be left out, one sentence each.
    pub warnings: Vec<String>,
}

/// Makes a jail out of the configuration of a unikernel.
///
/// # Errors
/// [`Error::Refused`] for what a unikernel cannot have, [`Error::Invalid`] with the field that
/// makes no sense.
pub fn jail(spec: &Spec, note: &Note, places: &Places<'_>, host: Host) -> Result<Jail, Error> {
    note.check_version()
        .map_err(|error| Error::ExecutableDenied(format!("exec format error: {error}")))?;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| invalid("process", "is missing; there is nothing to run"))?;
    let mut warnings = refusals::admit(&features(spec, process))?;
    refuse_inner_hooks(spec)?;
    let accelerator = accelerator(spec, host)?;
    let translated = accelerator == Accelerator::Tcg;
    let memory_bytes = memory(spec, note)?;
    let mounts = blocks::sort(spec.mounts().as_deref().unwrap_or_default(), &mut warnings)?;
    let monitor = MonitorConfig {
        version: MONITOR_CONFIG_VERSION,
        image_path: IMAGE_PATH.to_owned(),
        memory_bytes: Some(memory_bytes),
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        hostname: spec.hostname().clone().unwrap_or_default(),
        blocks: mounts
            .blocks
            .iter()
            .map(Block::config)
            .collect::<Vec<BlockConfig>>(),
        rofs_path: places.files.map(|_| FILES_PATH.to_owned()),
        resolv_conf_path: mounts.resolv_conf.as_ref().map(|_| RESOLV_CONF.to_owned()),
        hosts_path: mounts.hosts.as_ref().map(|_| HOSTS.to_owned()),
        accelerator,
        status_path: Some(STATUS_PATH.to_owned()),
        scratch_path: translated.then(|| SCRATCH_PATH.to_owned()),
        debug_socket_path: (!translated).then(|| format!("{DEBUG_PATH}/{DEBUG_SOCKET}")),
    };
    let files_bytes = places.files.map_or(0, file_bytes);
    let allowance_bytes = if translated {
        // QEMU has a copy of the files, and reads it from another one.
        TCG_ALLOWANCE_BYTES.saturating_add(files_bytes.saturating_mul(2))
    } else {
        KVM_ALLOWANCE_BYTES
    };
    let mut list = vec![
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "noexec", "mode=755", "size=64k"]}),
        file(places.monitor, MONITOR_PATH, &["ro", "nosuid", "nodev"]),
        file(
            places.config,
            CONFIG_PATH,
            &["ro", "nosuid", "nodev", "noexec"],
        ),
        file(
            places.image,
            IMAGE_PATH,
            &["ro", "nosuid", "nodev", "noexec"],
        ),
        file(
            places.status,
            STATUS_PATH,
            &["rw", "nosuid", "nodev", "noexec"],
        ),
        file(
            places.debug,
            DEBUG_PATH,
            &["rw", "nosuid", "nodev", "noexec"],
        ),
    ];
    let resolv_conf = mounts.resolv_conf.as_ref().map(|_| places.resolv_conf);
    for (source, destination) in [
        (places.files, FILES_PATH),
        (resolv_conf, RESOLV_CONF),
        (mounts.hosts.as_deref(), HOSTS),
    ] {
        if let Some(source) = source {
            let options = ["ro", "nosuid", "nodev", "noexec"];
            list.push(file(source, destination, &options));
        }
    }
    list.extend(mounts.blocks.iter().map(Block::mount));
    if translated {
        let image_bytes = file_bytes(places.image);
        let size = image_bytes
            .saturating_add(files_bytes)
            .saturating_add(SCRATCH_BYTES);
        let size = format!("size={size}");
        list.push(
            json!({"destination": SCRATCH_PATH, "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "noexec", "mode=755", size]}),
        );
        // QEMU and what it is linked with are the host's.
        for directory in ["/usr", "/lib", "/lib64", "/etc/ld.so.cache"] {
            if Path::new(directory).exists() {
                list.push(file(
                    Path::new(directory),
                    directory,
                    &["ro", "nosuid", "nodev"],
                ));
            }
        }
    }
    let config = json!({
        "ociVersion": spec.version(),
        "root": {"path": "jail", "readonly": true},
        "process": jailed_process(process),
        "mounts": list,
        "annotations": spec.annotations(),
        "hooks": spec.hooks(),
        "linux": linux(spec, host, !translated, &mounts.blocks, memory_bytes, allowance_bytes)?,
    });
    Ok(Jail {
        config: serde_json::from_value(without_nulls(config))
            .map_err(|error| invalid("the jail of the unikernel", error.to_string()))?,
        monitor,
        block_directories: mounts.blocks.iter().filter_map(Block::directory).collect(),
        resolv_conf: mounts.resolv_conf,
        warnings,
    })
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Invalid {
        field: field.into(),
        problem: problem.into(),
    }
}

/// What the configuration asks for that a unikernel cannot have, or has no use for.
fn features(spec: &Spec, process: &Process) -> Vec<Feature> {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    let namespaces = namespaces.unwrap_or_default();
    let find = |kind: LinuxNamespaceType| namespaces.iter().find(|one| one.typ() == kind);
    let shares = |kind| find(kind).is_some_and(|one| one.path().is_some());
    let user = process.user();
    let wanted = [
        (process.terminal().unwrap_or(false), Feature::Terminal),
        (
            find(LinuxNamespaceType::Network).is_none(),
            Feature::HostNetwork,
        ),
        (
            shares(LinuxNamespaceType::Pid) || shares(LinuxNamespaceType::Ipc),
            Feature::SharedProcesses,
        ),
        (
            find(LinuxNamespaceType::User).is_some(),
            Feature::UserNamespace,
        ),
        (
            linux.is_some_and(|linux| {
                linux
                    .devices()
                    .as_ref()
                    .is_some_and(|list| !list.is_empty())
            }),
            Feature::Devices,
        ),
        (user.uid() != 0 || user.gid() != 0, Feature::User),
        (
            !matches!(process.cwd().to_str(), Some("/" | "")),
            Feature::WorkingDirectory,
        ),
        (
            process
                .rlimits()
                .as_ref()
                .is_some_and(|list| !list.is_empty()),
            Feature::Ulimits,
        ),
    ];
    wanted
        .into_iter()
        .filter_map(|(is_wanted, feature)| is_wanted.then_some(feature))
        .collect()
}

/// Hooks that would run in the jail have nothing there to run.
fn refuse_inner_hooks(spec: &Spec) -> Result<(), Error> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    for (name, list) in [
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
    ] {
        if list.as_ref().is_some_and(|list| !list.is_empty()) {
            return Err(invalid(
                name,
                "a unikernel has no files that could be executed there; use createRuntime, poststart or poststop",
            ));
        }
    }
    Ok(())
}

fn accelerator(spec: &Spec, host: Host) -> Result<Accelerator, Error> {
    let chosen = spec
        .annotations()
        .as_ref()
        .and_then(|annotations| annotations.get(ACCELERATOR_ANNOTATION));
    match chosen.map(String::as_str) {
        None | Some("" | "auto") if host.has_kvm => Ok(Accelerator::Kvm),
        None | Some("" | "auto" | "tcg") => Ok(Accelerator::Tcg),
        Some("kvm") if host.has_kvm => Ok(Accelerator::Kvm),
        Some("kvm") => Err(invalid(
            ACCELERATOR_ANNOTATION,
            "/dev/kvm cannot be opened here; leave it out, and QEMU's translator is used",
        )),
        Some(other) => Err(invalid(
            ACCELERATOR_ANNOTATION,
            format!("{other:?} is unknown; use auto, kvm or tcg"),
        )),
    }
}

/// Memory of the guest: what the user limits it to, what the image asks for, or the default.
fn memory(spec: &Spec, note: &Note) -> Result<u64, Error> {
    let field = "linux.resources.memory.limit";
    let limit = memory_limit(spec);
    let memory_bytes = match limit {
        Some(limit) => limit,
        None if note.default_memory_bytes > 0 => note.default_memory_bytes,
        None => DEFAULT_MEMORY_BYTES.max(note.minimum_memory_bytes),
    };
    let least_bytes = note.least_memory_bytes();
    if memory_bytes < least_bytes {
        return Err(invalid(
            field,
            format!(
                "{memory_bytes} bytes are less than the {least_bytes} that this unikernel needs; give it more with --memory"
            ),
        ));
    }
    Ok(memory_bytes)
}

fn memory_limit(spec: &Spec) -> Option<u64> {
    let resources = spec.linux().as_ref()?.resources().as_ref()?;
    let limit = resources.memory().as_ref()?.limit()?;
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn file(source: &Path, destination: &str, options: &[&str]) -> Value {
    let mut all = vec!["bind", "rprivate"];
    all.extend(options);
    json!({"destination": destination, "type": "bind", "source": source, "options": all})
}

fn jailed_process(process: &Process) -> Value {
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": [MONITOR_PATH],
        "env": [],
        "cwd": "/",
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": CAPABILITIES,
            "permitted": CAPABILITIES,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": true,
        "oomScoreAdj": process.oom_score_adj(),
    })
}

fn linux(
    spec: &Spec,
    host: Host,
    with_kvm: bool,
    blocks: &[Block],
    memory_bytes: u64,
    allowance_bytes: u64,
) -> Result<Value, Error> {
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| invalid("linux", "is missing; this is no configuration for Linux"))?;
    let mut namespaces: Vec<Value> = ["mount", "pid", "ipc", "uts", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    // The network is the sandbox's, or that which the configuration names.
    let given = linux.namespaces().iter().flatten();
    namespaces.extend(
        given
            .filter(|one| one.typ() == LinuxNamespaceType::Network)
            .map(|one| json!(one)),
    );
    let mut devices = Vec::new();
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)] {
        rules.push(device_rule("c", major, minor, "rwm"));
    }
    let nodes = [
        ("/dev/kvm", KVM, with_kvm),
        ("/dev/net/tun", TUN, host.has_tun),
    ];
    for (path, (major, minor), is_wanted) in nodes {
        if is_wanted {
            devices.push(
                json!({"path": path, "type": "c", "major": major, "minor": minor,
                "fileMode": 0o600, "uid": 0, "gid": 0}),
            );
            rules.push(device_rule("c", major, minor, "rwm"));
        }
    }
    for (major, minor, read_only) in blocks.iter().filter_map(Block::device) {
        let access = if read_only { "r" } else { "rw" };
        rules.push(device_rule("b", major, minor, access));
    }
    let mut resources = match linux.resources() {
        Some(resources) => json!(resources),
        None => json!({}),
    };
    resources["devices"] = json!(rules);
    resources["pids"] = json!({ "limit": MAX_TASKS });
    if !resources["memory"].is_object() {
        resources["memory"] = json!({});
    }
    let memory = &mut resources["memory"];
    let total =
        |bytes: u64| i64::try_from(bytes.saturating_add(allowance_bytes)).unwrap_or(i64::MAX);
    // Memory and swap together are given by the user beside the limit, which has grown.
    if let Some(swap) = memory["swap"].as_u64() {
        memory["swap"] = json!(total(swap));
    }
    memory["limit"] = json!(total(memory_bytes));
    let seccomp = gamut_seccomp::default_profile(0, host.kernel);
    Ok(json!({
        "namespaces": namespaces,
        "resources": resources,
        "cgroupsPath": linux.cgroups_path(),
        "devices": devices,
        "seccomp": seccomp,
    }))
}

fn device_rule(kind: &str, major: i64, minor: i64, access: &str) -> Value {
    json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access})
}

/// JSON's null means "not there" to whoever writes it, but not to whoever reads a configuration.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

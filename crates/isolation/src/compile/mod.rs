//! From an OCI runtime configuration to a launch plan.
//!
//! Pure: nothing is read but the configuration (and, for a network namespace given by path,
//! whether it is the host's). Everything that a configuration asks for is carried out, warned
//! about or refused by the name of its field; nothing is ignored in silence.
//!
//! Source: <https://github.com/opencontainers/runtime-spec>, config.md and config-linux.md.

mod devices;
mod exec;
mod field;
mod hooks;
mod listener;
mod mount_options;
mod mounts;
mod namespaces;
mod process;
mod read;
mod resources;
mod scheduling;
mod seccomp;
pub mod supported;
mod sysctl;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_attributes;
#[cfg(test)]
mod tests_peers;
mod unsupported;

pub use exec::{CompiledExec, compile_exec};
pub use hooks::STATE_VERSION;
pub use listener::seccomp_listener;
pub use process::{ProcessOptions, compile_process};
pub use read::{read_config, read_process, read_resources};
pub use resources::resources;

use crate::contract::RootSource;
use crate::error::Error;
use field::{absolute, invalid, text};
use gamut_abi::plan::{self, Cgroup, NamespaceKind, Plan, Propagation};
pub use mounts::SUBPATH_OPTION;
use oci_spec::runtime::{Linux, Spec};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Longest host or domain name (Linux `__NEW_UTS_LEN`).
const MAX_UTS_NAME_BYTES: usize = 64;

/// The network, as the sandbox has it.
#[derive(Debug)]
pub enum Network {
    /// As `linux.namespaces` says.
    Config,
    /// The host's; a namespace without a path in the configuration is left out.
    Host,
    /// This namespace. A path in the configuration contradicts it.
    Descriptor(OwnedFd),
}

/// What the caller decides besides the configuration.
#[derive(Debug)]
pub struct CompileOptions {
    /// Id of the container.
    pub id: String,
    /// The root file system; wins over `root.path`.
    pub root: RootSource,
    /// An existing empty directory over which the root is mounted.
    pub mount_point: PathBuf,
    /// Directory to which relative sources of bind mounts refer; without it they are refused.
    pub bundle: Option<PathBuf>,
    /// Flags of a bind mount replace those of its source, as mount(8) and the runtime specification
    /// have it. Otherwise they are added to them, so that nothing gets more rights by being bound.
    pub exact_bind_flags: bool,
    /// The network.
    pub network: Network,
    /// Path of the control group below every hierarchy, or `SLICE:PREFIX:NAME` for a scope of
    /// systemd; `None` takes `linux.cgroupsPath`.
    pub cgroup_path: Option<String>,
    /// User, groups, working directory and init. `seccomp` is set from the configuration.
    pub process: ProcessOptions,
    /// Tells whether a path is the host's network namespace; [`is_host_network`] but in tests.
    pub is_host_network: fn(&Path) -> bool,
}

/// What came of a configuration.
#[derive(Debug)]
pub struct Compiled {
    /// What to do.
    pub plan: Plan,
    /// Descriptors that [`plan::NamespaceSource::Descriptor`] counts, to be sent along.
    pub descriptors: Vec<OwnedFd>,
    /// What had to be given up, one sentence each.
    pub warnings: Vec<String>,
}

/// Whether a path is the network namespace of this process. A path that cannot be looked at is
/// treated as if it were, which refuses more.
#[must_use]
pub fn is_host_network(path: &Path) -> bool {
    is_own_namespace(path, "net")
}

/// Whether a path is the namespace of this process, by its name in `/proc/self/ns`.
fn is_own_namespace(path: &Path, name: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = Path::new("/proc/self/ns").join(name);
    match (std::fs::metadata(path), std::fs::metadata(own)) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => true,
    }
}

/// Compiles a configuration.
///
/// # Errors
/// [`Error::Invalid`] with the field of `config.json` that is wrong or not supported.
pub fn compile(spec: &Spec, mut options: CompileOptions) -> Result<Compiled, Error> {
    unsupported::spec(spec)?;
    let mut warnings = Vec::new();
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| invalid("linux", "is missing; this is no configuration for Linux"))?;
    unsupported::linux(linux)?;
    let namespaces = namespaces::namespaces(linux, &mut options)?;
    let uid_mappings = namespaces::id_mappings(
        "linux.uidMappings",
        linux.uid_mappings().as_deref(),
        &namespaces,
    )?;
    let gid_mappings = namespaces::id_mappings(
        "linux.gidMappings",
        linux.gid_mappings().as_deref(),
        &namespaces,
    )?;
    let network_devices = namespaces::network_devices(linux, &namespaces)?;
    let time_offsets = namespaces::time_offsets(linux, &namespaces)?;
    let own_names = namespaces.is_new(NamespaceKind::Uts)
        || namespaces
            .path(NamespaceKind::Uts)
            .is_some_and(|path| !is_own_namespace(Path::new(path), "uts"));
    let hostname = uts_name("hostname", spec.hostname().as_deref(), own_names)?;
    let domainname = uts_name("domainname", spec.domainname().as_deref(), own_names)?;
    let sysctls = sysctl::sysctls(linux, &namespaces, hostname.as_deref())?;
    let mounts = mounts::mounts(
        spec.mounts().as_deref().unwrap_or_default(),
        &options,
        namespaces.has(NamespaceKind::User),
    )?;
    let default_devices = !mounts::binds_dev(&mounts);
    let devices = devices::nodes(linux)?;
    let seccomp = linux.seccomp().as_ref().map(seccomp::seccomp).transpose()?;
    let root = root(
        spec,
        linux,
        &options,
        namespaces.is_new(NamespaceKind::User),
    )?;
    let owner = cgroup_owner(&namespaces, &uid_mappings, &mounts);
    let cgroup = cgroup(linux, options.cgroup_path, owner, &mut warnings)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| invalid("process", "is missing; there is nothing to run"))?;
    let process_options = ProcessOptions {
        seccomp,
        seccomp_listener: seccomp_listener(
            spec,
            &options.id,
            options.bundle.as_deref(),
            "creating",
        )?,
        ..options.process
    };
    let process = compile_process(process, process_options, &mut warnings)?;
    let hooks = hooks::hooks(spec, &options.id, options.bundle.as_deref())?;
    let plan = Plan {
        id: options.id,
        namespaces: namespaces.list,
        uid_mappings,
        gid_mappings,
        time_offsets,
        root,
        mounts,
        // The host's own /dev has its nodes already; making them there would change the host.
        // So has a container's /dev/ptmx, which leads to its own devpts.
        devices: devices
            .into_iter()
            .filter(|node| default_devices && field::lexically_clean(&node.path) != "/dev/ptmx")
            .collect(),
        default_devices,
        masked_paths: paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        hostname,
        domainname,
        sysctls,
        cgroup,
        personality: scheduling::personality(linux)?,
        memory_policy: scheduling::memory_policy(linux)?,
        network_devices,
        mount_label: process::label("linux.mountLabel", linux.mount_label().as_deref())?,
        process,
        hooks,
    };
    Ok(Compiled {
        plan,
        descriptors: namespaces.descriptors,
        warnings,
    })
}

fn uts_name(field: &str, name: Option<&str>, own: bool) -> Result<Option<String>, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    if !own {
        return Err(invalid(
            field,
            "needs a uts namespace other than the host's, or the name of the host would change; \
             add {\"type\": \"uts\"}",
        ));
    }
    text(field, name)?;
    if name.len() > MAX_UTS_NAME_BYTES {
        return Err(invalid(
            field,
            format!("{} bytes are more than {MAX_UTS_NAME_BYTES}", name.len()),
        ));
    }
    Ok(Some(name.to_owned()))
}

/// Absolute paths, each once: what is hidden twice would be mounted over twice.
fn paths(field: &str, list: Option<&[String]>) -> Result<Vec<String>, Error> {
    let mut seen = std::collections::HashSet::new();
    let mut compiled = Vec::new();
    for (index, path) in list.unwrap_or_default().iter().enumerate() {
        let path = absolute(&format!("{field}[{index}]"), Path::new(path))?;
        if seen.insert(field::lexically_clean(&path)) {
            compiled.push(path);
        }
    }
    Ok(compiled)
}

fn root(
    spec: &Spec,
    linux: &Linux,
    options: &CompileOptions,
    new_user_namespace: bool,
) -> Result<plan::Root, Error> {
    let (propagation, propagation_recursive) = match linux.rootfs_propagation().as_deref() {
        None | Some("") => (Propagation::Private, false),
        Some(word) => mount_options::propagation(word).ok_or_else(|| {
            invalid(
                "linux.rootfsPropagation",
                format!("{word:?} is unknown; use [r]private, [r]shared, [r]slave, [r]unbindable"),
            )
        })?,
    };
    let directory = |path: &Path| absolute("root.path", path);
    let source = match &options.root {
        RootSource::Directory(path) => plan::RootSource::Directory {
            path: directory(path)?,
        },
        // An image without layers is an empty directory; overlayfs needs at least one below.
        RootSource::Layers {
            lower, writable, ..
        } if lower.is_empty() => plan::RootSource::Directory {
            path: directory(&writable.join("upper"))?,
        },
        RootSource::Layers {
            lower,
            writable,
            volatile,
        } => plan::RootSource::Overlay {
            lower: lower
                .iter()
                .map(|layer| directory(layer))
                .collect::<Result<_, _>>()?,
            upper: Some(directory(&writable.join("upper"))?),
            work: Some(directory(&writable.join("work"))?),
            volatile: *volatile,
            // A new user namespace's overlay is mounted from outside, with all of its rights.
            userxattr: crate::user_namespace::is_nested(),
            idmapped: new_user_namespace,
        },
    };
    Ok(plan::Root {
        source,
        readonly: spec
            .root()
            .as_ref()
            .and_then(oci_spec::runtime::Root::readonly)
            .unwrap_or(false),
        propagation,
        propagation_recursive,
        mount_point: absolute("root.path", &options.mount_point)?,
    })
}

/// Whose the control group is to be: that of the user namespace's root, if the container may write
/// to its own view of the groups (OCI runtime-spec, "Cgroup ownership").
fn cgroup_owner(
    namespaces: &namespaces::Namespaces,
    uid_mappings: &[plan::IdMapping],
    mounts: &[plan::Mount],
) -> Option<u32> {
    let writable = mounts.iter().any(|mount| {
        matches!(
            mount.kind,
            plan::MountKind::Cgroup | plan::MountKind::CgroupUnified
        ) && mount.attributes_set & mount_options::READ_ONLY == 0
    });
    if !writable || !namespaces.is_new(NamespaceKind::Cgroup) {
        return None;
    }
    uid_mappings
        .iter()
        .find(|mapping| mapping.container_id == 0)
        .map(|mapping| mapping.host_id)
}

fn cgroup(
    linux: &Linux,
    path: Option<String>,
    owner: Option<u32>,
    warnings: &mut Vec<String>,
) -> Result<Option<Cgroup>, Error> {
    let field = "linux.cgroupsPath";
    let resources = resources::all_resources(linux.resources().as_ref(), warnings)?;
    let configured = match (path, linux.cgroups_path()) {
        (Some(path), _) => Some(path),
        (None, Some(path)) if !path.as_os_str().is_empty() => Some(field::path_text(field, path)?),
        (None, _) => None,
    };
    let Some(path) = configured else {
        let wanted = linux
            .resources()
            .as_ref()
            .is_some_and(|wanted| *wanted != oci_spec::runtime::LinuxResources::default());
        return if wanted {
            Err(invalid(field, "is needed for linux.resources"))
        } else {
            Ok(None)
        };
    };
    let (path, systemd) = configured_cgroup_path(field, &path)?;
    Ok(Some(Cgroup {
        path,
        resources,
        owner,
        systemd,
    }))
}

/// The path of a container's control group, and whether systemd makes it: `SLICE:PREFIX:NAME` is a
/// scope of systemd's.
fn configured_cgroup_path(field: &str, path: &str) -> Result<(String, bool), Error> {
    if path.starts_with('/') || path.matches(':').count() != 2 {
        return Ok((cgroup_path(field, path)?, false));
    }
    text(field, path)?;
    let path =
        gamut_cgroup::systemd_path(path).map_err(|error| invalid(field, error.to_string()))?;
    Ok((path, true))
}

/// A path of a control group as `/a/b`, without `..`.
pub(crate) fn cgroup_path(field: &str, path: &str) -> Result<String, Error> {
    text(field, path)?;
    if path.split('/').any(|part| part == "..") {
        return Err(invalid(field, format!("{path:?} leads upwards")));
    }
    let clean = field::lexically_clean(path);
    if clean == "/" {
        return Err(invalid(
            field,
            "is the root of the hierarchy, which cannot be limited",
        ));
    }
    Ok(clean)
}

/// Entry for fuzzers: parses `config.json` and compiles it. Must not panic on any input.
pub fn fuzz_config(bytes: &[u8]) {
    let Ok((spec, _)) = read_config(bytes) else {
        return;
    };
    let options = CompileOptions {
        id: "0".repeat(64),
        root: RootSource::Directory(PathBuf::from("/rootfs")),
        mount_point: PathBuf::from("/mnt"),
        bundle: Some(PathBuf::from("/bundle")),
        exact_bind_flags: true,
        network: Network::Config,
        cgroup_path: None,
        process: ProcessOptions::default(),
        is_host_network: |_| false,
    };
    // Whether it compiles is not the point, that it comes back is.
    drop(compile(&spec, options));
}

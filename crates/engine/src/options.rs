//! How an engine is set up.

use crate::logging::LogDefaults;
use crate::snapshotter::Snapshotter;
use std::path::PathBuf;

/// Where an engine keeps its things and what it calls them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Durable state: images, records, volumes, logs. `/var/lib/gamut` by default.
    pub data_root: PathBuf,
    /// State that does not outlive a reboot: sandboxes, sockets. `/run/gamut` by default.
    pub run_root: PathBuf,
    /// The `gamut-supervisor` executable.
    pub supervisor: PathBuf,
    /// The program that becomes the resolver's helper (`gamut_dns::HELPER`); this one by default.
    pub resolver: PathBuf,
    /// The `gamut-monitor` executable; without it there are no unikernels.
    pub monitor: Option<PathBuf>,
    /// Name of the default bridge, `gamut0`.
    pub bridge: String,
    /// Subnet of the default bridge in CIDR notation; `None` chooses one that is free.
    pub subnet: Option<String>,
    /// Parent control group, `/gamut`.
    pub cgroup_parent: String,
    /// How roots are made from layers; `None` takes overlayfs where it can be used.
    pub storage_driver: Option<Snapshotter>,
    /// Why there are no control groups to be had; `None` if there are.
    pub without_groups: Option<String>,
    /// Controllers that groups can have, as `memory`; `None` for all that the machine has.
    pub controllers: Option<Vec<String>>,
    /// Give containers that do not say otherwise user ids of their own.
    pub remap_users: bool,
    /// Set if the engine is an ordinary user's.
    pub rootless: Option<Rootless>,
    /// What is said about registries, as JSON: mirrors, which are insecure. The first of these
    /// files that is there counts; `/etc/gamut/registries.json` by default.
    pub registries: Vec<PathBuf>,
    /// Users other than root may use only what they have made, and make only what reaches nobody
    /// else.
    pub owners_only: bool,
    /// Log driver and options of containers that do not say otherwise.
    pub log: LogDefaults,
    /// Prepared network namespaces kept in the pool.
    pub pool_size: usize,
}

/// An ordinary user's engine, which lives in namespaces made by `gamut-rootless`.
#[derive(Debug, Clone)]
pub struct Rootless {
    /// The user's id outside.
    pub uid: u32,
    /// Whether the namespaces were made for this daemon.
    pub is_new: bool,
    /// What does not work, and why.
    pub warnings: Vec<String>,
}

/// A control group that this process may divide up, as [`Options::cgroup_parent`].
///
/// # Errors
/// Why there is none, in words.
pub fn find_groups() -> Result<DelegatedGroups, String> {
    let delegated = gamut_cgroup::delegated()?;
    Ok(DelegatedGroups {
        parent: format!("{}/gamut", delegated.path.trim_end_matches('/')),
        controllers: delegated.controllers,
    })
}

/// Control groups that an ordinary user has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegatedGroups {
    /// For [`Options::cgroup_parent`].
    pub parent: String,
    /// For [`Options::controllers`].
    pub controllers: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_root: PathBuf::from("/var/lib/gamut"),
            run_root: PathBuf::from("/run/gamut"),
            supervisor: PathBuf::from("gamut-supervisor"),
            resolver: PathBuf::from("/proc/self/exe"),
            monitor: None,
            bridge: "gamut0".to_owned(),
            subnet: None,
            cgroup_parent: "/gamut".to_owned(),
            storage_driver: None,
            without_groups: None,
            controllers: None,
            remap_users: false,
            rootless: None,
            registries: vec![PathBuf::from("/etc/gamut/registries.json")],
            owners_only: false,
            log: LogDefaults::default(),
            pool_size: 4,
        }
    }
}

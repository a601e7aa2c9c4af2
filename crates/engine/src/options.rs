//! How an engine is set up.

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
    /// Name of the default bridge, `gamut0`.
    pub bridge: String,
    /// Subnet of the default bridge in CIDR notation; `None` chooses one that is free.
    pub subnet: Option<String>,
    /// Parent control group, `/gamut`.
    pub cgroup_parent: String,
    /// What the administrator says about registries, as JSON: mirrors, which are insecure.
    /// `/etc/gamut/registries.json` by default; it need not be there.
    pub registries: PathBuf,
    /// Prepared network namespaces kept in the pool.
    pub pool_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_root: PathBuf::from("/var/lib/gamut"),
            run_root: PathBuf::from("/run/gamut"),
            supervisor: PathBuf::from("gamut-supervisor"),
            bridge: "gamut0".to_owned(),
            subnet: None,
            cgroup_parent: "/gamut".to_owned(),
            registries: PathBuf::from("/etc/gamut/registries.json"),
            pool_size: 4,
        }
    }
}

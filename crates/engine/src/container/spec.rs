//! What a user asks for when making a container, independent of the door it came through.

use super::user_namespace::UserNamespaceMode;
use crate::health::Healthcheck;
use gamut_spec::isolation::IsolationLevel;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A container as asked for. Empty and `None` mean: take it from the image, or the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image, as the user wrote it.
    pub image: String,
    /// The level of isolation; `None` takes the first that has a use for the image.
    pub level: Option<IsolationLevel>,
    /// The runtime as the client wrote it, out of which `level` was taken; only shown.
    pub runtime: String,
    /// The word for isolation as the client wrote it; only shown.
    pub isolation: String,
    /// Program and its first arguments; an empty list clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or program and arguments where there is no entry point.
    pub command: Option<Vec<String>>,
    /// Environment, as `NAME=value`; a bare `NAME` removes the image's.
    pub environment: Vec<String>,
    /// Working directory.
    pub working_directory: String,
    /// `user[:group]`, names or numbers.
    pub user: String,
    /// Further groups by name or number.
    pub additional_groups: Vec<String>,
    /// Host name; the short id by default.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations (kept and shown).
    pub annotations: BTreeMap<String, String>,
    /// A pseudo-terminal for its stdio.
    pub terminal: bool,
    /// Size of the terminal at the start: rows, columns.
    pub console_size: Option<(u16, u16)>,
    /// Stdin is kept open.
    pub open_stdin: bool,
    /// Stdin is closed when the first attached client closes its side.
    pub stdin_once: bool,
    /// Which streams the making client meant to attach to (stdin, stdout, stderr); only shown.
    pub attach: (bool, bool, bool),
    /// Signal for a gentle stop, by name or number.
    pub stop_signal: String,
    /// Seconds between the gentle stop and the kill; `Some(-1)` waits for ever.
    pub stop_timeout_seconds: Option<i64>,
    /// Ports to be published by `publish_all` and shown, as (number, protocol).
    pub exposed_ports: BTreeSet<Port>,
    /// Published ports.
    pub published_ports: Vec<PublishedPort>,
    /// Publish every exposed port on a free host port.
    pub publish_all: bool,
    /// Mount points that get an anonymous volume.
    pub anonymous_volumes: BTreeSet<String>,
    /// Mounts.
    pub mounts: Vec<MountSpec>,
    /// Driver of the volumes that have to be made for `-v` and for the image; empty for `local`.
    pub volume_driver: String,
    /// Containers whose binds and volumes it gets as well, as `NAME[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// The network.
    pub network: NetworkMode,
    /// The name of the network as the client wrote it (`default`, `bridge`, ...); only shown.
    pub network_name: String,
    /// Its places in networks, as far as they are described: that of `network` and further ones.
    pub endpoints: Vec<EndpointSpec>,
    /// Containers whose names it is to know on the default network, as `NAME[:ALIAS]`.
    pub links: Vec<String>,
    /// A fixed address on the network.
    pub address: Option<IpAddr>,
    /// A fixed MAC address.
    pub mac_address: Option<String>,
    /// Name servers instead of the host's.
    pub dns: Vec<String>,
    /// Search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Lines for `/etc/hosts`, as `name:address`; the address `host-gateway` is the bridge's.
    pub extra_hosts: Vec<String>,
    /// How to find out whether it is well; empty parts are the image's.
    pub healthcheck: Option<Healthcheck>,
    /// When to start again.
    pub restart: RestartPolicy,
    /// Remove it when it has ended.
    pub auto_remove: bool,
    /// Every capability and device that the engine itself has.
    pub privileged: bool,
    /// Capabilities beyond the default ones; `ALL` for all.
    pub capabilities_add: Vec<String>,
    /// Default capabilities to take away; `ALL` for all.
    pub capabilities_drop: Vec<String>,
    /// Security options: `no-new-privileges[:true|false]`, `seccomp=unconfined`,
    /// `seccomp=PROFILE` (JSON), `apparmor=…`, `label=…`, `systempaths=unconfined`.
    pub security_options: Vec<String>,
    /// The root file system is read-only.
    pub readonly_root: bool,
    /// A minimal init reaps and forwards signals.
    pub init: bool,
    /// Devices of the host.
    pub devices: Vec<DeviceMapping>,
    /// Rules such as `c 13:* rwm`.
    pub device_cgroup_rules: Vec<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Limits of its control group.
    pub resources: ResourceSpec,
    /// Adjustment of the out-of-memory killer's choice, -1000..=1000.
    pub oom_score_adj: Option<i32>,
    /// Size of `/dev/shm` in bytes; 64 MiB by default.
    pub shm_size_bytes: Option<u64>,
    /// Process id namespace.
    pub pid_mode: NamespaceMode,
    /// IPC namespace.
    pub ipc_mode: IpcMode,
    /// UTS namespace.
    pub uts_mode: NamespaceMode,
    /// User namespace.
    pub user_namespace: UserNamespaceMode,
    /// Control group namespace.
    pub cgroup_namespace_mode: NamespaceMode,
    /// Parent control group instead of the engine's.
    pub cgroup_parent: String,
    /// Paths hidden instead of the default ones.
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only instead of the default ones.
    pub readonly_paths: Option<Vec<String>>,
    /// Limits of the log.
    pub log: LogSpec,
    /// The platform asked for, as `linux/amd64`.
    pub platform: Option<String>,
}

/// Transport protocol of a port.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Number, 1..=65535.
    pub number: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A port of a container and where the host offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub container: Port,
    /// Address of the host; `None` for all.
    pub host_address: Option<IpAddr>,
    /// Port of the host; 0 for a free one.
    pub host_port: u16,
    /// With it, the first that is free from `host_port` to this one; 0 for `host_port` only.
    #[serde(default)]
    pub host_port_last: u16,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Where, absolute, in the container.
    pub destination: String,
    /// What.
    pub source: MountSource,
    /// Read-only.
    pub readonly: bool,
    /// Propagation word (`rprivate`, `rslave`, ...); empty for the default.
    pub propagation: String,
    /// Do not copy the image's content into a fresh volume.
    pub no_copy: bool,
    /// Its files show the ids of the inside, in a container with ids of its own.
    #[serde(default)]
    pub idmap: bool,
    /// The mount as a `-v` argument spelled it, for `HostConfig.Binds`; empty for `--mount`.
    pub bind_text: String,
    /// Whether a read-only mount makes the mounts below it read-only too.
    #[serde(default)]
    pub recursive_readonly: RecursiveReadonly,
    /// The mount as `HostConfig.Mounts` spelled it (JSON), only shown; empty for others.
    #[serde(default)]
    pub mount_text: String,
}

/// What a read-only mount means for the mounts below its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecursiveReadonly {
    /// They are read-only, too, where the kernel can do that.
    #[default]
    IfPossible,
    /// They stay as they are.
    No,
    /// They are read-only, or it is an error.
    Forced,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A path of the host. `create`: make a missing directory (`-v`), otherwise refuse.
    Bind {
        /// Absolute path.
        path: String,
        /// Make a missing directory.
        create: bool,
        /// Leave the mounts below out.
        non_recursive: bool,
    },
    /// A volume by name; empty for a fresh anonymous one.
    Volume {
        /// Name.
        name: String,
        /// Labels, if it has to be made.
        labels: BTreeMap<String, String>,
        /// Options of the driver, if it has to be made.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// What of the volume is mounted, relative to it; empty for all.
        #[serde(default)]
        subpath: String,
    },
    /// A fresh tmpfs with options in mount(8)'s words (`size=64m,mode=1770`).
    Tmpfs {
        /// Options.
        options: String,
    },
}

/// The network of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The default bridge.
    #[default]
    Bridge,
    /// Loopback only.
    None,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
    /// A user-defined network, by name or id.
    Network(String),
}

impl NetworkMode {
    /// Name of the network, if it is one of those that are always there.
    #[must_use]
    pub fn predefined_name(&self) -> Option<&'static str> {
        match self {
            Self::Bridge => Some("bridge"),
            Self::None => Some("none"),
            Self::Host => Some("host"),
            Self::Container(_) | Self::Network(_) => None,
        }
    }
}

/// A container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSpec {
    /// The network: as the user wrote it, or in a container's record its name when it was connected.
    pub network: String,
    /// Id of the network; empty until it was looked up.
    pub network_id: String,
    /// Further names by which neighbours find the container.
    pub aliases: Vec<String>,
    /// A fixed IPv4 address.
    pub address: Option<IpAddr>,
    /// Further addresses, of its link alone.
    pub link_local: Vec<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// A fixed MAC address.
    pub mac_address: Option<String>,
    /// Names under which it finds other containers, as `NAME[:ALIAS]`.
    pub links: Vec<String>,
    /// The network with the highest one has the default route; among equals the first by name.
    pub gateway_priority: i64,
    /// Options of the network's driver, only shown.
    pub driver_options: BTreeMap<String, String>,
}

/// A namespace of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// The IPC namespace of a container, with its `/dev/shm`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// Its own, without a `/dev/shm`.
    None,
    /// The host's.
    Host,
    /// Another container's, by name or id; that one must be shareable.
    Container(String),
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a failure, at most so often (0: for ever).
    OnFailure(u32),
    /// Always, and when the engine starts.
    Always,
    /// Always, unless a user stopped it.
    UnlessStopped,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Path on the host.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// Letters of `rwm`.
    pub access: String,
}

/// A resource limit of a process; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name, as `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// Limits of a control group, as Docker's API has them. `None` means no limit was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceSpec {
    /// Relative weight, 2..=262144.
    pub cpu_shares: Option<u64>,
    /// Billionths of a processor; not together with period and quota.
    pub nano_cpus: Option<u64>,
    /// Length of a period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Microseconds per period; -1 for no limit.
    pub cpu_quota_us: Option<i64>,
    /// Length of a period of real-time scheduling in microseconds.
    pub cpu_realtime_period_us: Option<u64>,
    /// Microseconds per period for real-time processes.
    pub cpu_realtime_runtime_us: Option<u64>,
    /// Processors, in list format.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, in list format.
    pub cpuset_mems: Option<String>,
    /// Hard limit in bytes.
    pub memory_bytes: Option<u64>,
    /// Soft limit in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// Memory and swap together in bytes; -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// 0..=100.
    pub memory_swappiness: Option<u64>,
    /// Suspend instead of kill.
    pub oom_kill_disable: bool,
    /// Largest number of tasks; -1 for no limit.
    pub pids_limit: Option<i64>,
    /// 10..=1000.
    pub blkio_weight: Option<u16>,
    /// Per-device limits: (path, weight / read bytes / write bytes / reads / writes per second).
    pub blkio_devices: Vec<BlkioDevice>,
}

/// Limits of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioDevice {
    /// Path of the device on the host.
    pub path: String,
    /// 10..=1000.
    pub weight: Option<u16>,
    /// Bytes read per second.
    pub read_bytes_per_second: Option<u64>,
    /// Bytes written per second.
    pub write_bytes_per_second: Option<u64>,
    /// Reads per second.
    pub read_operations_per_second: Option<u64>,
    /// Writes per second.
    pub write_operations_per_second: Option<u64>,
}

/// Limits of a container's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Name of the driver as the client knows it, one of [`crate::logging::DRIVERS`].
    pub driver: String,
    /// Bytes per file.
    pub max_file_bytes: u64,
    /// Files kept.
    pub max_files: u32,
    /// The options, those of the engine's settings included.
    pub options: BTreeMap<String, String>,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self {
            driver: "json-file".to_owned(),
            max_file_bytes: 16 << 20,
            max_files: 4,
            options: BTreeMap::new(),
        }
    }
}

//! The launch plan: everything the init stage of a container does, decided beforehand.
//!
//! A plan is compiled from an OCI runtime configuration by the `isolation` crate and carried out,
//! without further decisions, by the `container` crate inside the supervisor.

use crate::hooks::Hooks;
use crate::resources::Resources;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Everything needed to start the first process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Id of the container.
    pub id: String,
    /// Namespaces to make or to join. A kind that is not listed is shared with the supervisor.
    pub namespaces: Vec<Namespace>,
    /// User id mappings for a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group id mappings for a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Clock offsets of a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
    /// The root file system.
    pub root: Root,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes to make (or to bind from the host where mknod is forbidden).
    pub devices: Vec<DeviceNode>,
    /// Make the default `/dev` entries: fd, stdin, stdout, stderr, ptmx links and default nodes.
    pub default_devices: bool,
    /// Paths hidden behind an empty file or an empty read-only tmpfs.
    pub masked_paths: Vec<String>,
    /// Paths made read-only, recursively.
    pub readonly_paths: Vec<String>,
    /// Host name; needs a new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name; needs a new UTS namespace.
    pub domainname: Option<String>,
    /// Kernel parameters by dotted name, written under the container's own `/proc/sys`.
    pub sysctls: Vec<(String, String)>,
    /// The control group; `None` leaves the process in the supervisor's.
    pub cgroup: Option<Cgroup>,
    /// Execution domain and flags, as personality(2) takes them; `None` keeps the supervisor's.
    pub personality: Option<u32>,
    /// NUMA policy of the process's memory; `None` keeps the supervisor's.
    pub memory_policy: Option<MemoryPolicy>,
    /// Network interfaces of the supervisor's network namespace that become the container's.
    pub network_devices: Vec<NetworkDevice>,
    /// SELinux context of the file systems that are mounted for the container.
    pub mount_label: Option<String>,
    /// The process.
    pub process: Process,
    /// Programs that run at fixed points of its life.
    pub hooks: Option<Hooks>,
}

/// Policy by which memory is taken from NUMA nodes (set_mempolicy(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` mode with `MPOL_F_*` flags.
    pub mode: u32,
    /// Bit n of word n / 64 is node n; empty for modes that take no nodes.
    pub nodes: Vec<u64>,
}

/// A network interface that moves into the container's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDevice {
    /// Its name in the supervisor's network namespace.
    pub name: String,
    /// Its name in the container's.
    pub container_name: String,
}

/// Kinds of Linux namespaces (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceKind {
    /// User and group ids.
    User,
    /// Mount table.
    Mount,
    /// Network stack.
    Network,
    /// Process ids.
    Pid,
    /// System V and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Control group root.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
}

/// One namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Which kind.
    pub kind: NamespaceKind,
    /// Where it comes from.
    pub source: NamespaceSource,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceSource {
    /// Made for this container.
    New,
    /// Opened from a path at launch.
    Path(String),
    /// The n-th descriptor that came with the launch message.
    Descriptor(u32),
}

/// One line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container_id: u32,
    /// First id outside.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// Offset of one clock in a new time namespace (time_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// True for CLOCK_BOOTTIME, false for CLOCK_MONOTONIC.
    pub boottime: bool,
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds, 0..1e9.
    pub nanoseconds: u32,
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// Both ways.
    Shared,
    /// From the host in.
    Slave,
    /// Private, and cannot be bind-mounted.
    Unbindable,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What it is made of.
    pub source: RootSource,
    /// Remount read-only after everything is in place.
    pub readonly: bool,
    /// Propagation of the container's `/`.
    pub propagation: Propagation,
    /// The propagation applies to everything below as well.
    pub propagation_recursive: bool,
    /// An existing empty directory on the host over which the root is mounted, inside the
    /// container's own mount namespace only.
    pub mount_point: String,
}

/// What a root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootSource {
    /// overlayfs over read-only layers.
    Overlay {
        /// Layer directories, topmost first, at least one.
        lower: Vec<String>,
        /// Writable directory; without it the mount is read-only.
        upper: Option<String>,
        /// overlayfs work directory on the same file system as `upper`.
        work: Option<String>,
        /// Skip syncs (for containers that do not outlive a power cut).
        volatile: bool,
        /// Use `user.overlay.*` attributes (inside a user namespace).
        userxattr: bool,
        /// The layers hold ids as they are inside the container's user namespace, and are mapped
        /// for it. A caller who may not map them (rootless) shows them as they are.
        idmapped: bool,
    },
    /// A directory, bind-mounted on itself.
    Directory {
        /// Absolute path on the host.
        path: String,
    },
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; links are resolved beneath its root.
    pub destination: String,
    /// What is mounted.
    pub kind: MountKind,
    /// `MOUNT_ATTR_*` bits to set (mount_setattr(2)).
    pub attributes_set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub attributes_clear: u64,
    /// The attribute bits apply recursively (`rro` and friends).
    pub attributes_recursive: bool,
    /// Binds only: the mount has just the flags that were asked for, not those of its source as
    /// well. These `MOUNT_ATTR_*` bits, about which nothing was said, are cleared. In a user
    /// namespace, flags of the source that user namespaces lock (mount_namespaces(7)) stay, and it
    /// is an error if they were to be cleared expressly.
    pub implied_clear: Option<u64>,
    /// Propagation to set afterwards, and whether recursively.
    pub propagation: Option<(Propagation, bool)>,
    /// `MOUNT_ATTR_*` bits to set and to clear, after the others, on this mount and all below it.
    pub recursive_attributes: Option<(u64, u64)>,
    /// Ids of the files are mapped (binds only).
    pub idmap: Option<MountIdmap>,
}

/// How the ids of a mount's files are mapped (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdmap {
    /// User ids: `container_id` is the file's, `host_id` the one it shows. Empty, with empty
    /// `gid_mappings`: as the container's user namespace maps them.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids, likewise.
    pub gid_mappings: Vec<IdMapping>,
    /// The mounts below are mapped as well.
    pub recursive: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: String,
        /// Take the mounts below along.
        recursive: bool,
        /// What of the source is mounted: a path below it, relative, looked up without leaving it
        /// (openat2(2), `RESOLVE_BENEATH`). Empty for the source itself.
        subpath: String,
    },
    /// A new instance of a file system.
    Filesystem {
        /// Type, as `proc`, `tmpfs`, `sysfs`, `mqueue`, `devpts`.
        fstype: String,
        /// Source shown in the mount table.
        source: String,
        /// Options of the file system; a flag has no value.
        options: Vec<(String, Option<String>)>,
        /// tmpfs only: copy what the image has at the destination into it first.
        copy_up: bool,
    },
    /// The container's view of its control groups, for whichever hierarchies the host has.
    Cgroup,
    /// The same, but of the cgroup v2 hierarchy alone, mounted right at the destination also where
    /// the host has v1 hierarchies beside it.
    CgroupUnified,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path inside the container.
    pub path: String,
    /// `b'c'`, `b'b'` or `b'p'` (FIFO).
    pub kind: u8,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner inside the container.
    pub uid: u32,
    /// Group inside the container.
    pub gid: u32,
}

/// A control group and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below the root of every hierarchy, as `/gamut/ID`.
    pub path: String,
    /// Limits.
    pub resources: Resources,
    /// User (in the supervisor's view) to whom the group is delegated on cgroup v2
    /// (cgroups(7), "Cgroup delegation").
    pub owner: Option<u32>,
    /// systemd makes the group: a scope in a slice, as the path says.
    pub systemd: bool,
}

/// Capability sets, one bit per capability number (capabilities(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Upper bound for everything executed.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept over execve with file capabilities.
    pub inheritable: u64,
    /// May be made effective.
    pub permitted: u64,
    /// Kept over execve without file capabilities.
    pub ambient: u64,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// Numbers, as OCI has them.
    Numeric {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups.
        additional_gids: Vec<u32>,
    },
    /// Docker's `user[:group]`, names or numbers, looked up in the container's own
    /// `/etc/passwd` and `/etc/group`; sets `HOME` if the environment lacks it.
    Lookup {
        /// The text; empty means root.
        spec: String,
        /// Further groups by name or number (`--group-add`).
        additional_groups: Vec<String>,
    },
}

/// A resource limit (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit, `u64::MAX` for infinity.
    pub soft: u64,
    /// Hard limit, `u64::MAX` for infinity.
    pub hard: u64,
}

/// A compiled seccomp filter (seccomp(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// Classic BPF, one instruction per element: the eight bytes of `struct sock_filter` in
    /// memory order, as a native-endian integer.
    pub program: Vec<u64>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// One process: the first of a container, or one that joins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments, at least one.
    pub args: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute, inside the container.
    pub cwd: String,
    /// Make the working directory if it is missing.
    pub create_cwd: bool,
    /// Who it runs as.
    pub user: User,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Capability sets; `None` keeps those of the supervisor (bounded by the user namespace).
    pub capabilities: Option<Capabilities>,
    /// Resource limits. One that the machine forbids to raise is clamped, with a warning.
    pub rlimits: Vec<Rlimit>,
    /// Set no_new_privs (prctl(2)).
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`, -1000..=1000; clamped with a warning where forbidden.
    pub oom_score_adj: Option<i32>,
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// A pseudo-terminal of this size becomes its stdio and controlling terminal.
    pub terminal: Option<TerminalSize>,
    /// A minimal init (PID 1) reaps and forwards signals for it.
    pub init: bool,
    /// Where the notifications of the system call filter go.
    pub seccomp_listener: Option<SeccompListener>,
    /// I/O priority (ioprio_set(2)).
    pub io_priority: Option<IoPriority>,
    /// Scheduling policy (sched_setattr(2)).
    pub scheduler: Option<Scheduler>,
    /// Processors of a process that joins the container; the first process has no use for them.
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
    /// AppArmor profile that the program runs under.
    pub apparmor_profile: Option<String>,
    /// SELinux context that the program runs in.
    pub selinux_label: Option<String>,
    /// Keep the caller's session keyring (keyrings(7)) instead of making a new one.
    pub inherit_keyring: bool,
}

/// Who receives a filter's notifications (seccomp_unotify(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompListener {
    /// Unix stream socket to which the notification descriptor is sent.
    pub path: String,
    /// What is sent along: OCI's ContainerProcessState as JSON, with the process's id in the
    /// supervisor's view in between these pieces.
    pub state: Vec<String>,
}

/// I/O priority (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`: 1 real time, 2 best effort, 3 idle.
    pub class: u8,
    /// Level within the class, 0 (first) to 7.
    pub level: u8,
}

/// Scheduling policy and its parameters (sched_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value -20..=19, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Static priority, for SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime_ns: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub deadline_ns: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub period_ns: u64,
}

/// Processors of a process that joins a container, as masks: bit n of word n / 64 is processor n.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCpuAffinity {
    /// Until it is in the container's control group; empty leaves it to the kernel.
    pub initial: Vec<u64>,
    /// From then on; empty leaves it to the kernel.
    pub last: Vec<u64>,
}

/// Size of a terminal in characters; zero is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

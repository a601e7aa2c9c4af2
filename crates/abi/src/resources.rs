//! Limits of a control group, in the vocabulary of cgroup v2.
//!
//! Source: Linux `Documentation/admin-guide/cgroup-v2.rst`. The v1 files are a translation that
//! the `cgroup` crate makes.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A limit that may be lifted: `Max` is the word `max` of cgroup v2 (`-1` in v1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// No limit.
    Max,
    /// A limit in the unit of the field that holds it.
    Value(u64),
}

/// Everything that can be limited. `None` and empty lists leave the kernel's value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time and placement.
    pub cpu: Cpu,
    /// Memory and swap.
    pub memory: Memory,
    /// Largest number of tasks (`pids.max`).
    pub pids_max: Option<Limit>,
    /// Block I/O.
    pub io: Io,
    /// Huge pages, one entry per page size.
    pub hugetlb: Vec<HugetlbLimit>,
    /// Device access, later rules win. Empty means: leave device access alone.
    pub devices: Vec<DeviceRule>,
    /// cgroup v2 files written verbatim after all others (OCI `unified`); refused on v1.
    pub unified: Vec<(String, String)>,
    /// Handles and objects of RDMA devices (`rdma.max`).
    pub rdma: Vec<RdmaLimit>,
    /// Class of the packets sent (v1 `net_cls.classid`); refused where there is no such
    /// controller.
    pub network_class: Option<u32>,
    /// Priority of the packets sent by interface name (v1 `net_prio.ifpriomap`); refused where
    /// there is no such controller.
    pub network_priorities: Vec<(String, u32)>,
}

/// Limits of one RDMA device; `None` leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaLimit {
    /// Name of the device, as `mlx5_0`.
    pub device: String,
    /// Handles that may be open.
    pub handles: Option<u32>,
    /// Objects that may exist.
    pub objects: Option<u32>,
}

impl Resources {
    /// What is to be limited, in words, for those who have to say that it is not. Device rules
    /// are left out.
    #[must_use]
    pub fn asked(&self) -> Vec<&'static str> {
        let Self {
            cpu,
            memory,
            pids_max,
            io,
            hugetlb,
            devices: _,
            rdma,
            network_class,
            network_priorities,
            unified,
        } = self;
        let asked = [
            (*memory != Memory::default(), "memory"),
            (*cpu != Cpu::default(), "processor time"),
            (pids_max.is_some(), "the number of processes"),
            (*io != Io::default(), "block I/O"),
            (!hugetlb.is_empty(), "huge pages"),
            (!rdma.is_empty(), "RDMA"),
            (
                network_class.is_some() || !network_priorities.is_empty(),
                "network traffic",
            ),
            (!unified.is_empty(), "what linux.resources.unified names"),
        ];
        asked
            .into_iter()
            .filter_map(|(asked, what)| asked.then_some(what))
            .collect()
    }
}

/// Processor time and placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Relative weight as v1 shares, 2..=262144 (docker's `--cpu-shares`); converted for v2.
    pub shares: Option<u64>,
    /// Relative weight as v2 `cpu.weight`, 1..=10000; wins over `shares`.
    pub weight: Option<u32>,
    /// Microseconds of processor time per period.
    pub quota_us: Option<Limit>,
    /// Length of the period in microseconds, 1000..=1000000.
    pub period_us: Option<u64>,
    /// Unused quota that may be saved up, in microseconds.
    pub burst_us: Option<u64>,
    /// 1 puts the group into SCHED_IDLE (`cpu.idle`).
    pub idle: Option<i64>,
    /// v1 real-time budget in microseconds.
    pub realtime_runtime_us: Option<i64>,
    /// v1 real-time period in microseconds.
    pub realtime_period_us: Option<u64>,
    /// Processors in list format, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes in list format.
    pub cpuset_mems: Option<String>,
}

/// Memory and swap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Hard limit in bytes (`memory.max`).
    pub max_bytes: Option<Limit>,
    /// Soft limit in bytes (`memory.low`; v1 `memory.soft_limit_in_bytes`).
    pub reservation_bytes: Option<Limit>,
    /// Throttling limit in bytes (`memory.high`; v2 only).
    pub high_bytes: Option<Limit>,
    /// Swap alone, in bytes (`memory.swap.max`). v1's memsw is this plus `max_bytes`.
    pub swap_max_bytes: Option<Limit>,
    /// v1 `memory.swappiness`, 0..=100; has no v2 file.
    pub swappiness: Option<u64>,
    /// v1: suspend instead of killing when out of memory; has no v2 file.
    pub oom_kill_disable: bool,
    /// v1: bytes of TCP buffers (`memory.kmem.tcp.limit_in_bytes`); has no v2 file.
    pub tcp_max_bytes: Option<Limit>,
    /// A limit below what is in use is refused, instead of killing for it.
    pub check_before_update: bool,
}

/// Block I/O.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Weight 10..=1000 in blkio's scale (docker's `--blkio-weight`); converted for v2.
    pub weight: Option<u16>,
    /// Per-device weights and limits.
    pub devices: Vec<IoDevice>,
}

/// Weight and limits of one block device; `None` leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoDevice {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Weight 10..=1000.
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

/// Limit for one huge page size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugetlbLimit {
    /// Page size as the kernel names it, `2MB` or `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit_bytes: u64,
}

/// Kind of device node that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Every device.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// Bits of [`DeviceRule::access`].
pub mod access {
    /// Make the device node.
    pub const MKNOD: u8 = 1;
    /// Open it for reading.
    pub const READ: u8 = 2;
    /// Open it for writing.
    pub const WRITE: u8 = 4;
    /// All of them.
    pub const ALL: u8 = 7;
}

/// One rule of device access (OCI runtime-spec, `linux.resources.devices`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which kind of node.
    pub kind: DeviceKind,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// Bits of [`access`].
    pub access: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_named() {
        assert!(Resources::default().asked().is_empty());
        let mut resources = Resources {
            pids_max: Some(Limit::Value(5)),
            ..Resources::default()
        };
        resources.memory.max_bytes = Some(Limit::Value(1 << 20));
        assert_eq!(resources.asked(), ["memory", "the number of processes"]);
    }
}

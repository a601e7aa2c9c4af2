//! Names of the controllers that the model uses.

/// A controller of the model. `Io` is `blkio` in v1; `Cpuacct`, `Devices` and `Freezer` are
/// controllers in v1 only, v2 has them built in; `NetCls` and `NetPrio` are in v1 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Accounting of processor time (v1).
    Cpuacct,
    /// Processor and memory node placement.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Number of tasks.
    Pids,
    /// Block I/O.
    Io,
    /// Device access (v1; an eBPF program in v2).
    Devices,
    /// Freezing (v1; `cgroup.freeze` in v2).
    Freezer,
    /// Huge pages.
    Hugetlb,
    /// RDMA devices.
    Rdma,
    /// Classes of packets (v1; nftables matches groups in v2).
    NetCls,
    /// Priorities of packets (v1).
    NetPrio,
}

impl Controller {
    /// Every controller of the model.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Pids,
        Self::Io,
        Self::Devices,
        Self::Freezer,
        Self::Hugetlb,
        Self::Rdma,
        Self::NetCls,
        Self::NetPrio,
    ];

    /// Its name in cgroup v1.
    #[must_use]
    pub fn name_v1(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
        }
    }

    /// Its name in `cgroup.controllers`, `None` if v2 has no such controller.
    #[must_use]
    pub fn name_v2(self) -> Option<&'static str> {
        match self {
            Self::Cpuacct | Self::Devices | Self::Freezer | Self::NetCls | Self::NetPrio => None,
            Self::Io => Some("io"),
            other => Some(other.name_v1()),
        }
    }

    fn bit(self) -> u16 {
        match self {
            Self::Cpu => 1,
            Self::Cpuacct => 2,
            Self::Cpuset => 4,
            Self::Memory => 8,
            Self::Pids => 16,
            Self::Io => 32,
            Self::Devices => 64,
            Self::Freezer => 128,
            Self::Hugetlb => 256,
            Self::Rdma => 512,
            Self::NetCls => 1024,
            Self::NetPrio => 2048,
        }
    }
}

/// A set of controllers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ControllerSet(u16);

impl ControllerSet {
    pub(crate) fn insert(&mut self, controller: Controller) {
        self.0 |= controller.bit();
    }

    pub(crate) fn contains(self, controller: Controller) -> bool {
        self.0 & controller.bit() != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Controller> {
        Controller::ALL
            .into_iter()
            .filter(move |controller| self.contains(*controller))
    }

    /// Reads the text of `cgroup.controllers` or `cgroup.subtree_control`.
    pub(crate) fn parse_v2(text: &[u8]) -> Self {
        let mut set = Self::default();
        for word in text.split(|byte| byte.is_ascii_whitespace()) {
            for controller in Controller::ALL {
                if controller.name_v2().map(str::as_bytes) == Some(word) {
                    set.insert(controller);
                }
            }
        }
        set
    }
}

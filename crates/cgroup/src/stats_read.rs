//! Reads the statistics of a group from its control files.

use crate::controller::Controller;
use crate::error::Error;
use crate::group::Group;
use crate::hierarchy::Hierarchy;
use crate::memory_v1::UNLIMITED_FROM;
use crate::stats::{
    CpuStats, HugetlbStats, MemoryStats, PidsStats, Stats, field, io_v1, io_v2, pairs,
};
use crate::sys::{self, Entries};
use gamut_abi::resources::Limit;
use std::os::fd::AsFd;

impl Group {
    /// What the group and those below it use. A file that the kernel lacks counts as 0.
    ///
    /// # Errors
    /// If the group does not exist.
    pub fn stats(&self) -> Result<Stats, Error> {
        if !self.exists() {
            return Err(Error::system(
                "read the statistics of control group",
                self.path(),
                std::io::Error::from_raw_os_error(libc::ENOENT),
            ));
        }
        Ok(Stats {
            cpu: self.cpu_stats(),
            memory: self.memory_stats(),
            pids: self.pids_stats(),
            io: self.io_stats(),
            hugetlb: self.hugetlb_stats(),
        })
    }

    /// How many processes of the group the kernel has killed for want of memory; 0 if there is no
    /// memory controller or the group does not exist.
    #[must_use]
    pub fn oom_kill_count(&self) -> u64 {
        match self.hierarchies.locate(Controller::Memory) {
            Some(hierarchy) => field(&self.text(hierarchy, oom_file(hierarchy)), "oom_kill"),
            None => 0,
        }
    }

    fn text(&self, hierarchy: &Hierarchy, file: &str) -> String {
        self.try_read(hierarchy, file)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    fn number(&self, hierarchy: &Hierarchy, file: &str) -> u64 {
        self.text(hierarchy, file).trim().parse().unwrap_or(0)
    }

    fn limit(&self, hierarchy: &Hierarchy, file: &str) -> Limit {
        match self.text(hierarchy, file).trim().parse::<u64>() {
            Ok(value) if value < UNLIMITED_FROM => Limit::Value(value),
            _ => Limit::Max,
        }
    }

    fn cpu_stats(&self) -> CpuStats {
        let mut stats = CpuStats::default();
        if let Some(hierarchy) = self.hierarchies.locate(Controller::Cpuacct) {
            stats.usage_ns = self.number(hierarchy, "cpuacct.usage");
            stats.user_ns = self.number(hierarchy, "cpuacct.usage_user");
            stats.system_ns = self.number(hierarchy, "cpuacct.usage_sys");
            stats.per_cpu_ns = self
                .text(hierarchy, "cpuacct.usage_percpu")
                .split_ascii_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
        } else if let Some(hierarchy) = self.hierarchies.v2() {
            // cpu.stat has these even without the cpu controller.
            let text = self.text(hierarchy, "cpu.stat");
            stats.usage_ns = field(&text, "usage_usec").saturating_mul(1000);
            stats.user_ns = field(&text, "user_usec").saturating_mul(1000);
            stats.system_ns = field(&text, "system_usec").saturating_mul(1000);
        }
        if let Some(hierarchy) = self.hierarchies.locate(Controller::Cpu) {
            let text = self.text(hierarchy, "cpu.stat");
            stats.periods = field(&text, "nr_periods");
            stats.throttled_periods = field(&text, "nr_throttled");
            stats.throttled_ns = if hierarchy.v2 {
                field(&text, "throttled_usec").saturating_mul(1000)
            } else {
                field(&text, "throttled_time")
            };
        }
        stats
    }

    fn memory_stats(&self) -> MemoryStats {
        let Some(hierarchy) = self.hierarchies.locate(Controller::Memory) else {
            return MemoryStats::default();
        };
        let stat = self.text(hierarchy, "memory.stat");
        let oom_kills = field(&self.text(hierarchy, oom_file(hierarchy)), "oom_kill");
        if hierarchy.v2 {
            return MemoryStats {
                usage_bytes: self.number(hierarchy, "memory.current"),
                max_usage_bytes: self.number(hierarchy, "memory.peak"),
                limit_bytes: self.limit(hierarchy, "memory.max"),
                cache_bytes: field(&stat, "file"),
                inactive_file_bytes: field(&stat, "inactive_file"),
                anonymous_bytes: field(&stat, "anon"),
                swap_bytes: self.number(hierarchy, "memory.swap.current"),
                limit_failures: field(&self.text(hierarchy, "memory.events"), "max"),
                oom_kills,
                details: pairs(&stat),
            };
        }
        MemoryStats {
            usage_bytes: self.number(hierarchy, "memory.usage_in_bytes"),
            max_usage_bytes: self.number(hierarchy, "memory.max_usage_in_bytes"),
            limit_bytes: self.limit(hierarchy, "memory.limit_in_bytes"),
            // The total_ lines include the groups below, as v2's do.
            cache_bytes: field(&stat, "total_cache"),
            inactive_file_bytes: field(&stat, "total_inactive_file"),
            anonymous_bytes: field(&stat, "total_rss"),
            swap_bytes: field(&stat, "total_swap"),
            // Without swap the combined limit is the one that is hit.
            limit_failures: self
                .number(hierarchy, "memory.failcnt")
                .saturating_add(self.number(hierarchy, "memory.memsw.failcnt")),
            oom_kills,
            details: pairs(&stat),
        }
    }

    fn pids_stats(&self) -> PidsStats {
        match self.hierarchies.locate(Controller::Pids) {
            Some(hierarchy) => PidsStats {
                current: self.number(hierarchy, "pids.current"),
                limit: self.limit(hierarchy, "pids.max"),
            },
            None => PidsStats::default(),
        }
    }

    fn io_stats(&self) -> Vec<crate::stats::IoStats> {
        match self.hierarchies.locate(Controller::Io) {
            Some(hierarchy) if hierarchy.v2 => io_v2(&self.text(hierarchy, "io.stat")),
            Some(hierarchy) => io_v1(
                &self.text(hierarchy, "blkio.throttle.io_service_bytes_recursive"),
                &self.text(hierarchy, "blkio.throttle.io_serviced_recursive"),
            ),
            None => Vec::new(),
        }
    }

    fn hugetlb_stats(&self) -> Vec<HugetlbStats> {
        let Some(hierarchy) = self.hierarchies.locate(Controller::Hugetlb) else {
            return Vec::new();
        };
        let usage = if hierarchy.v2 {
            ".current"
        } else {
            ".usage_in_bytes"
        };
        let mut sizes: Vec<String> = sys::join(&self.relative, "")
            .and_then(|path| sys::list(hierarchy.directory.as_fd(), &path, Entries::Files))
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| {
                let name = name.into_string().ok()?;
                let size = name.strip_prefix("hugetlb.")?.strip_suffix(usage)?;
                (!size.contains('.')).then(|| size.to_owned())
            })
            .collect();
        sizes.sort_unstable();
        sizes
            .into_iter()
            .map(|size| self.hugetlb_size(hierarchy, size))
            .collect()
    }

    fn hugetlb_size(&self, hierarchy: &Hierarchy, page_size: String) -> HugetlbStats {
        let file = |name: &str| crate::apply_v1::hugetlb_file(&page_size, name);
        if hierarchy.v2 {
            return HugetlbStats {
                usage_bytes: self.number(hierarchy, &file("current")),
                max_usage_bytes: 0,
                limit_bytes: self.limit(hierarchy, &file("max")),
                limit_failures: field(&self.text(hierarchy, &file("events")), "max"),
                page_size,
            };
        }
        HugetlbStats {
            usage_bytes: self.number(hierarchy, &file("usage_in_bytes")),
            max_usage_bytes: self.number(hierarchy, &file("max_usage_in_bytes")),
            limit_bytes: self.limit(hierarchy, &file("limit_in_bytes")),
            limit_failures: self.number(hierarchy, &file("failcnt")),
            page_size,
        }
    }
}

fn oom_file(hierarchy: &Hierarchy) -> &'static str {
    if hierarchy.v2 {
        "memory.events"
    } else {
        "memory.oom_control"
    }
}

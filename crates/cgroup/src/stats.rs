//! What a group uses, in one shape for both versions.

use gamut_abi::resources::Limit;

/// What a group and those below it use. What the machine does not measure is 0 or empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block I/O, one entry per device, sorted.
    pub io: Vec<IoStats>,
    /// Huge pages, one entry per page size.
    pub hugetlb: Vec<HugetlbStats>,
}

/// Processor time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuStats {
    /// All time in nanoseconds.
    pub usage_ns: u64,
    /// In user mode, in nanoseconds.
    pub user_ns: u64,
    /// In the kernel, in nanoseconds.
    pub system_ns: u64,
    /// Nanoseconds on each processor (v1 only).
    pub per_cpu_ns: Vec<u64>,
    /// Periods in which the group had work, while it had a quota.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds that tasks had to wait for the next period.
    pub throttled_ns: u64,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes in use, page cache included.
    pub usage_bytes: u64,
    /// Largest `usage_bytes` so far (on v2 since Linux 5.19).
    pub max_usage_bytes: u64,
    /// Limit in bytes.
    pub limit_bytes: Limit,
    /// Page cache in bytes, tmpfs included.
    pub cache_bytes: u64,
    /// The part of the page cache that is reclaimed first; `usage_bytes` minus this is what
    /// docker shows.
    pub inactive_file_bytes: u64,
    /// Anonymous memory in bytes.
    pub anonymous_bytes: u64,
    /// Swap in bytes.
    pub swap_bytes: u64,
    /// How often the limit was hit.
    pub limit_failures: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Every line of `memory.stat`, names as the kernel has them.
    pub details: Vec<(String, u64)>,
}

impl Default for MemoryStats {
    fn default() -> Self {
        Self {
            usage_bytes: 0,
            max_usage_bytes: 0,
            limit_bytes: Limit::Max,
            cache_bytes: 0,
            inactive_file_bytes: 0,
            anonymous_bytes: 0,
            swap_bytes: 0,
            limit_failures: 0,
            oom_kills: 0,
            details: Vec::new(),
        }
    }
}

/// Tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PidsStats {
    /// Tasks now.
    pub current: u64,
    /// Largest number allowed.
    pub limit: Limit,
}

impl Default for PidsStats {
    fn default() -> Self {
        Self {
            current: 0,
            limit: Limit::Max,
        }
    }
}

/// Block I/O of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoStats {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Bytes discarded.
    pub discard_bytes: u64,
    /// Reads.
    pub read_operations: u64,
    /// Writes.
    pub write_operations: u64,
    /// Discards.
    pub discard_operations: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugetlbStats {
    /// Page size as the kernel names it, `2MB`.
    pub page_size: String,
    /// Bytes in use.
    pub usage_bytes: u64,
    /// Largest `usage_bytes` so far (v1 only).
    pub max_usage_bytes: u64,
    /// Limit in bytes.
    pub limit_bytes: Limit,
    /// How often the limit was hit.
    pub limit_failures: u64,
}

/// The value of the line `NAME VALUE`, 0 if there is none.
pub(crate) fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Lines of `NAME VALUE`; others are left out.
pub(crate) fn pairs(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// The entry of a device, made if it is new.
pub(crate) fn device<'a>(list: &'a mut Vec<IoStats>, name: &str) -> Option<&'a mut IoStats> {
    let (major, minor) = name.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let known = list
        .iter()
        .position(|entry| (entry.major, entry.minor) == (major, minor));
    let at = known.unwrap_or_else(|| {
        list.push(IoStats {
            major,
            minor,
            ..IoStats::default()
        });
        list.len() - 1
    });
    list.get_mut(at)
}

/// Reads v2 `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
pub(crate) fn io_v2(text: &str) -> Vec<IoStats> {
    let mut list = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(entry) = words.next().and_then(|name| device(&mut list, name)) else {
            continue;
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "dbytes" => entry.discard_bytes = value,
                "rios" => entry.read_operations = value,
                "wios" => entry.write_operations = value,
                "dios" => entry.discard_operations = value,
                _ => {}
            }
        }
    }
    list.sort_by_key(|entry| (entry.major, entry.minor));
    list
}

/// Reads v1 `io_service_bytes` and `io_serviced`: lines of `8:0 Read 123`.
pub(crate) fn io_v1(bytes: &str, operations: &str) -> Vec<IoStats> {
    let mut list = Vec::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(what), Some(value)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let value = value.parse().unwrap_or(0);
            let Some(entry) = device(&mut list, name) else {
                continue;
            };
            match (what, is_bytes) {
                ("Read", true) => entry.read_bytes = value,
                ("Write", true) => entry.write_bytes = value,
                ("Discard", true) => entry.discard_bytes = value,
                ("Read", false) => entry.read_operations = value,
                ("Write", false) => entry.write_operations = value,
                ("Discard", false) => entry.discard_operations = value,
                _ => {}
            }
        }
    }
    list.sort_by_key(|entry| (entry.major, entry.minor));
    list
}

/// Entry for a fuzzer: any bytes are read as control files without a panic.
pub fn fuzz_stats(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = field(&text, "oom_kill");
    let _ = pairs(&text);
    let _ = io_v2(&text);
    let _ = io_v1(&text, &text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_io_are_read() {
        let wanted = vec![IoStats {
            major: 8,
            minor: 16,
            read_bytes: 4096,
            write_bytes: 512,
            discard_bytes: 0,
            read_operations: 1,
            write_operations: 2,
            discard_operations: 3,
        }];
        let v2 = "8:16 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=3\n";
        assert_eq!(io_v2(v2), wanted);
        let bytes = "8:16 Read 4096\n8:16 Write 512\n8:16 Total 4608\nTotal 4608\n";
        let operations = "8:16 Read 1\n8:16 Write 2\n8:16 Discard 3\nTotal 6\n";
        assert_eq!(io_v1(bytes, operations), wanted);
    }

    #[test]
    fn fields_are_matched_whole() {
        let text = "oom 1\noom_kill 2\noom_group_kill 3\nx\n";
        assert_eq!(field(text, "oom_kill"), 2);
        assert_eq!(field(text, "oom"), 1);
        assert_eq!(field(text, "none"), 0);
        assert_eq!(pairs(text).len(), 3);
        fuzz_stats(b"8:\xff x=y\n:: = =\n");
    }
}

//! Whether the engine can do its work, and what its process uses.

use crate::container::record::Phase;
use crate::engine::Engine;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Bytes in RAM.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

/// What this process uses.
#[must_use]
pub fn process_usage() -> ProcessUsage {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let us = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = resident
        .and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0);
    ProcessUsage {
        cpu_us: us(usage.ru_utime) + us(usage.ru_stime),
        resident_bytes: kibibytes * 1024,
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

impl Engine {
    /// What a new container needs, by name, and why it is not to be had. Blocks for as long as the
    /// disk does.
    #[must_use]
    pub fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let options = &self.options;
        let writable = |directory: &Path| {
            let path = directory.join(".ready");
            fs::write(&path, b"")
                .and_then(|()| fs::remove_file(&path))
                .map_err(|error| format!("{}: {error}", directory.display()))
        };
        let executable = |path: &Path| match fs::metadata(path) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(()),
            Ok(_) => Err(format!("{}: not executable", path.display())),
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        let images = self.images.list().map(drop);
        vec![
            ("data_root", writable(&options.data_root)),
            ("run_root", writable(&options.run_root)),
            ("supervisor", executable(&options.supervisor)),
            (
                "images",
                images.map_err(|error| gamut_spec::error::chain(&error)),
            ),
        ]
    }

    /// Where each container stands.
    #[must_use]
    pub fn container_phases(&self) -> Vec<Phase> {
        self.index.all().iter().map(|one| one.phase()).collect()
    }

    /// How many records could not be read when the engine was opened.
    #[must_use]
    pub fn damaged_count(&self) -> usize {
        self.lock_damaged().len()
    }
}

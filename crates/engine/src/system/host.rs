//! Facts about the host.

use std::fs;

/// What the host is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Machine, as `x86_64`.
    pub architecture: String,
    /// Name and version of the distribution.
    pub operating_system: String,
    /// Version of the distribution alone.
    pub operating_system_version: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Host {
    /// Reads the facts; what cannot be read is left empty.
    #[must_use]
    pub fn read() -> Self {
        let word = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let release = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            name: word("/proc/sys/kernel/hostname"),
            kernel_version: word("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH.to_owned(),
            operating_system: release_value(&release, "PRETTY_NAME")
                .unwrap_or_else(|| "Linux".to_owned()),
            operating_system_version: release_value(&release, "VERSION_ID").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory_total(&memory).unwrap_or(0),
        }
    }

    /// The machine in the words of Go and OCI, as `amd64`.
    #[must_use]
    pub fn go_architecture(&self) -> &str {
        match self.architecture.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }
}

/// A value of os-release(5), without its quotes.
fn release_value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(|value| value.trim_matches(['"', '\'']).to_owned())
}

fn memory_total(text: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_parsed() {
        let release = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID='12'\n";
        assert_eq!(
            release_value(release, "PRETTY_NAME").unwrap(),
            "Debian GNU/Linux 12"
        );
        assert_eq!(release_value(release, "VERSION_ID").unwrap(), "12");
        assert_eq!(memory_total("MemTotal:  10 kB\n"), Some(10_240));
        assert!(Host::read().memory_bytes > 0);
    }
}

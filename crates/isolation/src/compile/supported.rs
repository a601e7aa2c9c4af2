//! What a configuration may ask for, as `features` of the OCI runtime command tells it.
//!
//! Kept beside the code that carries it out: a test compiles what is listed here.

use super::mount_options;
use gamut_abi::capability::NAMES;

/// Kinds of `linux.namespaces`.
pub const NAMESPACES: [&str; 8] = [
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];

/// Actions of `linux.seccomp`.
pub const SECCOMP_ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Comparisons of arguments in `linux.seccomp`.
pub const SECCOMP_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Architectures of `linux.seccomp`.
pub const SECCOMP_ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// Flags of `linux.seccomp`.
pub const SECCOMP_FLAGS: [&str; 3] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
];

/// `process.apparmorProfile`, where the host has it.
pub const APPARMOR: bool = true;

/// `process.selinuxLabel`, where the host has it.
pub const SELINUX: bool = true;

/// `mounts[].uidMappings`.
pub const IDMAPPED_MOUNTS: bool = true;

/// `linux.netDevices`.
pub const NETWORK_DEVICES: bool = true;

/// `linux.resources.rdma`.
pub const RDMA: bool = true;

/// Control groups by way of the host's systemd. Users' own ones are not asked yet.
pub const SYSTEMD_CGROUPS: bool = true;

/// Names of all capabilities, in the order of their numbers.
#[must_use]
pub fn capabilities() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

/// Words of `mounts[].options` that are not for the file system, sorted.
#[must_use]
pub fn mount_options() -> Vec<String> {
    let mut words = mount_options::words();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        Arch, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    };
    use serde_json::json;

    #[test]
    fn every_word_is_one_of_the_specification() {
        for word in SECCOMP_ACTIONS {
            serde_json::from_value::<LinuxSeccompAction>(json!(word)).unwrap();
        }
        for word in SECCOMP_OPERATORS {
            serde_json::from_value::<LinuxSeccompOperator>(json!(word)).unwrap();
        }
        for word in SECCOMP_ARCHITECTURES {
            serde_json::from_value::<Arch>(json!(word)).unwrap();
        }
        for word in SECCOMP_FLAGS {
            serde_json::from_value::<LinuxSeccompFilterFlag>(json!(word)).unwrap();
        }
        assert!(capabilities().contains(&"CAP_SYS_ADMIN".to_owned()));
        let options = mount_options();
        for word in ["rro", "ro", "rbind", "tmpcopyup", "rslave", "rrelatime"] {
            assert!(options.iter().any(|option| option == word), "{word}");
        }
    }
}

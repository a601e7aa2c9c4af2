//! `features`: what this program can do (runtime-spec, features.md). Nothing is listed that is
//! refused.

use crate::error::Error;
use crate::print;
use crate::state::OCI_VERSION;
use gamut_isolation::compile::supported;
use serde_json::json;

/// Shows it as JSON.
///
/// # Errors
/// If the output is gone.
pub fn show() -> Result<(), Error> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop"
        ],
        "mountOptions": supported::mount_options(),
        "linux": {
            "namespaces": supported::NAMESPACES,
            "capabilities": supported::capabilities(),
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": supported::SYSTEMD_CGROUPS,
                "systemdUser": false,
                "rdma": supported::RDMA,
            },
            "seccomp": {
                "enabled": true,
                "actions": supported::SECCOMP_ACTIONS,
                "operators": supported::SECCOMP_OPERATORS,
                "archs": supported::SECCOMP_ARCHITECTURES,
                "knownFlags": supported::SECCOMP_FLAGS,
                "supportedFlags": supported::SECCOMP_FLAGS,
            },
            "apparmor": {"enabled": supported::APPARMOR},
            "selinux": {"enabled": supported::SELINUX},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": supported::IDMAPPED_MOUNTS}},
            "netDevices": {"enabled": supported::NETWORK_DEVICES},
        },
        "potentiallyUnsafeConfigAnnotations": [],
    });
    let text =
        serde_json::to_string_pretty(&features).map_err(|error| Error::Output(error.into()))?;
    print(&format!("{text}\n"))
}

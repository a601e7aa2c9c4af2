//! What a configuration may ask for and nothing here carries out: refused, never ignored.

use super::field::{invalid, unsupported};
use crate::error::Error;
use oci_spec::runtime::{Linux, LinuxPersonalityDomain, Process, Spec};

const LEAVE_OUT: &str = "leave the field out";

/// Checks the top level.
pub(super) fn spec(spec: &Spec) -> Result<(), Error> {
    let major = spec.version().split('.').next().unwrap_or_default();
    if major != "1" {
        return Err(invalid(
            "ociVersion",
            format!("{:?} is not supported; use a version 1.x", spec.version()),
        ));
    }
    for (field, present) in [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
        ("vm", spec.vm().is_some()),
    ] {
        if present {
            return Err(invalid(
                field,
                "is for another platform than Linux containers",
            ));
        }
    }
    Ok(())
}

/// Checks `linux`.
pub(super) fn linux(linux: &Linux) -> Result<(), Error> {
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return Err(unsupported(
            "linux.netDevices",
            "give the sandbox a prepared network namespace",
        ));
    }
    if linux
        .mount_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
    {
        return Err(unsupported(
            "linux.mountLabel",
            "SELinux is not available; leave it out",
        ));
    }
    if linux.intel_rdt().is_some() {
        return Err(unsupported("linux.intelRdt", LEAVE_OUT));
    }
    if linux.memory_policy().is_some() {
        return Err(unsupported(
            "linux.memoryPolicy",
            "use linux.resources.cpu.mems",
        ));
    }
    if let Some(personality) = linux.personality() {
        let plain = personality.domain() == LinuxPersonalityDomain::PerLinux
            && personality.flags().as_ref().is_none_or(Vec::is_empty);
        if !plain {
            return Err(unsupported(
                "linux.personality",
                "start the program with setarch(8)",
            ));
        }
    }
    Ok(())
}

/// Checks `process`.
pub(super) fn process(process: &Process) -> Result<(), Error> {
    match process.apparmor_profile().as_deref() {
        None | Some("" | "unconfined") => {}
        Some(_) => {
            return Err(unsupported(
                "process.apparmorProfile",
                "leave it out or set it to unconfined",
            ));
        }
    }
    if process
        .selinux_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
    {
        return Err(unsupported("process.selinuxLabel", LEAVE_OUT));
    }
    if process.io_priority().is_some() {
        return Err(unsupported(
            "process.ioPriority",
            "start the program with ionice(1)",
        ));
    }
    if process.scheduler().is_some() {
        return Err(unsupported(
            "process.scheduler",
            "start the program with chrt(1)",
        ));
    }
    if process.exec_cpu_affinity().is_some() {
        return Err(unsupported(
            "process.execCPUAffinity",
            "use linux.resources.cpu.cpus",
        ));
    }
    if process.command_line().is_some() {
        return Err(invalid(
            "process.commandLine",
            "is for Windows; use process.args",
        ));
    }
    if process
        .user()
        .username()
        .as_ref()
        .is_some_and(|name| !name.is_empty())
    {
        return Err(invalid(
            "process.user.username",
            "is for Windows; use uid and gid",
        ));
    }
    Ok(())
}

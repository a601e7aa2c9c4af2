//! What a configuration may ask for and nothing here carries out: refused, never ignored.

use super::field::{invalid, unsupported};
use crate::error::Error;
use oci_spec::runtime::{Linux, Process, Spec};

const LEAVE_OUT: &str = "leave the field out";

/// Checks the top level and `hooks`.
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
    #[allow(
        deprecated,
        reason = "a configuration that still has prestart hooks must be refused"
    )]
    if let Some(hooks) = spec.hooks() {
        for (field, list) in [
            ("hooks.prestart", hooks.prestart()),
            ("hooks.createRuntime", hooks.create_runtime()),
            ("hooks.createContainer", hooks.create_container()),
            ("hooks.startContainer", hooks.start_container()),
            ("hooks.poststart", hooks.poststart()),
            ("hooks.poststop", hooks.poststop()),
        ] {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                return Err(unsupported(
                    field,
                    "run the program before or after the container",
                ));
            }
        }
    }
    Ok(())
}

/// Checks `linux`.
pub(super) fn linux(linux: &Linux) -> Result<(), Error> {
    if linux.intel_rdt().is_some() {
        return Err(unsupported("linux.intelRdt", LEAVE_OUT));
    }
    Ok(())
}

/// Checks `process`.
pub(super) fn process(process: &Process) -> Result<(), Error> {
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

//! What a configuration may ask for and nothing here carries out: refused, never ignored.

use super::field::{invalid, unsupported};
use crate::error::Error;
use oci_spec::runtime::{Linux, Process, Spec};

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

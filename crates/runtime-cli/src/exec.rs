//! `exec`: a further process in a container.

use crate::arguments::Exec;
use crate::bundle::{parse_process, read_file};
use crate::error::Error;
use crate::hand_over::{Program, callers, check_terminal, preserved};
use crate::log::Logger;
use crate::process::Process as LiveProcess;
use crate::state::{Container, Root, Status};
use crate::unikernel;
use gamut_abi::oci::{OciExec, OciRequest, OciSubgroup};
use gamut_isolation::compile::compile_exec;
use gamut_isolation::unikernel::EXEC;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

/// Runs a process. Returns only on failure.
///
/// # Errors
/// Why it did not get to the program that makes it.
pub fn exec(root: &Root<'_>, options: &Exec, logger: &Logger<'_>) -> Result<(), Error> {
    // First of all: their numbers are as good as any for what is opened next.
    let preserved = preserved(3, options.preserve_fds)?;
    let callers = callers(&options.callers, logger)?;
    let container = root.find(&options.id)?;
    unikernel::refuse(&container, EXEC)?;
    let init = running(&container, options.ignore_paused)?;
    let spec = container.configuration()?;
    let process = match &options.process {
        Some(path) => parse_process(path, &read_file(path)?, logger)?,
        None => from_options(&spec, options)?,
    };
    let compiled = compile_exec(&spec, &options.id, &container.record.bundle, &process)?;
    check_terminal(
        compiled.plan.process.terminal.is_some(),
        options.detach,
        &options.callers,
    )?;
    for warning in &compiled.warnings {
        logger.warning(warning);
    }
    let program = Program::find()?;
    logger.debug(|| format!("a process in container {} is made", options.id));
    let request = OciRequest::Exec(OciExec {
        id: options.id.clone(),
        init_pid: init.pid,
        plan: compiled.plan,
        cgroup_path: container.record.cgroup_path.clone(),
        subgroups: subgroups(&container, options),
        detach: options.detach,
        extra_files: u32::try_from(preserved.len()).unwrap_or(u32::MAX),
        callers,
    });
    let mut files = vec![init.descriptor()];
    files.extend(preserved.iter().map(AsFd::as_fd));
    Err(program.execute(&options.id, &request, &files))
}

fn running(container: &Container, ignore_paused: bool) -> Result<&LiveProcess, Error> {
    match (&container.process, container.status_with_freezer()?) {
        (_, Status::Paused) if !ignore_paused => Err(container.refuses(
            "exec in",
            "cannot exec in a paused container (use --ignore-paused to override)",
        )),
        (Some(process), _) => Ok(process),
        (None, Status::Stopped) => {
            Err(container.refuses("exec in", "cannot exec in a stopped container"))
        }
        (None, status) => Err(container.refuses("exec in", format!("it is {}", status.word()))),
    }
}

/// The container's own process, changed by the options.
fn from_options(spec: &Spec, options: &Exec) -> Result<Process, Error> {
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(options.args.clone()));
    process.set_terminal(Some(options.terminal));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(PathBuf::from(cwd));
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend_from_slice(&options.env);
    process.set_env(Some(env));
    if let Some(no_new_privileges) = options.no_new_privileges {
        process.set_no_new_privileges(Some(no_new_privileges));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    let mut user = process.user().clone();
    if let Some((uid, gid)) = options.user {
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !options.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend_from_slice(&options.additional_gids);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    if !options.capabilities.is_empty() {
        let own = process.capabilities().clone();
        process.set_capabilities(Some(more_capabilities(own, &options.capabilities)?));
    }
    Ok(process)
}

/// Adds capabilities. They can be ambient only where something may be inherited at all.
fn more_capabilities(
    own: Option<LinuxCapabilities>,
    names: &[String],
) -> Result<LinuxCapabilities, Error> {
    let more = names
        .iter()
        .map(|name| {
            let upper = name.to_uppercase();
            let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
            Capability::from_str(short)
                .map_err(|_| Error::Usage(format!("--cap: {name:?} is no capability")))
        })
        .collect::<Result<Capabilities, Error>>()?;
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(more.iter().copied());
        Some(set)
    };
    let mut sets = own.unwrap_or_else(no_capabilities);
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    if sets
        .inheritable()
        .as_ref()
        .is_some_and(|set| !set.is_empty())
    {
        sets.set_ambient(with(sets.ambient()));
    }
    Ok(sets)
}

/// The default of the type is that of an example.
fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None)
        .set_effective(None)
        .set_inheritable(None)
        .set_permitted(None)
        .set_ambient(None);
    sets
}

/// The groups by their whole paths; `/` is that of the container itself.
fn subgroups(container: &Container, options: &Exec) -> Vec<OciSubgroup> {
    let Some(own) = &container.record.cgroup_path else {
        return Vec::new();
    };
    options
        .subgroups
        .iter()
        .map(|subgroup| {
            let parts = subgroup.path.split('/').filter(|part| !part.is_empty());
            OciSubgroup {
                controllers: subgroup.controllers.clone(),
                path: std::iter::once(own.as_str())
                    .chain(parts)
                    .collect::<Vec<_>>()
                    .join("/"),
            }
        })
        .collect()
}

//! The commands that change a container that exists.

use crate::arguments::Kill;
use crate::error::Error;
use crate::log::Logger;
use crate::process::Process;
use crate::state::{Container, Root, Status};
use crate::unikernel;
use gamut_abi::control::FailureKind;
use gamut_abi::oci::GATE_FILE;
use gamut_cgroup::Group;
use gamut_container::{Gate, run_hooks};
use gamut_isolation::unikernel::signal_for_monitor;

/// How long `delete` waits for a killed process, in milliseconds.
const KILL_TIMEOUT_MS: i32 = 10_000;

/// Starts a created container.
///
/// # Errors
/// If it does not wait for a start, its program cannot be executed, or a hook fails.
pub fn start(root: &Root<'_>, id: &str, logger: &Logger<'_>) -> Result<(), Error> {
    let directory = root.directory(id);
    let text = directory.to_str().unwrap_or_default();
    // The gate knows best whether the container waits; only if it does not is it looked at.
    let Err(error) = Gate::open(text, GATE_FILE) else {
        logger.debug(|| format!("container {id} is started"));
        return poststart(root, id);
    };
    let container = root.find(id)?;
    Err(container.refuses(
        "start",
        match (error.kind, container.status) {
            (FailureKind::State, Status::Stopped) => {
                "cannot start a container that has stopped; only a created one can be started"
                    .to_owned()
            }
            (FailureKind::State, Status::Running) => "cannot start an already running container; \
                 only a created one can be started"
                .to_owned(),
            (FailureKind::State, status) => {
                format!("it is {}, only a created one can be started", status.word())
            }
            _ => error.to_string(),
        },
    ))
}

/// Runs the hooks that come once the program runs. One that fails ends the container.
fn poststart(root: &Root<'_>, id: &str) -> Result<(), Error> {
    let container = root.find(id)?;
    let Some(hooks) = &container.record.hooks else {
        return Ok(());
    };
    let pid = container.process.as_ref().map_or(0, |found| found.pid);
    let state = hooks.state("running", pid);
    let run = run_hooks(&hooks.poststart, "poststart", &state, &hooks.bundle);
    if run.is_err()
        && let Some(process) = &container.process
    {
        send(process, libc::SIGKILL, &container)?;
    }
    Ok(run?)
}

/// Sends a signal to the first process, or to all.
///
/// # Errors
/// If it has ended or was never there.
pub fn kill(root: &Root<'_>, options: &Kill) -> Result<(), Error> {
    let container = root.find(&options.id)?;
    let signal = if unikernel::is_one(&container.record) {
        signal_for_monitor(options.signal)?
    } else {
        options.signal
    };
    // Without a PID namespace of its own the others outlive the first process.
    let everybody = options.all || !container.record.own_pid_namespace;
    if everybody
        && options.signal == libc::SIGKILL
        && let Some(group) = container.group()?
        && (options.all || container.process.is_some() || !group.processes()?.is_empty())
    {
        return Ok(group.kill()?);
    }
    let Some(process) = &container.process else {
        if options.all {
            return Ok(());
        }
        let word = container.status.word();
        return Err(container.refuses("kill", format!("container not running: it is {word}")));
    };
    send(process, signal, &container)?;
    if options.signal == libc::SIGKILL {
        thaw(&container)?;
    }
    if options.all {
        let group = container.group()?;
        for pid in group.map_or(Ok(Vec::new()), |group| group.processes())? {
            if pid != process.pid {
                // The list is a moment old; one that has ended meanwhile is fine.
                // SAFETY: plain call; the id is positive, so exactly one process is meant.
                unsafe {
                    libc::kill(
                        libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX),
                        signal,
                    )
                };
            }
        }
    }
    Ok(())
}

/// In the freezer of version 1 nobody dies.
fn thaw(container: &Container) -> Result<(), Error> {
    if container.status_with_freezer()? == Status::Paused
        && let Some(group) = container.group()?
    {
        group.thaw()?;
    }
    Ok(())
}

fn send(process: &Process, signal: i32, container: &Container) -> Result<(), Error> {
    process
        .signal(signal)
        .map_err(Error::file("signal the process of", &container.directory))
}

/// Freezes a container's processes.
///
/// # Errors
/// If it does not run, has no control group, or cannot be frozen.
pub fn pause(root: &Root<'_>, id: &str) -> Result<(), Error> {
    let container = root.find(id)?;
    match container.status_with_freezer()? {
        Status::Created | Status::Running => Ok(group_of(&container, "pause")?.freeze()?),
        status => Err(container.refuses(
            "pause",
            format!("container not running or created: {}", status.word()),
        )),
    }
}

/// Lets a paused container's processes run again.
///
/// # Errors
/// If it is not paused.
pub fn resume(root: &Root<'_>, id: &str) -> Result<(), Error> {
    let container = root.find(id)?;
    match container.status_with_freezer()? {
        Status::Paused => Ok(group_of(&container, "resume")?.thaw()?),
        status => {
            Err(container.refuses("resume", format!("container not paused: {}", status.word())))
        }
    }
}

/// The control group of a container that needs one.
///
/// # Errors
/// If it has none.
pub fn group_of(container: &Container, verb: &'static str) -> Result<Group, Error> {
    container
        .group()?
        .ok_or_else(|| container.refuses(verb, "it has no control group; set linux.cgroupsPath"))
}

/// Removes a container.
///
/// # Errors
/// If it still runs and is not to be killed, or something of it cannot be removed; `delete` can
/// be repeated then.
pub fn delete(root: &Root<'_>, id: &str, force: bool, logger: &Logger<'_>) -> Result<(), Error> {
    let container = match root.find(id) {
        // As runc has it: nothing to be forced.
        Err(Error::NotFound { .. }) if force => return Ok(()),
        other => other?,
    };
    if !force && matches!(container.status, Status::Creating | Status::Running) {
        let word = container.status_with_freezer()?.word();
        return Err(container.refuses(
            "delete",
            format!("it is not stopped: {word}; stop it first, or use --force"),
        ));
    }
    let group = container.group()?;
    if let Some(process) = &container.process {
        send(process, libc::SIGKILL, &container)?;
        thaw(&container)?;
        if !process.wait(KILL_TIMEOUT_MS) {
            return Err(
                container.refuses("delete", format!("process {} does not die", process.pid))
            );
        }
    }
    if let Some(group) = group {
        // Without a PID namespace others may have outlived the first process. The usual case is
        // an empty group, and removing that is the cheaper question.
        if container.process.is_some() || !group.processes()?.is_empty() {
            group.kill()?;
        }
        group.remove()?;
    }
    gamut_supervisor::oci::remove_state_directory(&container.directory)
        .map_err(Error::file("remove", &container.directory))?;
    poststop(&container, logger);
    Ok(())
}

/// Runs the hooks that come last. One that fails does not keep the others from running
/// (runtime.md, "Lifecycle").
fn poststop(container: &Container, logger: &Logger<'_>) {
    let Some(hooks) = &container.record.hooks else {
        return;
    };
    let state = hooks.state("stopped", 0);
    for hook in &hooks.poststop {
        let hook = std::slice::from_ref(hook);
        if let Err(error) = run_hooks(hook, "poststop", &state, &hooks.bundle) {
            logger.warning(&error.message);
        }
    }
}

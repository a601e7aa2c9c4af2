//! The commands on a container that exists.

use crate::error::Error;
use crate::process::Process;
use crate::state::{Container, OCI_VERSION, Root, Status};
use gamut_abi::control::FailureKind;
use gamut_abi::oci::GATE_FILE;
use gamut_cgroup::{Group, Hierarchies};
use gamut_container::Gate;
use std::io::Write;

/// How long `delete` waits for a killed process, in milliseconds.
const KILL_TIMEOUT_MS: i32 = 10_000;

/// Starts a created container.
///
/// # Errors
/// If it does not wait for a start, or its program cannot be executed.
pub fn start(root: &Root<'_>, id: &str) -> Result<(), Error> {
    let directory = root.directory(id);
    let text = directory.to_str().unwrap_or_default();
    // The gate knows best whether the container waits; only if it does not is it looked at.
    let Err(error) = Gate::open(text, GATE_FILE) else {
        return Ok(());
    };
    let status = root.find(id)?.status;
    Err(Error::State {
        verb: "start",
        id: id.to_owned(),
        reason: match error.kind {
            FailureKind::State => {
                let word = status.word();
                format!("it is {word}, only a created one can be started")
            }
            _ => error.to_string(),
        },
    })
}

/// Shows a container (runtime-spec, runtime.md, "State").
///
/// # Errors
/// If there is none, or its state cannot be read.
pub fn state(root: &Root<'_>, id: &str) -> Result<(), Error> {
    let container = root.find(id)?;
    let mut object = object(&container);
    object["annotations"] = serde_json::json!(container.record.annotations);
    print(&format!("{object:#}\n"))
}

fn object(container: &Container) -> serde_json::Value {
    let record = &container.record;
    let mut object = serde_json::json!({
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "status": container.status.word(),
        "bundle": record.bundle,
        "created": gamut_spec::time::rfc3339(record.created_ns),
    });
    // "MAY be absent or zero if the container has stopped"; callers expect the number.
    object["pid"] = serde_json::json!(container.process.as_ref().map_or(0, |found| found.pid));
    object
}

/// Sends a signal to the first process, or to all.
///
/// # Errors
/// If it has ended or was never there.
pub fn kill(root: &Root<'_>, id: &str, signal: i32, all: bool) -> Result<(), Error> {
    let container = root.find(id)?;
    if all
        && signal == libc::SIGKILL
        && let Some(group) = group(&container)?
    {
        return Ok(group.kill()?);
    }
    let Some(process) = &container.process else {
        return Err(Error::State {
            verb: "kill",
            id: id.to_owned(),
            reason: format!("it is {}", container.status.word()),
        });
    };
    send(process, signal, &container)?;
    if all {
        for pid in group(&container)?.map_or(Ok(Vec::new()), |group| group.processes())? {
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

fn send(process: &Process, signal: i32, container: &Container) -> Result<(), Error> {
    process
        .signal(signal)
        .map_err(Error::file("signal the process of", &container.directory))
}

/// Removes a container.
///
/// # Errors
/// If it still runs and is not to be killed, or something of it cannot be removed; `delete` can
/// be repeated then.
pub fn delete(root: &Root<'_>, id: &str, force: bool) -> Result<(), Error> {
    let container = match root.find(id) {
        // As runc has it: nothing to be forced.
        Err(Error::NotFound { .. }) if force => return Ok(()),
        other => other?,
    };
    if !force && matches!(container.status, Status::Creating | Status::Running) {
        return Err(Error::State {
            verb: "delete",
            id: id.to_owned(),
            reason: format!(
                "it is {}; stop it first, or use --force",
                container.status.word()
            ),
        });
    }
    let group = group(&container)?;
    if let Some(process) = &container.process {
        send(process, libc::SIGKILL, &container)?;
        if !process.wait(KILL_TIMEOUT_MS) {
            return Err(Error::State {
                verb: "delete",
                id: id.to_owned(),
                reason: format!("process {} does not die", process.pid),
            });
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
        .map_err(Error::file("remove", &container.directory))
}

fn group(container: &Container) -> Result<Option<Group>, Error> {
    match &container.record.cgroup_path {
        None => Ok(None),
        Some(path) => Ok(Some(Group::at(&Hierarchies::detect()?, path)?)),
    }
}

/// Lists all containers.
///
/// # Errors
/// If the root or a state in it cannot be read.
pub fn list(root: &Root<'_>, quiet: bool, json: bool) -> Result<(), Error> {
    let mut containers = Vec::new();
    for id in root.ids()? {
        match root.find(&id) {
            Ok(container) => containers.push(container),
            // Deleted meanwhile.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut text = String::new();
    if json {
        let objects: Vec<_> = containers.iter().map(object).collect();
        text = format!("{}\n", serde_json::Value::Array(objects));
    } else if quiet {
        for container in &containers {
            text.push_str(&container.record.id);
            text.push('\n');
        }
    } else {
        text.push_str("ID                       PID     STATUS    BUNDLE\n");
        for container in &containers {
            text.push_str(&format!(
                "{:<24} {:<7} {:<9} {}\n",
                container.record.id,
                container.process.as_ref().map_or(0, |found| found.pid),
                container.status.word(),
                container.record.bundle.display()
            ));
        }
    }
    print(&text)
}

/// Writes to standard output.
///
/// # Errors
/// If it is gone.
pub fn print(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Output)
}

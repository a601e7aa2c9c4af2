//! A container of the OCI runtime command: made as a child of this program.
//!
//! `gamut-runtime` replaces itself by this sealed program (see [`crate::Executable`]), so that no
//! process of a container ever runs from a file that the host executes. There is no daemon and no
//! log: the caller's standard streams are the container's.

mod report;
mod run;
mod state;

pub use state::remove_state_directory;

use crate::server::{discard, make_group};
use gamut_abi::control::{Failure, FailureKind};
use gamut_abi::oci::{GATE_FILE, LAUNCH_DESCRIPTOR, OciLaunch, OciVerb};
use gamut_abi::wire;
use gamut_cgroup::Group;
use gamut_container::{CreateOptions, Created, Gate, Stdio};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, FromRawFd};
use std::process::ExitCode;

/// Carries out the launch in descriptor 3 and answers the exit code: that of the container for
/// `run`; 1 on failure, 126 and 127 if the program of `run` cannot be executed or found.
#[must_use]
pub fn main() -> ExitCode {
    let launch = match read_launch() {
        Ok(launch) => launch,
        Err(message) => {
            report::error(None, &message);
            return ExitCode::FAILURE;
        }
    };
    let result = match launch.verb {
        OciVerb::Create => create(&launch).map(|()| 0),
        OciVerb::Run => run::run(&launch),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let verb = match launch.verb {
                OciVerb::Create => "create ",
                OciVerb::Run => "run ",
            };
            let message = [verb, &launch.plan.id, ": ", &failure.message].concat();
            report::error(launch.log.as_ref(), &message);
            match (launch.verb, failure.kind) {
                (OciVerb::Run, FailureKind::ExecutableNotFound) => ExitCode::from(127),
                (OciVerb::Run, FailureKind::ExecutableDenied) => ExitCode::from(126),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn read_launch() -> Result<OciLaunch, String> {
    // SAFETY: gamut-runtime puts the launch there; nothing else in this process owns it. If it is
    // not there, reading fails cleanly.
    let mut file = unsafe { File::from_raw_fd(i32::from(LAUNCH_DESCRIPTOR)) };
    let mut frame = Vec::new();
    file.read_to_end(&mut frame)
        .map_err(|error| format!("read the launch from descriptor 3: {error}"))?;
    wire::decode(&frame).map_err(|error| format!("read the launch from descriptor 3: {error}"))
}

/// A container that waits for its start, and its control group.
struct Made {
    created: Created,
    group: Option<Group>,
}

/// Makes the container up to just before execve. On failure nothing is left but the state
/// directory.
fn make(launch: &OciLaunch, options: CreateOptions<'_>) -> Result<Made, Failure> {
    let mut warnings = Vec::new();
    let group = make_group(&launch.plan, &mut warnings)?.map(|(_, group)| group);
    let made = inherited_stdio()
        .map_err(|error| failure("duplicate the standard streams", &error))
        .and_then(|stdio| {
            gamut_container::create(&launch.plan, &[], stdio, group.as_ref(), options)
                .map_err(Failure::from)
        })
        .and_then(|created| match hand_over(launch, &created) {
            Ok(()) => Ok(created),
            Err(failure) => {
                created.abort();
                Err(failure)
            }
        });
    match made {
        Ok(created) => {
            warnings.extend_from_slice(&created.warnings);
            for warning in warnings {
                report::warning(launch.log.as_ref(), &warning);
            }
            Ok(Made { created, group })
        }
        Err(failure) => {
            if let Some(group) = &group {
                discard(group);
            }
            Err(failure)
        }
    }
}

/// Tells the callers who waits: the terminal first, since whoever reads the process id may expect
/// it to be there.
fn hand_over(launch: &OciLaunch, created: &Created) -> Result<(), Failure> {
    if let (Some(path), Some(master)) = (&launch.console_socket, &created.terminal) {
        state::send_console(path, master.as_fd())
            .map_err(|error| failure(&["send the terminal to ", path].concat(), &error))?;
    }
    state::write_pid(&launch.state_directory, created.pid)
        .map_err(|error| failure("write the process id", &error))?;
    if let Some(path) = &launch.pid_file {
        state::write_pid_file(path, created.pid)
            .map_err(|error| failure(&["write ", path].concat(), &error))?;
    }
    Ok(())
}

fn create(launch: &OciLaunch) -> Result<(), Failure> {
    let made = Gate::make(&launch.state_directory, GATE_FILE)
        .map_err(Failure::from)
        .and_then(|gate| {
            make(
                launch,
                CreateOptions {
                    die_with_parent: false,
                    gate: Some(&gate),
                },
            )
        });
    match made {
        Ok(made) => {
            let _pid = made.created.detach();
            Ok(())
        }
        Err(failure) => {
            forget(launch);
            Err(failure)
        }
    }
}

/// Removes the state directory of a container that is no more.
fn forget(launch: &OciLaunch) {
    if let Err(error) = remove_state_directory(std::path::Path::new(&launch.state_directory)) {
        let message = format!("remove {}: {error}", launch.state_directory);
        report::warning(launch.log.as_ref(), &message);
    }
}

fn inherited_stdio() -> std::io::Result<Stdio> {
    Ok(Stdio::Descriptors {
        stdin: std::io::stdin().as_fd().try_clone_to_owned()?,
        stdout: std::io::stdout().as_fd().try_clone_to_owned()?,
        stderr: std::io::stderr().as_fd().try_clone_to_owned()?,
    })
}

fn failure(operation: &str, error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::System,
        message: format!("{operation}: {error}"),
        errno: error.raw_os_error().unwrap_or(0),
    }
}

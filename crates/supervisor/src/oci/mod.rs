//! A container of the OCI runtime command, or a further process in one, made as a child of this
//! program.
//!
//! `gamut-runtime` replaces itself by this sealed program (see [`crate::Executable`]), so that no
//! process of a container ever runs from a file that the host executes. There is no daemon and no
//! log: the caller's standard streams are the container's.

mod callers;
mod debug;
mod exec;
mod foreground;
mod make;
mod report;
mod run;
mod state;
mod terminal;

pub use state::remove_state_directory;

use gamut_abi::control::{Failure, FailureKind};
use gamut_abi::oci::{LAUNCH_DESCRIPTOR, OciCallers, OciRequest, OciVerb, PROGRAM_NAME};
use gamut_abi::wire;
use gamut_container::Stdio;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

/// Carries out the request in descriptor 3 and answers the exit code: that of the process for
/// `run` and `exec` in the foreground; 1 if `create` or `run` failed, 126 and 127 if the program
/// of `run` cannot be executed or found, 255 if `exec` failed.
#[must_use]
pub fn main() -> ExitCode {
    let request = match read_request() {
        Ok(request) => request,
        Err(message) => {
            report::error(&OciCallers::default(), &message);
            return ExitCode::FAILURE;
        }
    };
    match request {
        OciRequest::Launch(launch) => {
            let (verb, result) = match launch.verb {
                OciVerb::Create => ("create", make::create(&launch).map(|()| 0)),
                OciVerb::Run | OciVerb::RunDetached => ("run", run::run(&launch)),
            };
            result.map_or_else(
                |failure| {
                    tell(verb, &launch.plan.id, &launch.callers, &failure);
                    match (launch.verb, failure.kind) {
                        (OciVerb::Create, _) => ExitCode::FAILURE,
                        (_, FailureKind::ExecutableNotFound) => ExitCode::from(127),
                        (_, FailureKind::ExecutableDenied) => ExitCode::from(126),
                        _ => ExitCode::FAILURE,
                    }
                },
                ExitCode::from,
            )
        }
        OciRequest::Exec(request) => exec::exec(&request).map_or_else(
            |failure| {
                tell("exec in", &request.id, &request.callers, &failure);
                ExitCode::from(u8::MAX)
            },
            ExitCode::from,
        ),
    }
}

fn tell(verb: &str, id: &str, callers: &OciCallers, failure: &Failure) {
    // The words of other OCI runtimes, by which engines know what happened.
    let text = &failure.message;
    let message = match verb {
        // The container's own program, after everything else: as a shell would have it.
        "run" if text.starts_with("exec /") => text.clone(),
        "create" | "run" => {
            let name = if callers.program.is_empty() {
                PROGRAM_NAME
            } else {
                &callers.program
            };
            let what = " failed: unable to start container process: ";
            [name, " ", verb, what, text, " (container ", id, ")"].concat()
        }
        _ => return report::error(callers, &[verb, " ", id, ": ", text].concat()),
    };
    report::bare_error(callers, &message);
}

fn read_request() -> Result<OciRequest, String> {
    // SAFETY: gamut-runtime puts the request there; nothing else in this process owns it. If it
    // is not there, reading fails cleanly.
    let mut file = unsafe { File::from_raw_fd(i32::from(LAUNCH_DESCRIPTOR)) };
    let mut frame = Vec::new();
    file.read_to_end(&mut frame)
        .map_err(|error| format!("read the request from descriptor 3: {error}"))?;
    wire::decode(&frame).map_err(|error| format!("read the request from descriptor 3: {error}"))
}

/// The descriptors that follow the request, close-on-exec from now on.
fn passed_files(count: u32) -> Vec<OwnedFd> {
    let first = i32::from(LAUNCH_DESCRIPTOR) + 1;
    (first..)
        .zip(0..count)
        .filter_map(|(number, _)| {
            // SAFETY: plain call on a number.
            let known = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } >= 0;
            // SAFETY: gamut-runtime has put it there for us; nothing else in this process owns
            // it, and this is called once, before anything is opened.
            known.then(|| unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

fn inherited_stdio() -> Result<Stdio, Failure> {
    let duplicate = || -> std::io::Result<Stdio> {
        Ok(Stdio::Descriptors {
            stdin: std::io::stdin().as_fd().try_clone_to_owned()?,
            stdout: std::io::stdout().as_fd().try_clone_to_owned()?,
            stderr: std::io::stderr().as_fd().try_clone_to_owned()?,
        })
    };
    duplicate().map_err(|error| failure("duplicate the standard streams", &error))
}

fn failure(operation: &str, error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::System,
        message: format!("{operation}: {error}"),
        errno: error.raw_os_error().unwrap_or(0),
    }
}

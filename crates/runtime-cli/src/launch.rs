//! `create` and `run`: from a bundle to the program that makes the container.

use crate::arguments::Launch;
use crate::bundle::Bundle;
use crate::error::{self, Error};
use crate::state::{self, Record, Root};
use gamut_abi::oci::{OciLaunch, OciVerb, PROGRAM_NAME};
use gamut_abi::plan::Plan;
use gamut_abi::wire;
use gamut_supervisor::Executable;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, FromRawFd};
use std::path::{Path, PathBuf};

/// Where packages put the supervisor's program.
const INSTALLED: &str = "/usr/libexec/gamut/gamut-supervisor";

/// Makes a container that waits for its start. Returns only on failure.
///
/// # Errors
/// Why it did not get to the program that makes it; nothing is left then.
pub fn create(
    root: &Root<'_>,
    launch: &Launch,
    log: Option<&(PathBuf, bool)>,
) -> Result<(), Error> {
    execute(root, launch, log, OciVerb::Create)
}

/// Makes a container and runs it to its end. Returns only on failure.
///
/// # Errors
/// As [`create`].
pub fn run(root: &Root<'_>, launch: &Launch, log: Option<&(PathBuf, bool)>) -> Result<(), Error> {
    execute(root, launch, log, OciVerb::Run)
}

fn execute(
    root: &Root<'_>,
    launch: &Launch,
    log: Option<&(PathBuf, bool)>,
    verb: OciVerb,
) -> Result<(), Error> {
    let bundle = Bundle::read(launch.bundle.as_deref())?;
    let compiled = bundle.compile(&launch.id, &bundle.root()?)?;
    check_terminal(&compiled.plan, launch)?;
    for warning in bundle.warnings.iter().chain(&compiled.warnings) {
        match log {
            Some((path, json)) => error::log(path, *json, "warning", warning),
            // Nobody is there to hear of a failure to warn.
            None => drop(writeln!(io::stderr(), "gamut-runtime: warning: {warning}")),
        }
    }
    let program = supervisor()?;
    let executable = Executable::seal(&program).map_err(Error::file("seal", &program))?;
    let record = Record {
        id: launch.id.clone(),
        bundle: bundle.path.clone(),
        cgroup_path: compiled
            .plan
            .cgroup
            .as_ref()
            .map(|group| group.path.clone()),
        created_ns: gamut_spec::time::now_ns(),
        annotations: bundle.annotations(),
    };
    let directory = root.make(&record)?;
    let handed_over = message(launch, log, verb, compiled.plan, &directory)
        .and_then(|message| memory_file(&message).map_err(Error::file("hand over", &directory)))
        .and_then(|input| {
            let name = CString::new(PROGRAM_NAME).unwrap_or_default();
            let id = CString::new(launch.id.as_str()).unwrap_or_default();
            let error = executable.execute(&[&name, &id], input.as_fd());
            Err(Error::file("execute", &program)(error))
        });
    state::forget(&directory);
    handed_over
}

fn message(
    launch: &Launch,
    log: Option<&(PathBuf, bool)>,
    verb: OciVerb,
    plan: Plan,
    directory: &Path,
) -> Result<Vec<u8>, Error> {
    let message = OciLaunch {
        verb,
        plan,
        state_directory: text(directory)?,
        pid_file: launch.pid_file.as_deref().map(text).transpose()?,
        console_socket: launch.console_socket.as_deref().map(text).transpose()?,
        log: log
            .map(|(path, json)| text(path).map(|path| (path, *json)))
            .transpose()?,
    };
    wire::encode(&message).map_err(|error| Error::Content {
        path: directory.to_owned(),
        problem: error.to_string(),
    })
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Usage(format!("path {} is not UTF-8", path.display())))
}

/// Whoever asks for a terminal has to say where its master goes.
fn check_terminal(plan: &Plan, launch: &Launch) -> Result<(), Error> {
    match (plan.process.terminal.is_some(), &launch.console_socket) {
        (true, None) => Err(Error::Unsupported(
            "process.terminal without --console-socket".to_owned(),
        )),
        (false, Some(_)) => Err(Error::Usage(
            "--console-socket is given, but process.terminal is not set".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The supervisor's program: named by `GAMUT_SUPERVISOR`, beside this one, or where packages put
/// it.
fn supervisor() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os("GAMUT_SUPERVISOR") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().map_err(Error::file("find", Path::new("/proc/self/exe")))?;
    let beside = own.with_file_name("gamut-supervisor");
    if beside.exists() {
        Ok(beside)
    } else {
        Ok(PathBuf::from(INSTALLED))
    }
}

fn memory_file(content: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a C string; a result that is no error is a new descriptor of ours.
    let mut file = unsafe {
        let raw = libc::memfd_create(c"gamut-launch".as_ptr(), libc::MFD_CLOEXEC);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(raw)
    };
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

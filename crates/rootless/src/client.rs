//! A daemon's way into the namespaces.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::PARENT;
use crate::error::{Error, Result};
use crate::message::{self, Answer, Request, State};
use crate::namespaces::Namespaces;

/// How often to try again while one parent ends and another starts.
const ATTEMPTS: u32 = 3;

/// What a daemon learns on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// The user's id outside.
    pub uid: u32,
    /// Whether the namespaces were made now, and nobody else uses them yet.
    pub is_new: bool,
    /// How the namespaces have turned out.
    pub state: State,
}

/// Moves this process, which has one thread, into the namespaces of the engine with this run
/// directory; makes them if they are not there. It is root there.
///
/// # Errors
/// If the machine does not let ordinary users make user namespaces, with what to change;
/// newuidmap's and the kernel's.
pub fn enter(run: &Path) -> Result<Entered> {
    // SAFETY: geteuid(2) only returns a number.
    let uid = unsafe { libc::geteuid() };
    crate::parent::make_private(run)?;
    let (state, namespaces, is_new) = join(run)?;
    namespaces
        .enter()
        .map_err(|source| Error::system("enter the engine's user namespace", source))?;
    Ok(Entered { uid, is_new, state })
}

fn join(run: &Path) -> Result<(State, Namespaces, bool)> {
    let mut last = None;
    let mut is_new = false;
    for _ in 0..ATTEMPTS {
        match message::ask(run, &Request::Join) {
            Ok((Answer::Namespaces(state), descriptors)) => {
                if let Some(namespaces) = Namespaces::from_descriptors(descriptors) {
                    return Ok((state, namespaces, is_new));
                }
            }
            Ok((Answer::Failed { message, .. }, _)) => return Err(Error::Setup(message)),
            Ok((Answer::Done, _)) => {}
            Err(error) => last = Some(error),
        }
        start(run)?;
        is_new = true;
    }
    let source = last.unwrap_or_else(|| std::io::ErrorKind::InvalidData.into());
    Err(Error::system(
        format!(
            "speak with the process gamut-rootless at {}",
            message::parent_socket(run).display()
        ),
        source,
    ))
}

/// Starts the process outside and waits until it can be asked.
fn start(run: &Path) -> Result<()> {
    let program =
        std::env::current_exe().map_err(|source| Error::system("find this executable", source))?;
    let log = run.join("rootless.log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(|source| Error::system(format!("open {}", log.display()), source))?;
    let mut command = Command::new(&program);
    command
        .arg0("gamut-rootless")
        .arg(PARENT)
        .arg(run)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    // SAFETY: setsid(2) is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            Ok(())
        });
    }
    let mut child = command
        .spawn()
        .map_err(|source| Error::system(format!("start {}", program.display()), source))?;
    let mut line = String::new();
    let read = child
        .stdout
        .take()
        .map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line));
    match (read, line.trim()) {
        (Ok(count), "") if count > 0 => Ok(()),
        (Ok(count), reason) if count > 0 => {
            let _ = child.wait();
            Err(Error::Setup(reason.to_owned()))
        }
        _ => {
            let status = child.wait().map(|status| status.to_string());
            Err(Error::Setup(format!(
                "the process gamut-rootless ended at its start: {}",
                status.unwrap_or_default()
            )))
        }
    }
}

/// Ends the process outside, the forwarder and pasta; the namespaces go with their last process.
/// To be called when no workload is left.
pub fn stop(run: &Path) {
    if let Err(error) = message::ask(run, &Request::Stop) {
        tracing::debug!(%error, "the process gamut-rootless was not there to be stopped");
    }
}

//! Handing a request over to the program that makes containers and their processes.

use crate::arguments::Callers;
use crate::error::Error;
use crate::log::Logger;
use gamut_abi::oci::{OciCallers, OciRequest, PROGRAM_NAME};
use gamut_abi::wire;
use gamut_supervisor::Executable;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where packages put the supervisor's program.
const INSTALLED: &str = "/usr/libexec/gamut/gamut-supervisor";

/// The program, sealed and ready to replace this one.
pub struct Program {
    path: PathBuf,
    executable: Executable,
}

impl Program {
    /// Finds and seals it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn find() -> Result<Self, Error> {
        let path = supervisor()?;
        let executable = Executable::seal(&path).map_err(Error::file("seal", &path))?;
        Ok(Self { path, executable })
    }

    /// Replaces this program. Returns only if that fails, with the reason.
    pub fn execute(&self, id: &str, request: &OciRequest, files: &[BorrowedFd<'_>]) -> Error {
        let failed = |error| Error::file("execute", &self.path)(error);
        let frame = match wire::encode(request) {
            Ok(frame) => frame,
            Err(error) => return failed(io::Error::other(error.to_string())),
        };
        let input = match memory_file(&frame) {
            Ok(input) => input,
            Err(error) => return failed(error),
        };
        let name = CString::new(PROGRAM_NAME).unwrap_or_default();
        let id = CString::new(id).unwrap_or_default();
        failed(self.executable.execute(&[&name, &id], input.as_fd(), files))
    }
}

/// Takes the descriptors that are to be preserved out of the way of everything that is opened
/// from now on: `count` from number `first` on.
///
/// # Errors
/// If one of them is not open.
pub fn preserved(first: u32, count: u32) -> Result<Vec<OwnedFd>, Error> {
    /// Above what the caller is likely to have open.
    const ABOVE: i32 = 512;
    (0..count)
        .map(|index| {
            let number = i32::try_from(first.saturating_add(index)).unwrap_or(i32::MAX);
            // SAFETY: plain call; a non-negative result is a new descriptor of ours.
            let taken = unsafe {
                let raw = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, ABOVE);
                if raw < 0 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(OwnedFd::from_raw_fd(raw))
                }
            };
            taken.map_err(|error| {
                Error::Usage(format!(
                    "unable to stat preserved-fd {index} (of {count}): descriptor {number}: {error}"
                ))
            })
        })
        .collect()
}

/// Number of descriptors from 3 on that are passed by socket activation (sd_listen_fds(3)).
pub fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Where callers are told, as the program takes it: paths from the root, since its working
/// directory is another one.
///
/// # Errors
/// If a path is not UTF-8.
pub fn callers(given: &Callers, logger: &Logger<'_>) -> Result<OciCallers, Error> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    Ok(OciCallers {
        pid_file: path(&given.pid_file)?,
        console_socket: path(&given.console_socket)?,
        pidfd_socket: path(&given.pidfd_socket)?,
        log: path(&logger.log().file)?.map(|file| (file, logger.log().json)),
        debug: logger.log().debug,
        program: logger.log().program.clone(),
    })
}

fn absolute(path: &Path) -> Result<String, Error> {
    let absolute = std::path::absolute(path).map_err(Error::file("use", path))?;
    text(&absolute)
}

/// A path as text.
///
/// # Errors
/// If it is not UTF-8.
pub fn text(path: &Path) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Usage(format!("path {} is not UTF-8", path.display())))
}

/// Whoever asks for a terminal and does not stay has to say where its master goes.
///
/// # Errors
/// If terminal and socket do not go together.
pub fn check_terminal(terminal: bool, detach: bool, callers: &Callers) -> Result<(), Error> {
    let socket = callers.console_socket.is_some();
    if detach && terminal && !socket {
        return Err(Error::Usage(
            "cannot allocate tty if the runtime will detach without setting console socket; \
             give --console-socket"
                .to_owned(),
        ));
    }
    if socket && !(detach && terminal) {
        return Err(Error::Usage(
            "cannot use console socket if the runtime will not detach or allocate tty; \
             --console-socket needs a terminal and, for run and exec, --detach"
                .to_owned(),
        ));
    }
    Ok(())
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

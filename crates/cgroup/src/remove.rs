//! Removal of a group and of all groups below it.

use crate::error::Error;
use crate::group::{Group, absolute};
use crate::hierarchy::Hierarchy;
use crate::sys::{self, Entries};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a group whose processes are just dying is waited for.
const REMOVE_TIMEOUT_MS: u64 = 2_000;

impl Group {
    /// Removes the group and those below it from every hierarchy; its parents stay. Processes
    /// must be dead by then (see [`Group::kill`]): it waits up to two seconds for the kernel to
    /// let go of them. A group that does not exist is fine.
    ///
    /// # Errors
    /// If something still runs in the group, or the kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        let start = Instant::now();
        let mut pause = Duration::from_micros(50);
        let mut pending: Vec<&Hierarchy> = self.hierarchies.list.iter().collect();
        loop {
            let mut busy = Vec::new();
            let mut last = None;
            for hierarchy in pending {
                match self.remove_from(hierarchy) {
                    Ok(()) => {}
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        busy.push(hierarchy);
                        last = Some(error);
                    }
                    Err(_) if hierarchy.only_tracks() => {}
                    Err(error) => return Err(self.remove_error(hierarchy, error)),
                }
            }
            let (Some(error), Some(hierarchy)) = (last, busy.first()) else {
                return Ok(());
            };
            if sys::elapsed_ms(start) >= REMOVE_TIMEOUT_MS {
                return Err(self.remove_error(hierarchy, error));
            }
            pending = busy;
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn remove_error(&self, hierarchy: &Hierarchy, error: io::Error) -> Error {
        let hint = match error.raw_os_error() {
            Some(libc::EBUSY) => "processes are still in it; kill them first",
            _ => "",
        };
        Error::system(
            "remove control group",
            absolute(hierarchy, &self.relative),
            error,
        )
        .with_hint(hint)
    }

    fn remove_from(&self, hierarchy: &Hierarchy) -> io::Result<()> {
        let path = sys::join(&self.relative, "")?;
        let root = hierarchy.directory.as_fd();
        match gone(sys::remove_directory(root, &path)) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let directory = sys::open_at(root, &path, libc::O_PATH | libc::O_DIRECTORY)?;
                remove_children(directory)?;
                gone(sys::remove_directory(root, &path))
            }
            result => result,
        }
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Removes all groups below a directory. A container may have nested them deeper than a path can
/// name and a stack can recurse: one descriptor walks down, and up again by `..`.
fn remove_children(top: OwnedFd) -> io::Result<()> {
    let open = |base: &OwnedFd, name: &CString| {
        sys::open_at(base.as_fd(), name, libc::O_PATH | libc::O_DIRECTORY)
    };
    let parent = c"..".to_owned();
    let mut names: Vec<CString> = Vec::new();
    let mut here = top;
    loop {
        let mut below = None;
        for child in sys::list(here.as_fd(), c".", Entries::Directories)? {
            match gone(sys::remove_directory(here.as_fd(), &child)) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    below = Some(child);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(child) = below {
            here = open(&here, &child)?;
            names.push(child);
            continue;
        }
        let Some(name) = names.pop() else {
            return Ok(());
        };
        here = open(&here, &parent)?;
        // Busy without children: processes. The caller waits and comes again.
        gone(sys::remove_directory(here.as_fd(), &name))?;
    }
}

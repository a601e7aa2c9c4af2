//! Freezing, thawing and killing all processes of a group.

use crate::controller::Controller;
use crate::error::Error;
use crate::group::{Group, absolute, format_path};
use crate::hierarchy::Hierarchy;
use crate::sys;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long freezing may take: a task in an uninterruptible sleep holds it up.
const FREEZE_TIMEOUT_MS: u64 = 10_000;
/// How long the signal loop goes on where there is no `cgroup.kill`.
const KILL_TIMEOUT_MS: u64 = 10_000;

enum Freezer<'a> {
    /// `cgroup.freeze`; frozen processes can still be killed.
    V2(&'a Hierarchy),
    /// `freezer.state`.
    V1(&'a Hierarchy),
}

impl Group {
    /// Freezes every process of the group and of those below it, and waits until they are.
    /// Uses v2's freezer where there is one (also on hybrid machines), else v1's.
    ///
    /// # Errors
    /// If there is no freezer, or not everything is frozen after ten seconds; then it is thawed
    /// again.
    pub fn freeze(&self) -> Result<(), Error> {
        let result = match self.freezer()? {
            Freezer::V2(hierarchy) => self
                .write(hierarchy, "cgroup.freeze", "1")
                .and_then(|()| self.wait_frozen_v2(hierarchy, true)),
            Freezer::V1(hierarchy) => self.freeze_v1(hierarchy),
        };
        if result.is_err() {
            // The freeze failed; that is the error to tell.
            let _ = self.thaw();
        }
        result
    }

    /// Lets every process of the group run again, in whichever freezer it was frozen.
    ///
    /// # Errors
    /// If the group does not exist or the kernel refuses.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.freezer()? {
            Freezer::V2(hierarchy) => {
                self.write(hierarchy, "cgroup.freeze", "0")?;
                self.thaw_foreign()
            }
            Freezer::V1(hierarchy) => self.write(hierarchy, "freezer.state", "THAWED"),
        }
    }

    /// Whether the group is frozen or on the way to it.
    ///
    /// # Errors
    /// If there is no freezer or its state cannot be read.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let (hierarchy, file) = match self.freezer()? {
            Freezer::V2(hierarchy) => (hierarchy, "cgroup.freeze"),
            Freezer::V1(hierarchy) => (hierarchy, "freezer.state"),
        };
        let text = match self.try_read(hierarchy, file) {
            Ok(text) => text,
            // It exists in other hierarchies only, where nothing freezes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(self.read_error(hierarchy, file, error)),
        };
        Ok(text.starts_with(b"1") || text.starts_with(b"FR") || self.is_frozen_by_others())
    }

    /// On hybrid machines somebody else may have used the v1 freezer.
    fn is_frozen_by_others(&self) -> bool {
        self.hierarchies
            .locate(Controller::Freezer)
            .and_then(|hierarchy| self.try_read(hierarchy, "freezer.state").ok())
            .is_some_and(|state| state.starts_with(b"FR"))
    }

    fn freezer(&self) -> Result<Freezer<'_>, Error> {
        if let Some(hierarchy) = self.hierarchies.v2() {
            let there = sys::join(&self.relative, "cgroup.freeze")
                .is_ok_and(|path| sys::exists(hierarchy.directory.as_fd(), &path));
            if there {
                return Ok(Freezer::V2(hierarchy));
            }
        }
        self.hierarchies
            .locate(Controller::Freezer)
            .map(Freezer::V1)
            .ok_or_else(|| {
                Error::invalid(
                    "freeze or thaw control group",
                    self.path(),
                    "the group does not exist, or the machine has no freezer (Linux 5.2 or the v1 freezer is needed)",
                )
            })
    }

    fn wait_frozen_v2(&self, hierarchy: &Hierarchy, frozen: bool) -> Result<(), Error> {
        let start = Instant::now();
        let file = "cgroup.events";
        let failed = |source| self.read_error(hierarchy, file, source);
        let path = sys::join(&self.relative, file).map_err(failed)?;
        let events =
            sys::open_at(hierarchy.directory.as_fd(), &path, libc::O_RDONLY).map_err(failed)?;
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        loop {
            // SAFETY: an open descriptor; lseek touches no memory.
            if unsafe { libc::lseek(events.as_raw_fd(), 0, libc::SEEK_SET) } < 0 {
                return Err(failed(io::Error::last_os_error()));
            }
            let text = sys::read_all(events.as_fd()).map_err(failed)?;
            let reached = String::from_utf8_lossy(&text)
                .lines()
                .any(|line| line == wanted);
            if reached {
                return Ok(());
            }
            let elapsed_ms = sys::elapsed_ms(start);
            if elapsed_ms >= FREEZE_TIMEOUT_MS {
                return Err(self.timed_out(hierarchy));
            }
            sys::wait_for_change(events.as_fd(), FREEZE_TIMEOUT_MS - elapsed_ms);
        }
    }

    fn freeze_v1(&self, hierarchy: &Hierarchy) -> Result<(), Error> {
        let start = Instant::now();
        let file = "freezer.state";
        let mut pause = Duration::from_micros(20);
        loop {
            // Written each time: a task that was forked meanwhile may have escaped.
            self.write(hierarchy, file, "FROZEN")?;
            let state = self
                .try_read(hierarchy, file)
                .map_err(|source| self.read_error(hierarchy, file, source))?;
            if state.starts_with(b"FROZEN") {
                return Ok(());
            }
            if sys::elapsed_ms(start) >= FREEZE_TIMEOUT_MS {
                return Err(self.timed_out(hierarchy));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn timed_out(&self, hierarchy: &Hierarchy) -> Error {
        Error::system(
            "freeze",
            absolute(hierarchy, &self.relative),
            io::Error::from_raw_os_error(libc::ETIMEDOUT),
        )
        .with_hint("a process is in an uninterruptible system call; it was thawed again")
    }

    fn read_error(&self, hierarchy: &Hierarchy, file: &str, source: io::Error) -> Error {
        let path = format_path(&absolute(hierarchy, &self.relative), file);
        Error::system("read", path, source)
    }

    /// On hybrid machines somebody else may have used the v1 freezer, in which nothing dies.
    fn thaw_foreign(&self) -> Result<(), Error> {
        let Some(hierarchy) = self.hierarchies.locate(Controller::Freezer) else {
            return Ok(());
        };
        match self.try_read(hierarchy, "freezer.state") {
            Ok(state) if state.starts_with(b"FR") => {
                self.write(hierarchy, "freezer.state", "THAWED")
            }
            _ => Ok(()),
        }
    }

    /// Sends SIGKILL to every process of the group and of those below it, and sees to it that
    /// none escapes by forking. Does not wait until they are gone. A group that does not exist
    /// has nothing to kill.
    ///
    /// # Errors
    /// If the kernel refuses, or on machines without `cgroup.kill` (before Linux 5.14) processes
    /// are still there after ten seconds.
    pub fn kill(&self) -> Result<(), Error> {
        if let Some(hierarchy) = self.hierarchies.v2() {
            match self.try_write(hierarchy, "cgroup.kill", "1") {
                Ok(()) => return self.thaw_foreign(),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => {
                    return Err(self.write_error(hierarchy, "cgroup.kill", "1", error));
                }
            }
        }
        self.kill_by_signal()
    }

    fn kill_by_signal(&self) -> Result<(), Error> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            // Frozen, no process can fork while the list is read and gone through, and no
            // process id can be used again. Without a freezer the loop has to be enough.
            let frozen = self.exists() && self.freeze().is_ok();
            let processes = self.processes()?;
            for pid in &processes {
                if let Ok(pid) = libc::pid_t::try_from(*pid) {
                    // SAFETY: kill(2) touches no memory. A process that is gone already is fine.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
            if frozen {
                self.thaw()?;
            }
            if processes.is_empty() {
                return Ok(());
            }
            if sys::elapsed_ms(start) >= KILL_TIMEOUT_MS {
                return Err(Error::system(
                    "kill all processes of",
                    self.path(),
                    io::Error::from_raw_os_error(libc::ETIMEDOUT),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

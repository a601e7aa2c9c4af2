//! Living inside a subtree that somebody else has delegated: an engine in a container.

use crate::controller::ControllerSet;
use crate::error::Error;
use crate::group::{self, Group};
use crate::hierarchy::{Hierarchies, Mode};
use crate::sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The group below a delegated root that takes the processes found in the root itself.
const LEAF: &str = "init";

/// How often the root is looked at again: processes may be forking while they are moved.
const MAX_ROUNDS: u32 = 64;

impl Hierarchies {
    /// Moves the processes out of the root of a delegated v2 hierarchy into the group `init` below
    /// it, and enables the controllers for the groups beside that one: only a group without
    /// processes may share its controllers out (cgroup-v2.rst, "No Internal Process Constraint").
    ///
    /// The machine's own root is exempt from the rule and left as it is, as is a root whose
    /// controllers are enabled already, and every hierarchy but a pure v2 one. Answers whether
    /// anything was moved.
    ///
    /// # Errors
    /// If the group cannot be made or a process cannot be moved: this part of the hierarchy is
    /// then not the caller's to divide.
    pub fn vacate_root(&self) -> Result<bool, Error> {
        let Some(hierarchy) = self.v2().filter(|_| self.mode() == Mode::V2) else {
            return Ok(false);
        };
        let root = hierarchy.directory.as_fd();
        let failed = |source| {
            Error::system("move the processes out of", &*hierarchy.root, source).with_hint(
                "this control group holds processes, so it cannot be divided; have it delegated writable, or empty it",
            )
        };
        let enabled = sys::read_file(root, c"cgroup.subtree_control")
            .map(|text| ControllerSet::parse_v2(&text))
            .unwrap_or_default();
        if !sys::exists(root, c"cgroup.type") || enabled.contains_all(hierarchy.controllers) {
            return Ok(false);
        }
        let mut moved = false;
        for _ in 0..MAX_ROUNDS {
            let found = sys::read_file(root, c"cgroup.procs").map_err(failed)?;
            let found = String::from_utf8_lossy(&found);
            if found.trim().is_empty() {
                // At once, which also keeps others from coming in: the kernel refuses them now.
                group::enable(hierarchy, "", hierarchy.controllers);
                let late = sys::read_file(root, c"cgroup.procs").map_err(failed)?;
                if late.is_empty() {
                    return Ok(moved);
                }
                continue;
            }
            if !moved {
                let leaf = sys::join(LEAF, "").map_err(failed)?;
                match sys::make_directory(root, &leaf) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(failed(error));
                    }
                    _ => moved = true,
                }
            }
            let procs = sys::join(LEAF, "cgroup.procs").map_err(failed)?;
            for pid in found.lines() {
                match sys::write_file(root, &procs, pid.as_bytes()) {
                    // It has just ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    written => written.map_err(failed)?,
                }
            }
        }
        Err(failed(io::Error::from_raw_os_error(libc::EBUSY)))
    }
}

impl Group {
    /// Directory, in the v2 hierarchy, of the group that process `pid` is in, provided that is
    /// this one or one below it. A container that divides its own group (systemd, a nested engine)
    /// leaves no other place to join.
    ///
    /// `None` without a v2 hierarchy, and for a process that is elsewhere.
    #[must_use]
    pub fn directory_v2_of(&self, pid: u32) -> Option<OwnedFd> {
        let hierarchy = self.hierarchies.v2()?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let below = path.strip_prefix(self.relative.as_str())?;
        if !below.is_empty() && !below.starts_with('/') || below.contains("/..") {
            return None;
        }
        sys::open_at(
            hierarchy.directory.as_fd(),
            &sys::join(path, "").ok()?,
            libc::O_RDONLY | libc::O_DIRECTORY,
        )
        .ok()
    }

    /// As [`Group::enter`], but in the v2 hierarchy the group that process `pid` is in, as
    /// [`Group::directory_v2_of`] finds it.
    ///
    /// # Errors
    /// If that process is not in this group, or as [`Group::enter`].
    pub fn enter_beside(&self, pid: u32) -> Result<(), Error> {
        let failed = |source| Error::system("enter the control group of", pid.to_string(), source);
        let directory = self
            .directory_v2_of(pid)
            .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ESRCH)))?;
        sys::write_file(directory.as_fd(), c"cgroup.procs", b"0").map_err(failed)?;
        self.enter(true)
    }
}

//! Delegation of a group to a user (cgroups(7), "Cgroup delegation: delegation by changing file
//! ownership").

use crate::error::Error;
use crate::group::{Group, absolute};
use crate::sys;
use std::io;
use std::os::fd::AsFd;

/// Where the kernel lists the files that go to the new owner (since Linux 4.15).
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// What is handed over where there is no list.
const DEFAULT_FILES: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";

impl Group {
    /// Gives the group to a user on cgroup v2: its directory and the files by which groups below
    /// it are made and filled. Limits stay with the engine. On v1 nothing changes hands, since
    /// there the new owner could lift them.
    ///
    /// # Errors
    /// If the owner cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<(), Error> {
        let Some(hierarchy) = self.hierarchies.v2() else {
            return Ok(());
        };
        if hierarchy.controllers.is_empty() && self.hierarchies.list.len() > 1 {
            // A hybrid machine: the groups of v2 limit nothing, and the container sees v1.
            return Ok(());
        }
        let root = hierarchy.directory.as_fd();
        let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| DEFAULT_FILES.to_owned());
        let change = |name: &str| -> io::Result<()> {
            let path = sys::join(&self.relative, name)?;
            match sys::change_owner(root, &path, uid) {
                // The list names files of controllers that are not enabled here.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
                other => other,
            }
        };
        let names = list.lines().map(str::trim);
        let plain = names.filter(|name| !name.is_empty() && !name.contains('/'));
        plain.chain([""]).try_for_each(change).map_err(|error| {
            Error::system(
                "delegate control group",
                absolute(hierarchy, &self.relative),
                error,
            )
            .with_value(uid.to_string())
        })
    }
}

//! The part of the hierarchy that an ordinary user may divide up.
//!
//! cgroup v2 hands a group over by making its directory, `cgroup.procs` and
//! `cgroup.subtree_control` writable (Documentation/admin-guide/cgroup-v2.rst, "Delegation");
//! systemd does so for `user@UID.service` and for units with `Delegate=yes`. Processes can be
//! moved within that part only, so that it has to hold the caller as well.

use crate::error::Error;
use crate::group::Group;
use crate::hierarchy::{Hierarchies, Mode};
use std::ffi::CString;
use std::fs;
use std::path::Path;

/// Where the caller goes if it lives in the very group that is delegated: a group with processes
/// of its own cannot hand controllers to those below.
const OWN_LEAF: &str = "gamut-daemon";

/// A part of the hierarchy that is this user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// Path of its topmost group below the root of the hierarchy.
    pub path: String,
    /// Controllers that groups in it can have, as `memory`.
    pub controllers: Vec<String>,
}

/// Finds the topmost group that holds this process and is delegated to it, and makes sure that
/// groups can be made in it.
///
/// # Errors
/// Why there is none, and what to do about it, as a sentence for users.
pub fn delegated() -> Result<Delegated, String> {
    const HOW: &str =
        "start it in a delegated group: systemd-run --user --scope -p Delegate=yes gamut daemon";
    let hierarchies = Hierarchies::detect().map_err(|error| error.to_string())?;
    let root = match (hierarchies.mode(), hierarchies.roots().as_slice()) {
        (Mode::V2, [root]) => root.path.clone(),
        _ => {
            return Err(
                "control groups of version 1 cannot be delegated to ordinary users; boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1)"
                    .to_owned(),
            );
        }
    };
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own_path(&text).ok_or("/proc/self/cgroup names no group of version 2")?;
    let parent = topmost(own, |path| is_writable(&root, path))
        .ok_or_else(|| format!("the control group {own} is not delegated to this user; {HOW}"))?;
    if parent == own {
        leave(&hierarchies, own).map_err(|error| {
            format!("the daemon cannot make room in its control group: {error}; {HOW}")
        })?;
    }
    let can = fs::read_to_string(format!("{root}{parent}/cgroup.controllers")).unwrap_or_default();
    let controllers: Vec<String> = can.split_whitespace().map(str::to_owned).collect();
    if !controllers.iter().any(|name| name == "memory") {
        return Err(format!(
            "no controllers are delegated in the control group {parent} (there are: {}); {HOW}",
            if can.trim().is_empty() {
                "none"
            } else {
                can.trim()
            }
        ));
    }
    Ok(Delegated {
        path: parent.to_owned(),
        controllers,
    })
}

/// The path of the v2 group in the text of `/proc/PID/cgroup`.
fn own_path(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .filter(|path| path.starts_with('/') && !path.ends_with(" (deleted)"))
}

/// The topmost of a path and its parents that, with all between it and the path, passes.
fn topmost(path: &str, passes: impl Fn(&str) -> bool) -> Option<&str> {
    let mut found = None;
    let mut current = path;
    while passes(current) {
        found = Some(current);
        match current.rsplit_once('/') {
            Some(("", _)) if current != "/" => current = "/",
            Some((parent, _)) if !parent.is_empty() => current = parent,
            _ => break,
        }
    }
    found
}

fn is_writable(root: &str, path: &str) -> bool {
    let directory = format!("{root}{path}");
    ["", "cgroup.procs", "cgroup.subtree_control"]
        .into_iter()
        .all(|name| {
            let path = Path::new(&directory).join(name);
            CString::new(path.to_string_lossy().as_bytes()).is_ok_and(|path| {
                // SAFETY: a C string that outlives the call.
                unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
            })
        })
}

/// Moves this process one group down.
fn leave(hierarchies: &Hierarchies, own: &str) -> Result<(), Error> {
    let leaf = format!("{}/{OWN_LEAF}", own.trim_end_matches('/'));
    let group = Group::at(hierarchies, &leaf)?;
    group.create()?;
    group.add_process(0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_delegated_group_is_found() {
        let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope";
        let delegated = "/user.slice/user-1000.slice/user@1000.service";
        let found = topmost(own, |path| path.starts_with(delegated));
        assert_eq!(found, Some(delegated));
        assert_eq!(topmost(own, |path| path == own), Some(own));
        assert_eq!(topmost(own, |_| true), Some("/"));
        // A gap: the caller could not be moved across it.
        assert_eq!(topmost(own, |path| path == delegated), None);
        assert_eq!(topmost("/", |_| true), Some("/"));
    }

    #[test]
    fn the_own_group_is_found() {
        assert_eq!(
            own_path("12:pids:/a\n0::/user.slice/x\n"),
            Some("/user.slice/x")
        );
        assert_eq!(own_path("0::/x (deleted)\n"), None);
        assert_eq!(own_path("12:pids:/a\n"), None);
    }
}

//! One control group, in every hierarchy.

use crate::controller::{Controller, ControllerSet};
use crate::error::Error;
use crate::hierarchy::{Hierarchies, Hierarchy, Mode};
use crate::sys::{self, Entries};
use crate::systemd::Unit;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// How often the parents of a group are made when others remove them meanwhile. Each turn lost
/// means that another removal won, so that this many in a row is no coincidence.
const MAKE_ATTEMPTS: u32 = 100;

/// One control group: the same path below the root of every hierarchy.
#[derive(Debug, Clone)]
pub struct Group {
    pub(crate) hierarchies: Hierarchies,
    /// Path relative to the roots, without a leading slash.
    pub(crate) relative: String,
    /// The scope of systemd that it belongs to.
    pub(crate) unit: Option<Arc<Unit>>,
}

impl Group {
    /// Names a group; nothing is made or looked at yet.
    ///
    /// # Errors
    /// If `path` is not absolute, is the root itself, or has an empty, `.`, `..`, overlong or
    /// reserved component.
    pub fn at(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        let relative = validate(path)?;
        Ok(Self {
            hierarchies: hierarchies.clone(),
            relative: relative.to_owned(),
            unit: None,
        })
    }

    /// As [`Group::at`], for a group that systemd makes: the path is that of a scope in a slice
    /// (see [`crate::systemd_path`]). [`Group::create`] has systemd start the scope, and
    /// [`Group::remove`] has it stop it; limits are told to systemd too, so that it does not undo
    /// them. Needs cgroup v2 alone, a systemd and root.
    ///
    /// # Errors
    /// As [`Group::at`]; if the path is not that of a scope; on machines with cgroup v1.
    pub fn at_systemd(hierarchies: &Hierarchies, path: &str) -> Result<Self, Error> {
        let mut group = Self::at(hierarchies, path)?;
        if hierarchies.mode() != Mode::V2 {
            return Err(Error::invalid(
                "have systemd make control group",
                path,
                "that is supported on cgroup v2 alone; use a path such as /gamut/NAME",
            ));
        }
        group.unit = Some(Arc::new(Unit::of_path(path)?));
        Ok(group)
    }

    /// Its path as it was given.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::with_capacity(self.relative.len() + 1);
        path.push('/');
        path.push_str(&self.relative);
        path
    }

    /// Makes the group in every hierarchy, with its parents. A group that exists is taken over as
    /// it is. On v2 the controllers of the model are enabled on the way down; on v1 the processors
    /// and memory nodes of a new cpuset are copied from its parent.
    ///
    /// # Errors
    /// If a directory cannot be made; what this call has made by then is removed again.
    pub fn create(&self) -> Result<(), Error> {
        let Some(unit) = &self.unit else {
            return self.create_here();
        };
        unit.start()?;
        self.create_here().inspect_err(|_| {
            // Best effort: the error that led here is the one worth telling.
            let _ = unit.stop();
        })
    }

    fn create_here(&self) -> Result<(), Error> {
        let mut made: Vec<(&Hierarchy, String)> = Vec::new();
        let result = self
            .hierarchies
            .list
            .iter()
            .try_for_each(|hierarchy| self.create_in(hierarchy, &mut made));
        if result.is_err() {
            for (hierarchy, relative) in made.iter().rev() {
                if let Ok(path) = sys::join(relative, "") {
                    // Best effort: the error that led here is the one worth telling.
                    let _ = sys::remove_directory(hierarchy.directory.as_fd(), &path);
                }
            }
        }
        result
    }

    fn create_in<'a>(
        &self,
        hierarchy: &'a Hierarchy,
        made: &mut Vec<(&'a Hierarchy, String)>,
    ) -> Result<(), Error> {
        let here = self.make_with_parents(hierarchy, made);
        if hierarchy.only_tracks() {
            return Ok(());
        }
        here?;
        if hierarchy.v2 {
            if self.hierarchies.mode() == Mode::V2 {
                self.enable_controllers(hierarchy);
            }
            Ok(())
        } else if hierarchy.controllers.contains(Controller::Cpuset) {
            fill_cpuset(hierarchy, &self.relative)
        } else {
            Ok(())
        }
    }

    /// Makes the directory and its parents. Whoever removes a sibling may tidy up the parent that
    /// is empty for a moment, between our making it and our making the child, so that this starts
    /// again a bounded number of times.
    fn make_with_parents<'a>(
        &self,
        hierarchy: &'a Hierarchy,
        made: &mut Vec<(&'a Hierarchy, String)>,
    ) -> Result<(), Error> {
        for _ in 0..MAKE_ATTEMPTS {
            // The usual case costs one mkdir: the parents are there from the group before.
            if make(hierarchy, &self.relative, made)? != Made::NoParent {
                return Ok(());
            }
            for (at, _) in self.relative.match_indices('/') {
                let parent = &self.relative[..at];
                match make(hierarchy, parent, made)? {
                    Made::New => prepare(hierarchy, parent),
                    Made::Existed => {}
                    Made::NoParent => break,
                }
            }
        }
        Err(Error::system(
            "make control group",
            absolute(hierarchy, &self.relative),
            io::Error::from_raw_os_error(libc::ENOENT),
        )
        .with_hint(
            "a parent group was removed each time that it was made; see what else manages these groups",
        ))
    }

    /// Enables the controllers of the hierarchy from its root down to the group's parent. One
    /// that cannot be enabled shows when a limit is set: its file is missing then.
    pub(crate) fn enable_controllers(&self, hierarchy: &Hierarchy) {
        let wanted = hierarchy.controllers;
        if wanted.is_empty() || enabled(hierarchy, &self.relative).contains_all(wanted) {
            return;
        }
        enable(hierarchy, "", wanted);
        for (at, _) in self.relative.match_indices('/') {
            enable(hierarchy, &self.relative[..at], wanted);
        }
    }

    /// Whether the group exists in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.hierarchies
            .list
            .iter()
            .any(|hierarchy| self.exists_in(hierarchy))
    }

    pub(crate) fn exists_in(&self, hierarchy: &Hierarchy) -> bool {
        sys::join(&self.relative, "")
            .is_ok_and(|path| sys::exists(hierarchy.directory.as_fd(), &path))
    }

    /// Moves a process, all its threads, into the group in every hierarchy. 0 is the caller.
    ///
    /// On v1 this waits for a grace period of the kernel, 5 to 15 ms, unless another process was
    /// moved just before. [`Group::enter`] does not.
    ///
    /// # Errors
    /// If the process is gone, or the kernel refuses; it may have been moved in part by then.
    pub fn add_process(&self, pid: u32) -> Result<(), Error> {
        let pid = pid.to_string();
        for hierarchy in self.hierarchies.list.iter() {
            self.place(hierarchy, "cgroup.procs", &pid)?;
        }
        self.note_occupied();
        Ok(())
    }

    /// Puts a process there by one of the group's files.
    fn place(&self, hierarchy: &Hierarchy, file: &str, pid: &str) -> Result<(), Error> {
        match self.write(hierarchy, file, pid) {
            Err(_) if hierarchy.only_tracks() => Ok(()),
            result => result,
        }
    }

    /// Says that a process is in the group which came there by itself ([`Group::enter`]) or was
    /// cloned into it: what has kept its place in a scope of systemd until then ends.
    pub fn note_occupied(&self) {
        if let Some(unit) = &self.unit {
            unit.release_placeholder();
        }
    }

    /// Moves the caller, a process of a single thread, into the group in every hierarchy; with
    /// `in_v2_already`, which is for one that was cloned straight into the v2 group with
    /// CLONE_INTO_CGROUP, in those of v1 only.
    ///
    /// A thread that moves itself by v1's `tasks` takes no lock against the forks and exits of
    /// all the machine (Linux kernel/cgroup/cgroup.c, `cgroup_procs_write_start`).
    ///
    /// # Errors
    /// If the kernel refuses; the caller may have been moved in part by then.
    pub fn enter(&self, in_v2_already: bool) -> Result<(), Error> {
        for hierarchy in self.hierarchies.list.iter() {
            match hierarchy.v2 {
                true if in_v2_already => {}
                true => self.place(hierarchy, "cgroup.procs", "0")?,
                false => self.place(hierarchy, "tasks", "0")?,
            }
        }
        Ok(())
    }

    /// As [`Group::add_process`], but only in the hierarchies that hold one of `controllers`, or
    /// only in the others if `others` is true.
    ///
    /// # Errors
    /// As [`Group::add_process`].
    pub fn add_process_by_controller(
        &self,
        pid: u32,
        controllers: &[Controller],
        others: bool,
    ) -> Result<(), Error> {
        let pid = pid.to_string();
        let chosen = |hierarchy: &&Hierarchy| {
            let named = controllers
                .iter()
                .any(|controller| hierarchy.controllers.contains(*controller));
            named != others
        };
        for hierarchy in self.hierarchies.list.iter().filter(chosen) {
            self.place(hierarchy, "cgroup.procs", &pid)?;
        }
        self.note_occupied();
        Ok(())
    }

    /// The group's directory in the v2 hierarchy, for CLONE_INTO_CGROUP; `None` if there is no
    /// v2 hierarchy or the group does not exist there.
    #[must_use]
    pub fn directory_v2(&self) -> Option<OwnedFd> {
        let hierarchy = self.hierarchies.v2()?;
        let path = sys::join(&self.relative, "").ok()?;
        sys::open_at(
            hierarchy.directory.as_fd(),
            &path,
            libc::O_RDONLY | libc::O_DIRECTORY,
        )
        .ok()
    }

    /// Process ids of the group and of all groups below it, sorted, each once. Empty if the
    /// group does not exist.
    ///
    /// # Errors
    /// If a list cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>, Error> {
        let Some(hierarchy) = self.main_hierarchy() else {
            return Ok(Vec::new());
        };
        let mut pids = Vec::new();
        let mut pending = vec![self.relative.clone()];
        while let Some(relative) = pending.pop() {
            let text = match read(hierarchy, &relative, "cgroup.procs") {
                Ok(text) => text,
                Err(error) if passing(&error) => Vec::new(),
                Err(error) => {
                    return Err(Error::system(
                        "read the processes of",
                        absolute(hierarchy, &relative),
                        error,
                    ));
                }
            };
            pids.extend(
                text.split(|byte| *byte == b'\n')
                    .filter_map(|line| std::str::from_utf8(line).ok()?.parse::<u32>().ok()),
            );
            for child in children(hierarchy, &relative)? {
                let mut path = relative.clone();
                path.push('/');
                path.push_str(&child);
                pending.push(path);
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The hierarchy that is asked who is in the group: v2 if there is one, else the first.
    pub(crate) fn main_hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchies
            .v2()
            .filter(|hierarchy| self.exists_in(hierarchy))
            .or_else(|| self.hierarchies.list.first())
    }

    pub(crate) fn write(
        &self,
        hierarchy: &Hierarchy,
        file: &str,
        value: &str,
    ) -> Result<(), Error> {
        self.try_write(hierarchy, file, value)
            .map_err(|source| self.write_error(hierarchy, file, value, source))
    }

    pub(crate) fn write_error(
        &self,
        hierarchy: &Hierarchy,
        file: &str,
        value: &str,
        source: io::Error,
    ) -> Error {
        let hint = hint(file, source.raw_os_error().unwrap_or(0));
        let path = format_path(&absolute(hierarchy, &self.relative), file);
        Error::system("write", path, source)
            .with_value(value)
            .with_hint(hint)
    }

    pub(crate) fn try_write(
        &self,
        hierarchy: &Hierarchy,
        file: &str,
        value: &str,
    ) -> io::Result<()> {
        let path = sys::join(&self.relative, file)?;
        sys::write_file(hierarchy.directory.as_fd(), &path, value.as_bytes())
    }

    pub(crate) fn try_read(&self, hierarchy: &Hierarchy, file: &str) -> io::Result<Vec<u8>> {
        read(hierarchy, &self.relative, file)
    }
}

/// Names of the groups directly below `parent_path`, over all hierarchies, sorted, each once.
/// Empty if the parent does not exist.
///
/// # Errors
/// If `parent_path` is invalid (see [`Group::at`]) or a directory cannot be read.
pub fn list_children(hierarchies: &Hierarchies, parent_path: &str) -> Result<Vec<String>, Error> {
    let relative = validate(parent_path)?;
    let mut names = Vec::new();
    for hierarchy in hierarchies.list.iter() {
        names.extend(children(hierarchy, relative)?);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn validate(path: &str) -> Result<&str, Error> {
    let refuse = |hint| Err(Error::invalid("use control group path", path, hint));
    let Some(relative) = path.strip_prefix('/') else {
        return refuse("it must begin with a slash");
    };
    if relative.is_empty() {
        return refuse("the root group cannot be used for a container; add a name");
    }
    if relative.len() > 2048 {
        return refuse("it is longer than 2048 bytes");
    }
    for component in relative.split('/') {
        if component.is_empty() || component == "." || component == ".." {
            return refuse("it must not have empty, \".\" or \"..\" components");
        }
        if component.len() > 255 || component.bytes().any(|byte| byte < b' ') {
            return refuse("a component is longer than 255 bytes or has control characters");
        }
        if component.starts_with("cgroup.") {
            return refuse("names that begin with \"cgroup.\" belong to the kernel");
        }
    }
    Ok(relative)
}

#[derive(PartialEq, Eq)]
enum Made {
    New,
    Existed,
    NoParent,
}

fn make<'a>(
    hierarchy: &'a Hierarchy,
    relative: &str,
    made: &mut Vec<(&'a Hierarchy, String)>,
) -> Result<Made, Error> {
    let result = sys::join(relative, "")
        .and_then(|path| sys::make_directory(hierarchy.directory.as_fd(), &path));
    match result {
        Ok(()) => {
            made.push((hierarchy, relative.to_owned()));
            Ok(Made::New)
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::EEXIST) => Ok(Made::Existed),
            // ENODEV: the parent was found, and is being removed at this moment.
            Some(libc::ENOENT | libc::ENODEV) => Ok(Made::NoParent),
            code => {
                let hint = match code {
                    Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                        "run as root, or have this part of the hierarchy delegated to you"
                    }
                    Some(libc::EAGAIN) => {
                        "the parent's cgroup.max.depth or .descendants is reached"
                    }
                    _ => "",
                };
                Err(
                    Error::system("make control group", absolute(hierarchy, relative), error)
                        .with_hint(hint),
                )
            }
        },
    }
}

/// Sets up a new parent group so that the groups below it cost less: the kernel then copies the
/// processors and nodes of a cpuset by itself.
fn prepare(hierarchy: &Hierarchy, relative: &str) {
    if !hierarchy.v2 && hierarchy.controllers.contains(Controller::Cpuset) {
        // Failure shows when the child is found without processors.
        let _ = fill_cpuset(hierarchy, relative);
        if let Ok(path) = sys::join(relative, "cgroup.clone_children") {
            let _ = sys::write_file(hierarchy.directory.as_fd(), &path, b"1");
        }
    }
}

/// Copies processors and nodes from the parents, topmost first, wherever they are empty.
fn fill_cpuset(hierarchy: &Hierarchy, relative: &str) -> Result<(), Error> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut parent = "";
        let ends = relative.match_indices('/').map(|(at, _)| at);
        if !is_blank(hierarchy, relative, file) {
            continue;
        }
        for end in ends.chain([relative.len()]) {
            let child = &relative[..end];
            if is_blank(hierarchy, child, file) {
                let failed = |source| {
                    Error::system(
                        "set up",
                        format_path(&absolute(hierarchy, child), file),
                        source,
                    )
                };
                let value = read(hierarchy, parent, file).map_err(failed)?;
                let path = sys::join(child, file).map_err(failed)?;
                sys::write_file(hierarchy.directory.as_fd(), &path, &value).map_err(failed)?;
            }
            parent = child;
        }
    }
    Ok(())
}

fn is_blank(hierarchy: &Hierarchy, relative: &str, file: &str) -> bool {
    read(hierarchy, relative, file).is_ok_and(|text| text.iter().all(u8::is_ascii_whitespace))
}

fn enabled(hierarchy: &Hierarchy, relative: &str) -> ControllerSet {
    read(hierarchy, relative, "cgroup.controllers")
        .map(|text| ControllerSet::parse_v2(&text))
        .unwrap_or_default()
}

pub(crate) fn enable(hierarchy: &Hierarchy, relative: &str, wanted: ControllerSet) {
    let Ok(path) = sys::join(relative, "cgroup.subtree_control") else {
        return;
    };
    let words: Vec<String> = wanted
        .iter()
        .filter_map(Controller::name_v2)
        .map(|name| {
            let mut word = String::from("+");
            word.push_str(name);
            word
        })
        .collect();
    let directory = hierarchy.directory.as_fd();
    if sys::write_file(directory, &path, words.join(" ").as_bytes()).is_err() {
        // One controller that cannot be enabled makes the whole line fail.
        for word in words {
            let _ = sys::write_file(directory, &path, word.as_bytes());
        }
    }
}

pub(crate) fn read(hierarchy: &Hierarchy, relative: &str, file: &str) -> io::Result<Vec<u8>> {
    let path = sys::join(relative, file)?;
    sys::read_file(hierarchy.directory.as_fd(), &path)
}

fn children(hierarchy: &Hierarchy, relative: &str) -> Result<Vec<String>, Error> {
    let listed: io::Result<Vec<CString>> = sys::join(relative, "")
        .and_then(|path| sys::list(hierarchy.directory.as_fd(), &path, Entries::Directories));
    match listed {
        Ok(names) => Ok(names
            .into_iter()
            .filter_map(|name| name.into_string().ok())
            .collect()),
        Err(error) if passing(&error) => Ok(Vec::new()),
        Err(error) => Err(Error::system("list", absolute(hierarchy, relative), error)),
    }
}

/// Errors of a group that is just being removed, of a threaded group, or of a path that a
/// container has nested beyond what a path can say.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::ENAMETOOLONG)
    )
}

pub(crate) fn absolute(hierarchy: &Hierarchy, relative: &str) -> String {
    format_path(&hierarchy.root, relative)
}

pub(crate) fn format_path(directory: &str, name: &str) -> String {
    let mut path = String::with_capacity(directory.len() + name.len() + 1);
    path.push_str(directory);
    path.push('/');
    path.push_str(name);
    path
}

/// What a refusal of the kernel usually means.
fn hint(file: &str, errno: i32) -> &'static str {
    match (file, errno) {
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", libc::EBUSY) => {
            "more memory is in use than the new limit allows"
        }
        ("cgroup.procs", libc::ESRCH) => "the process is gone",
        ("cgroup.procs", libc::ENOSPC) => "the group's cpuset has no processor or memory node",
        ("cgroup.procs", libc::EBUSY) => {
            "on cgroup v2 only a group without enabled controllers below it can hold processes"
        }
        ("cgroup.procs", libc::EAGAIN) => "the group's task limit is reached",
        ("cpuset.cpus" | "cpuset.mems", libc::EINVAL | libc::EACCES | libc::ERANGE) => {
            "only processors and memory nodes that the machine and the parent group have can be used"
        }
        (_, libc::ENODEV) => "there is no such block device",
        ("devices.allow", libc::EPERM) => "the parent group does not allow the device",
        (_, libc::ENOENT) => "the kernel does not offer this file here",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_hierarchy_are_refused() {
        for path in [
            "",
            "a",
            "/",
            "/a/../b",
            "/a/./b",
            "//a",
            "/a//b",
            "/a/",
            "/..",
            "/a\nb",
            "/a/cgroup.procs",
        ] {
            assert!(validate(path).is_err(), "{path:?}");
        }
        assert_eq!(validate("/gamut/0123").ok(), Some("gamut/0123"));
        let error = validate("/a/../b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot use control group path /a/../b: it must not have empty, \".\" or \"..\" components"
        );
    }
}

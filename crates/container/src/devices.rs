//! Device nodes and the links that programs expect in /dev.

use crate::error::{Context, Error};
use crate::path::{self, Missing, RootDirectory};
use crate::sys::{self, Errno, SysResult};
use gamut_abi::plan::{DeviceNode, Plan};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Nodes every container gets (OCI runtime-spec, "Default Devices"), with their numbers.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links every container gets, as (target, name).
const DEFAULT_LINKS: [(&CStr, &CStr); 5] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"/proc/kcore", c"core"),
];

/// Device nodes of the host as detached mounts, for where mknod is forbidden: in the order of
/// the default nodes, then of the plan's.
pub(crate) struct HostDevices(Vec<Option<OwnedFd>>);

impl HostDevices {
    /// None at all: nodes are made.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Copies the mounts of the host's nodes. What is missing is an error only when it is needed.
    pub(crate) fn clone(plan: &Plan) -> Self {
        let mut devices = Self::none();
        devices.fill(plan);
        devices
    }

    /// Copies those that are not there yet.
    pub(crate) fn fill(&mut self, plan: &Plan) {
        let defaults = if plan.default_devices {
            DEFAULT_NODES.len()
        } else {
            0
        };
        self.0.resize_with(defaults + plan.devices.len(), || None);
        let (first, second) = self.0.split_at_mut(defaults);
        for (slot, (name, major, minor)) in first.iter_mut().zip(DEFAULT_NODES) {
            if slot.is_none() {
                *slot = host_device(&["/dev/", name].concat(), libc::S_IFCHR, major, minor);
            }
        }
        for (slot, node) in second.iter_mut().zip(&plan.devices) {
            if slot.is_none() {
                let format = format_of(node).unwrap_or(libc::S_IFCHR);
                *slot = host_device(&node.path, format, node.major, node.minor);
            }
        }
    }

    fn take(&mut self, index: usize) -> Option<OwnedFd> {
        self.0.get_mut(index).and_then(Option::take)
    }
}

fn host_device(path: &str, format: u32, major: u32, minor: u32) -> Option<OwnedFd> {
    let name = sys::c_string(path).ok()?;
    let mount = sys::clone_tree(sys::cwd(), &name, false).ok()?;
    let stat = sys::fstat(mount.as_fd()).ok()?;
    (stat.st_mode & libc::S_IFMT == format && stat.st_rdev == libc::makedev(major, minor))
        .then_some(mount)
}

fn format_of(node: &DeviceNode) -> Option<u32> {
    match node.kind {
        b'c' | b'u' => Some(libc::S_IFCHR),
        b'b' => Some(libc::S_IFBLK),
        b'p' => Some(libc::S_IFIFO),
        _ => None,
    }
}

/// Makes the default entries and the plan's nodes.
pub(crate) fn make(plan: &Plan, root: &RootDirectory, mut host: HostDevices) -> Result<(), Error> {
    let mut index = 0;
    if plan.default_devices {
        let (directory, _) = root.open_or_make("/dev", Missing::Directory)?;
        for (name, major, minor) in DEFAULT_NODES {
            let node = DeviceNode {
                path: ["/dev/", name].concat(),
                kind: b'c',
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            };
            place(root, &directory, name, &node, host.take(index))?;
            index += 1;
        }
        for (target, name) in DEFAULT_LINKS {
            match sys::symlink(target, directory.as_fd(), name) {
                Ok(()) | Err(Errno(libc::EEXIST)) => {}
                Err(errno) => {
                    return Err(Error::system(
                        &["link /dev/", &name.to_string_lossy()].concat(),
                        errno,
                    ));
                }
            }
        }
        link_ptmx(&directory).doing("link", "/dev/ptmx")?;
    }
    for node in &plan.devices {
        let cleaned = path::clean(&node.path)?;
        let (parent, name) = path::split(&cleaned);
        let (directory, _) = root.open_or_make(parent, Missing::Directory)?;
        place(root, &directory, name, node, host.take(index))?;
        index += 1;
    }
    Ok(())
}

/// `/dev/ptmx` must lead to the container's own devpts, whatever the image has there.
fn link_ptmx(directory: &OwnedFd) -> SysResult<()> {
    match sys::symlink(c"pts/ptmx", directory.as_fd(), c"ptmx") {
        Err(Errno(libc::EEXIST)) => {}
        other => return other,
    }
    match sys::readlink(directory.as_fd(), c"ptmx") {
        Ok(target) if target == b"pts/ptmx" => return Ok(()),
        _ => {}
    }
    sys::unlink(directory.as_fd(), c"ptmx")?;
    sys::symlink(c"pts/ptmx", directory.as_fd(), c"ptmx")
}

fn place(
    root: &RootDirectory,
    directory: &OwnedFd,
    name: &str,
    node: &DeviceNode,
    host: Option<OwnedFd>,
) -> Result<(), Error> {
    let what = || ["make device ", &node.path].concat();
    let failed = |errno| Error::system(&what(), errno);
    let Some(format) = format_of(node) else {
        return Err(Error::invalid(
            [&what(), ": its kind is none of c, b, p"].concat(),
        ));
    };
    // A user namespace is not allowed to make nodes, so the host's is shown instead.
    if let Some(host) = host {
        let (target, _) = root.open_or_make(&node.path, Missing::File)?;
        return sys::move_mount(host.as_fd(), target.as_fd()).map_err(failed);
    }
    let name = sys::c_string(name).map_err(failed)?;
    let device = libc::makedev(node.major, node.minor);
    match sys::mknod(
        directory.as_fd(),
        &name,
        format | (node.mode & 0o7777),
        device,
    ) {
        Ok(()) => {}
        Err(Errno(libc::EEXIST)) => {
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let stat = sys::open(directory.as_fd(), &name, flags)
                .and_then(|existing| sys::fstat(existing.as_fd()))
                .map_err(failed)?;
            if stat.st_mode & libc::S_IFMT == format
                && (format == libc::S_IFIFO || stat.st_rdev == device)
            {
                return Ok(());
            }
            return Err(Error::with_detail(
                &what(),
                Errno(libc::EEXIST),
                "the image has something else there",
            ));
        }
        Err(errno @ Errno(libc::EPERM)) => {
            return Err(Error::with_detail(
                &what(),
                errno,
                "mknod is forbidden here, and the host has no such node to show instead",
            ));
        }
        Err(errno) => return Err(failed(errno)),
    }
    if node.uid != 0 || node.gid != 0 {
        sys::chown(directory.as_fd(), &name, node.uid, node.gid).map_err(failed)?;
    }
    Ok(())
}

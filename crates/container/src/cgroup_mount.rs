//! What a container sees of its control groups at `/sys/fs/cgroup`.
//!
//! On a pure v2 host that is one cgroup2 mount; on v1 and hybrid hosts a tmpfs with one mount per
//! hierarchy, as other runtimes lay it out (cgroups(7)).

use crate::error::{Context, Error};
use crate::sys::{self, Errno, FilesystemContext, SysResult};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// Files of /proc/self that are read are far smaller than this, in bytes.
const MAX_PROC_BYTES: usize = 4 << 20;

/// Control group mounts that are ready to be attached.
pub(crate) struct CgroupTree {
    top: OwnedFd,
    /// Hierarchies by their directory below the top; empty on v2.
    hierarchies: Vec<(String, OwnedFd)>,
    /// Attributes of the top once it is filled.
    attributes: u64,
}

/// A line of `/proc/self/cgroup`.
#[derive(Debug, PartialEq, Eq)]
struct Membership<'a> {
    /// Controllers with commas between, `name=...`, or empty for v2.
    controllers: &'a str,
    path: &'a str,
}

fn memberships(text: &str) -> Vec<Membership<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some(Membership {
                controllers: fields.next()?,
                path: fields.next()?,
            })
        })
        .collect()
}

fn read_proc(path: &std::ffi::CStr) -> SysResult<String> {
    let file = sys::open(sys::cwd(), path, libc::O_RDONLY)?;
    sys::read_all(file.as_fd(), MAX_PROC_BYTES)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes the mounts, detached. With an own cgroup namespace they show its root; without, they are
/// binds of the process's own group.
pub(crate) fn prepare(
    attributes: u64,
    own_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<CgroupTree, Error> {
    let text = read_proc(c"/proc/self/cgroup").doing("read", "/proc/self/cgroup")?;
    let memberships = memberships(&text);
    let mountinfo = if own_namespace {
        String::new()
    } else {
        read_proc(c"/proc/self/mountinfo").doing("read", "/proc/self/mountinfo")?
    };
    if let [
        Membership {
            controllers: "",
            path,
        },
    ] = memberships[..]
    {
        return unified(path, attributes, own_namespace, &mountinfo);
    }
    let top = FilesystemContext::open(c"tmpfs")
        .and_then(|context| {
            context.set(c"source", Some(c"cgroup"))?;
            context.set(c"mode", Some(c"755"))?;
            context.set(c"size", Some(c"1m"))?;
            context.mount(attributes & !libc::MOUNT_ATTR_RDONLY)
        })
        .doing("mount a tmpfs for", "control groups")?;
    let mut hierarchies = Vec::with_capacity(memberships.len());
    for Membership { controllers, path } in &memberships {
        match hierarchy(controllers, path, attributes, own_namespace, &mountinfo) {
            // The container has no group of its own there: it would see all the host's.
            Ok(mount) if is_root_of_host(&mount, controllers) => {}
            Ok(mount) => hierarchies.push((directory_of(controllers).to_owned(), mount)),
            // A hierarchy that the host itself has not mounted is none of the container's.
            Err(Errno(libc::ENOENT | libc::ENODEV)) => {}
            Err(errno) => {
                let name = directory_of(controllers);
                warnings.push(
                    [
                        "control group hierarchy ",
                        name,
                        " is not shown: ",
                        &errno.text(),
                    ]
                    .concat(),
                );
            }
        }
    }
    Ok(CgroupTree {
        top,
        hierarchies,
        attributes,
    })
}

/// Makes the mount of the v2 hierarchy alone, as [`prepare`] does on a pure v2 host.
pub(crate) fn prepare_unified(attributes: u64, own_namespace: bool) -> Result<CgroupTree, Error> {
    let text = read_proc(c"/proc/self/cgroup").doing("read", "/proc/self/cgroup")?;
    let mountinfo = if own_namespace {
        String::new()
    } else {
        read_proc(c"/proc/self/mountinfo").doing("read", "/proc/self/mountinfo")?
    };
    let path = memberships(&text)
        .into_iter()
        .find(|membership| membership.controllers.is_empty())
        .map(|membership| membership.path)
        .ok_or_else(|| Error::invalid("mount cgroup2: this host has no cgroup v2 hierarchy"))?;
    unified(path, attributes, own_namespace, &mountinfo)
}

fn unified(
    path: &str,
    attributes: u64,
    own_namespace: bool,
    mountinfo: &str,
) -> Result<CgroupTree, Error> {
    let top =
        hierarchy("", path, attributes, own_namespace, mountinfo).doing("mount cgroup2", "")?;
    Ok(CgroupTree {
        top,
        hierarchies: Vec::new(),
        attributes: 0,
    })
}

/// Only the root group of a v1 hierarchy has a release agent (cgroups(7)), which runs programs
/// outside of every container (CVE-2022-0492).
fn is_root_of_host(mount: &OwnedFd, controllers: &str) -> bool {
    !controllers.is_empty() && sys::open(mount.as_fd(), c"release_agent", libc::O_PATH).is_ok()
}

fn directory_of(controllers: &str) -> &str {
    if controllers.is_empty() {
        return "unified";
    }
    controllers.strip_prefix("name=").unwrap_or(controllers)
}

/// One hierarchy, detached.
fn hierarchy(
    controllers: &str,
    path: &str,
    attributes: u64,
    own_namespace: bool,
    mountinfo: &str,
) -> SysResult<OwnedFd> {
    if !own_namespace {
        let mount_point = mount_point_of(controllers, mountinfo).ok_or(Errno(libc::ENOENT))?;
        let own = sys::c_string(&[mount_point, path].concat())?;
        let tree = sys::clone_tree(sys::cwd(), &own, false)?;
        sys::mount_setattr(tree.as_fd(), attributes, 0, libc::MS_PRIVATE, false)?;
        return Ok(tree);
    }
    if controllers.is_empty() {
        let context = FilesystemContext::open(c"cgroup2")?;
        context.set(c"source", Some(c"cgroup"))?;
        return context.mount(attributes);
    }
    let context = FilesystemContext::open(c"cgroup")?;
    context.set(c"source", Some(c"cgroup"))?;
    if let Some(name) = controllers.strip_prefix("name=") {
        context.set(c"none", None)?;
        context.set(c"name", Some(&*sys::c_string(name)?))?;
    } else {
        for controller in controllers.split(',') {
            context.set(&sys::c_string(controller)?, None)?;
        }
    }
    context.mount(attributes)
}

/// Where the host has mounted a hierarchy, from mountinfo (proc_pid_mountinfo(5)).
fn mount_point_of<'a>(controllers: &str, mountinfo: &'a str) -> Option<&'a str> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let fstype = right.next()?;
        let options = right.nth(1)?;
        let mount_point = left.split(' ').nth(4)?;
        let fits = if controllers.is_empty() {
            fstype == "cgroup2"
        } else {
            fstype == "cgroup"
                && controllers
                    .split(',')
                    .all(|controller| options.split(',').any(|option| option == controller))
        };
        fits.then_some(mount_point)
    })
}

/// Attaches the mounts over a directory of the container.
pub(crate) fn attach(tree: &CgroupTree, target: &OwnedFd, destination: &str) -> Result<(), Error> {
    let failed = |errno| Error::system(&["mount control groups on ", destination].concat(), errno);
    sys::move_mount(tree.top.as_fd(), target.as_fd()).map_err(failed)?;
    for (name, mount) in &tree.hierarchies {
        attach_hierarchy(tree, name, mount).map_err(failed)?;
    }
    if tree.attributes & libc::MOUNT_ATTR_RDONLY != 0 {
        sys::mount_setattr(tree.top.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)
            .map_err(failed)?;
    }
    Ok(())
}

fn attach_hierarchy(tree: &CgroupTree, name: &str, mount: &OwnedFd) -> SysResult<()> {
    let directory = sys::c_string(name)?;
    sys::mkdir(tree.top.as_fd(), &directory, 0o755)?;
    let target = sys::open(
        tree.top.as_fd(),
        &directory,
        libc::O_PATH | libc::O_DIRECTORY,
    )?;
    sys::move_mount(mount.as_fd(), target.as_fd())?;
    // cpu,cpuacct is also found as cpu and as cpuacct.
    if name.contains(',') {
        for controller in name.split(',') {
            let link: CString = sys::c_string(controller)?;
            match sys::symlink(&directory, tree.top.as_fd(), &link) {
                Ok(()) | Err(Errno(libc::EEXIST)) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_are_read() {
        let found = memberships("9:name=systemd:/\n5:cpu,cpuacct:/a:b\n0::/x\ndamaged\n");
        assert_eq!(
            found,
            [
                Membership {
                    controllers: "name=systemd",
                    path: "/"
                },
                Membership {
                    controllers: "cpu,cpuacct",
                    path: "/a:b"
                },
                Membership {
                    controllers: "",
                    path: "/x"
                },
            ]
        );
    }

    #[test]
    fn mount_points_are_found() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point_of("", table), Some("/sys/fs/cgroup/unified"));
        assert_eq!(
            mount_point_of("cpu,cpuacct", table),
            Some("/sys/fs/cgroup/cpu,cpuacct")
        );
        assert_eq!(
            mount_point_of("name=systemd", table),
            Some("/sys/fs/cgroup/systemd")
        );
        assert_eq!(mount_point_of("memory", table), None);
    }
}

//! Mounts of a container: made detached while the host can still be seen, attached beneath the
//! new root once it cannot.

use crate::cgroup_mount::{self, CgroupTree};
use crate::error::{Context, Error};
use crate::idmap::Mapper;
use crate::path::{self, Missing, RootDirectory};
use crate::sys::{self, Errno, FilesystemContext};
use crate::{bind, copy_up, foreign, root};
use gamut_abi::plan::{Mount, MountIdmap, MountKind, Plan, Propagation, RootSource};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// What may be mounted over below /proc: files that describe the machine and that file systems
/// as lxcfs replace (the list of runc). Everything else there is the kernel's interface to the
/// stage itself.
const PROC_EXCEPTIONS: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Inode number of the root directory of every /proc.
const PROC_ROOT_INODE: u64 = 1;

/// A mount that is ready to be attached.
pub(crate) enum Detached {
    Tree(OwnedFd),
    Cgroup(CgroupTree),
}

/// Opens the sources of bind mounts, as copies of the host's mounts: all of them, or only those
/// whose ids are mapped. The other entries, and those that this process may not copy, are `None`.
pub(crate) fn clone_sources(
    plan: &Plan,
    all: bool,
    mapper: &mut Mapper<'_>,
) -> Result<Vec<Option<OwnedFd>>, Error> {
    plan.mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            // What an earlier mount may show is opened once that is there.
            if within(plan, index).is_some() {
                return Ok(None);
            }
            let Some(idmap) = &mount.idmap else {
                if !all {
                    return Ok(None);
                }
                return match clone_source(mount) {
                    Err(error) if error.errno == libc::EPERM => Ok(None),
                    other => other.map_err(|error| naming(mount, error)),
                };
            };
            let source = clone_source(mount).map_err(|error| naming(mount, error))?;
            if let Some(tree) = &source {
                map_ids_of(mount, idmap, tree, mapper)?;
            }
            Ok(source)
        })
        .collect()
}

fn map_ids_of(
    mount: &Mount,
    idmap: &MountIdmap,
    tree: &OwnedFd,
    mapper: &mut Mapper<'_>,
) -> Result<(), Error> {
    let what = ["the bind on ", &mount.destination].concat();
    mapper.map(tree.as_fd(), idmap, &what)
}

/// Maps the ids of the `index`-th mount, whose source the stage has found inside the container and
/// copied: the stage itself may lack the right to it.
pub(crate) fn map_ids_within(
    plan: &Plan,
    index: u32,
    tree: &OwnedFd,
    mapper: &mut Mapper<'_>,
) -> Result<(), Error> {
    let mount = usize::try_from(index)
        .ok()
        .and_then(|index| plan.mounts.get(index));
    let Some((mount, idmap)) = mount.and_then(|mount| Some((mount, mount.idmap.as_ref()?))) else {
        return Err(Error::invalid(
            "there is no such mount whose ids are mapped",
        ));
    };
    map_ids_of(mount, idmap, tree, mapper)
}

fn clone_source(mount: &Mount) -> Result<Option<OwnedFd>, Error> {
    let MountKind::Bind {
        source,
        recursive,
        subpath,
    } = &mount.kind
    else {
        return Ok(None);
    };
    let name = sys::c_string(source).doing("bind", source)?;
    // What lies in another container is never looked up by its path from here: that container
    // could have put a link there, which would lead to the host's files.
    let tree = if foreign::is_foreign(source) {
        foreign::clone_tree(source, *recursive)
    } else if !subpath.is_empty() {
        clone_beneath(&name, subpath, *recursive)
    } else {
        sys::clone_tree(sys::cwd(), &name, *recursive)
    };
    let tree = tree.map_err(|errno| match subpath.as_str() {
        "" => Error::system("bind it", errno),
        subpath => Error::with_detail("bind it", errno, &["sub-path ", subpath].concat()),
    })?;
    Ok(Some(tree))
}

/// Copies a part of a source. Whoever writes to the source may put links there: they are followed
/// as long as they stay below it.
fn clone_beneath(source: &CStr, subpath: &str, recursive: bool) -> sys::SysResult<OwnedFd> {
    let top = sys::open(sys::cwd(), source, libc::O_PATH | libc::O_DIRECTORY)?;
    let path = sys::c_string(subpath)?;
    let beneath = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    let part = sys::openat2(top.as_fd(), &path, libc::O_PATH, 0, beneath)?;
    sys::clone_tree(part.as_fd(), c"", recursive)
}

/// Makes every mount but those of control groups, whose namespace comes later.
pub(crate) fn prepare(
    plan: &Plan,
    mut sources: Vec<Option<OwnedFd>>,
) -> Result<Vec<Option<Detached>>, Error> {
    sources.resize_with(plan.mounts.len(), || None);
    plan.mounts
        .iter()
        .zip(sources)
        .enumerate()
        .map(|(index, (mount, source))| {
            prepare_one(plan, index, mount, source).map_err(|error| naming(mount, error))
        })
        .collect()
}

fn prepare_one(
    plan: &Plan,
    index: usize,
    mount: &Mount,
    source: Option<OwnedFd>,
) -> Result<Option<Detached>, Error> {
    match &mount.kind {
        MountKind::Bind { .. } => {
            let source = match source {
                Some(source) => Some(source),
                None if within(plan, index).is_some() => None,
                None => clone_source(mount)?,
            };
            let Some(source) = source else {
                return Ok(None);
            };
            bind::adjust(plan, mount, &source)?;
            Ok(Some(Detached::Tree(source)))
        }
        // Its mode comes from what it covers.
        MountKind::Filesystem {
            fstype, options, ..
        } if follows_mode(fstype, options) => Ok(None),
        MountKind::Filesystem {
            fstype,
            source,
            options,
            ..
        } => {
            let label = plan.mount_label.as_deref();
            let tree = filesystem(mount, fstype, source, options, label)?;
            Ok(Some(Detached::Tree(tree)))
        }
        MountKind::Cgroup | MountKind::CgroupUnified => Ok(None),
    }
}

/// An error about a mount, with what was to be mounted where.
fn naming(mount: &Mount, mut error: Error) -> Error {
    let source = match &mount.kind {
        MountKind::Bind { source, .. } | MountKind::Filesystem { source, .. } => source,
        MountKind::Cgroup => "cgroup",
        MountKind::CgroupUnified => "cgroup2",
    };
    error.message = [
        "error mounting \"",
        source,
        "\" to rootfs at \"",
        &mount.destination,
        "\": ",
        &error.message,
    ]
    .concat();
    error
}

/// Whether this is a tmpfs that takes over the mode of the directory that it covers.
fn follows_mode(fstype: &str, options: &[(String, Option<String>)]) -> bool {
    fstype == "tmpfs" && options.iter().all(|(key, _)| key != "mode")
}

/// Makes a tmpfs whose mode comes from the directory that it will cover, if there is one.
fn tmpfs_over(
    plan: &Plan,
    mount: &Mount,
    destination: &str,
    root: &RootDirectory,
) -> Result<Option<Detached>, Error> {
    let MountKind::Filesystem {
        fstype,
        source,
        options,
        ..
    } = &mount.kind
    else {
        return Ok(None);
    };
    if !follows_mode(fstype, options) {
        return Ok(None);
    }
    let covered = root
        .open(destination, libc::O_PATH | libc::O_DIRECTORY)
        .and_then(|directory| sys::fstat(directory.as_fd()));
    let mut options = options.clone();
    match covered.map(|stat| stat.st_mode & 0o7777) {
        // That of every tmpfs; or what is wrong with the place is told when it is mounted there.
        Ok(0o1777) | Err(_) => {}
        Ok(mode) => options.push((String::from("mode"), Some(octal(mode)))),
    }
    let label = plan.mount_label.as_deref();
    let tree = filesystem(mount, fstype, source, &options, label)?;
    Ok(Some(Detached::Tree(tree)))
}

/// Permission bits as a tmpfs takes them.
fn octal(mode: u32) -> String {
    [9, 6, 3, 0]
        .map(|shift| char::from_digit(mode >> shift & 7, 8).unwrap_or('0'))
        .iter()
        .collect()
}

/// The source of a bind inside the container, if it lies there and a mount that comes before may
/// cover it: mounts are made in their order (runtime-spec, config.md, "Mounts"), so that one has to
/// be there first.
fn within(plan: &Plan, index: usize) -> Option<&str> {
    let RootSource::Directory { path } = &plan.root.source else {
        return None;
    };
    let MountKind::Bind { source, .. } = &plan.mounts.get(index)?.kind else {
        return None;
    };
    let inside = source.strip_prefix(path.trim_end_matches('/'))?;
    if !inside.starts_with('/') {
        return None;
    }
    let covered = plan.mounts.iter().take(index).any(|mount| {
        path::clean(&mount.destination).is_ok_and(|destination| {
            inside
                .strip_prefix(&destination)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    });
    covered.then_some(inside)
}

/// Copies the source of a bind inside the container, as the mounts before it show it.
fn clone_within(
    plan: &Plan,
    index: usize,
    source: &str,
    root: &RootDirectory,
    map_ids: &MapIds<'_>,
) -> Result<Detached, Error> {
    let mount = &plan.mounts[index];
    let recursive = matches!(
        mount.kind,
        MountKind::Bind {
            recursive: true,
            ..
        }
    );
    let tree = root
        .open(source, libc::O_PATH)
        .and_then(|source| sys::clone_tree(source.as_fd(), c"", recursive))
        .map_err(|errno| Error::system("bind it inside the container", errno))?;
    let tree = match &mount.idmap {
        Some(_) => map_ids(index, tree)?,
        None => tree,
    };
    bind::adjust(plan, mount, &tree)?;
    Ok(Detached::Tree(tree))
}

/// Makes the mounts of control groups, as this process's cgroup namespace shows them.
pub(crate) fn prepare_cgroups(
    plan: &Plan,
    detached: &mut [Option<Detached>],
    own_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    for (mount, slot) in plan.mounts.iter().zip(detached) {
        let attributes = mount.attributes_set;
        let tree = match mount.kind {
            MountKind::Cgroup => cgroup_mount::prepare(attributes, own_namespace, warnings)?,
            MountKind::CgroupUnified => cgroup_mount::prepare_unified(attributes, own_namespace)?,
            MountKind::Bind { .. } | MountKind::Filesystem { .. } => continue,
        };
        *slot = Some(Detached::Cgroup(tree));
    }
    Ok(())
}

/// A read-only tmpfs is filled first.
fn is_read_only_later(mount: &Mount) -> bool {
    matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs")
        && mount.attributes_set & libc::MOUNT_ATTR_RDONLY != 0
}

fn filesystem(
    mount: &Mount,
    fstype: &str,
    source: &str,
    options: &[(String, Option<String>)],
    label: Option<&str>,
) -> Result<OwnedFd, Error> {
    let what = || ["mount ", fstype].concat();
    let system = |errno| Error::system(&what(), errno);
    let name = sys::c_string(fstype).map_err(system)?;
    let context = FilesystemContext::open(&name).map_err(|errno| match errno {
        Errno(libc::ENODEV) => {
            Error::with_detail(&what(), errno, "this kernel does not know the file system")
        }
        _ => system(errno),
    })?;
    if !source.is_empty() {
        let source = sys::c_string(source).map_err(system)?;
        context.set(c"source", Some(&source)).map_err(system)?;
    }
    for (key, value) in options {
        let set = sys::c_string(key).and_then(|key| match value {
            Some(value) => context.set(&key, Some(&*sys::c_string(value)?)),
            None => context.set(&key, None),
        });
        set.map_err(|errno| {
            let value = value.as_deref().unwrap_or_default();
            let sign = if value.is_empty() { "" } else { "=" };
            Error::with_detail(&what(), errno, &["option ", key, sign, value].concat())
        })?;
    }
    if let Some(label) = label.filter(|_| takes_label(fstype)) {
        let label = sys::c_string(label).map_err(system)?;
        context.set(c"context", Some(&label)).map_err(|errno| {
            Error::with_detail(&what(), errno, "the SELinux context in linux.mountLabel")
        })?;
    }
    let (set, _) = bind::attribute_bits(mount);
    let later = if is_read_only_later(mount) {
        libc::MOUNT_ATTR_RDONLY
    } else {
        0
    };
    let tree = context.mount(set & !later).map_err(|errno| {
        let log = context.log();
        let options = describe(options);
        Error::with_detail(&what(), errno, if log.is_empty() { &options } else { &log })
    })?;
    if let Some(label) = label.filter(|_| fstype == "mqueue") {
        // It takes no context, but its root can be labelled.
        sys::set_selinux_label(tree.as_fd(), label).map_err(|errno| {
            Error::with_detail(&what(), errno, "the SELinux context in linux.mountLabel")
        })?;
    }
    Ok(tree)
}

/// File systems of the kernel's own have labels by its policy.
fn takes_label(fstype: &str) -> bool {
    !matches!(fstype, "proc" | "sysfs" | "mqueue")
}

fn describe(options: &[(String, Option<String>)]) -> String {
    let mut text = String::new();
    for (key, value) in options {
        text.push_str(if text.is_empty() { "options " } else { "," });
        text.push_str(key);
        if let Some(value) = value {
            text.push('=');
            text.push_str(value);
        }
    }
    text
}

/// Has the ids of a copied mount mapped by somebody who may, by its index in the plan.
pub(crate) type MapIds<'a> = dyn Fn(usize, OwnedFd) -> Result<OwnedFd, Error> + 'a;

/// Attaches every mount in order. Answers those that become read-only at the very end.
pub(crate) fn attach(
    plan: &Plan,
    detached: Vec<Option<Detached>>,
    root: &RootDirectory,
    map_ids: &MapIds<'_>,
) -> Result<Vec<OwnedFd>, Error> {
    let mut read_only_later = Vec::new();
    for (index, (mount, tree)) in plan.mounts.iter().zip(detached).enumerate() {
        let later = attach_one(plan, index, tree, root, map_ids);
        read_only_later.extend(later.map_err(|error| naming(mount, error))?);
    }
    Ok(read_only_later)
}

/// Attaches a mount. Answers it if it becomes read-only later.
fn attach_one(
    plan: &Plan,
    index: usize,
    tree: Option<Detached>,
    root: &RootDirectory,
    map_ids: &MapIds<'_>,
) -> Result<Option<OwnedFd>, Error> {
    let mount = &plan.mounts[index];
    let destination = path::clean(&mount.destination)?;
    if destination == "/" {
        return Err(Error::invalid(
            "nothing can be mounted on / itself; choose another root",
        ));
    }
    let tree = match (tree, within(plan, index)) {
        (Some(tree), _) => tree,
        (None, Some(source)) => clone_within(plan, index, source, root, map_ids)?,
        (None, None) => match tmpfs_over(plan, mount, &destination, root)? {
            Some(tree) => tree,
            None => return Ok(None),
        },
    };
    match tree {
        Detached::Cgroup(tree) => {
            let (target, _) = root.open_or_make(&destination, Missing::Directory)?;
            refuse_proc(&destination, &target, false)?;
            cgroup_mount::attach(&tree, &target, &destination)?;
            Ok(None)
        }
        Detached::Tree(tree) => {
            attach_tree(mount, &tree, &destination, root)?;
            Ok(is_read_only_later(mount).then_some(tree))
        }
    }
}

fn attach_tree(
    mount: &Mount,
    tree: &OwnedFd,
    destination: &str,
    root: &RootDirectory,
) -> Result<(), Error> {
    let system = |errno| Error::system("attach it", errno);
    let stat = sys::fstat(tree.as_fd()).map_err(system)?;
    let missing = if sys::is_directory(&stat) {
        Missing::Directory
    } else {
        Missing::File
    };
    let fstype = match &mount.kind {
        MountKind::Filesystem { fstype, .. } => fstype.as_str(),
        _ => "",
    };
    let (target, existed) = root.open_or_make(destination, missing)?;
    if matches!(fstype, "proc" | "sysfs") {
        // An image could turn them around by links (CVE-2019-19921, CVE-2023-27561).
        root.open_without_links(destination, libc::O_PATH | libc::O_DIRECTORY)
            .map_err(|errno| {
                Error::with_detail(
                    "attach it",
                    errno,
                    &[fstype, " must be mounted on ordinary directory"].concat(),
                )
            })?;
    }
    let is_proc = fstype == "proc"
        || (fstype.is_empty()
            && stat.st_ino == PROC_ROOT_INODE
            && sys::filesystem_magic(tree.as_fd()) == Ok(libc::PROC_SUPER_MAGIC));
    refuse_proc(destination, &target, is_proc)?;
    if let MountKind::Filesystem { copy_up, .. } = &mount.kind
        && fstype == "tmpfs"
        && existed
    {
        fill_tmpfs(tree, &target, *copy_up).map_err(|errno| Error::system("fill it", errno))?;
    }
    sys::move_mount(tree.as_fd(), target.as_fd()).map_err(system)?;
    if fstype.is_empty() {
        return Ok(());
    }
    match mount.propagation {
        None | Some((Propagation::Private, _)) => Ok(()),
        Some((propagation, everywhere)) => {
            let flag = root::propagation_flag(propagation);
            sys::mount_setattr(tree.as_fd(), 0, 0, flag, everywhere).map_err(system)
        }
    }
}

/// Refuses to hide the kernel's interface behind something else: only a real proc file system
/// may lie on /proc, and only harmless files below it may be covered.
fn refuse_proc(destination: &str, target: &OwnedFd, is_proc: bool) -> Result<(), Error> {
    let named = destination == "/proc" || destination.starts_with("/proc/");
    let inside = sys::filesystem_magic(target.as_fd()) == Ok(libc::PROC_SUPER_MAGIC);
    if !(named || inside)
        || (is_proc && destination == "/proc")
        || PROC_EXCEPTIONS.contains(&destination)
        || (is_proc && !inside)
    {
        return Ok(());
    }
    Err(Error::invalid(
        [
            "mount on ",
            destination,
            ": it is inside /proc, where only a proc file system or files that describe the machine may be mounted",
        ]
        .concat(),
    ))
}

/// A tmpfs over an existing directory takes over its content if asked for.
fn fill_tmpfs(tree: &OwnedFd, target: &OwnedFd, copy: bool) -> sys::SysResult<()> {
    let stat = sys::fstat(target.as_fd())?;
    if !sys::is_directory(&stat) {
        return Err(Errno(libc::ENOTDIR));
    }
    if copy {
        let inside = sys::open(tree.as_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
        let from = sys::open(target.as_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY)?;
        copy_up::copy_directory(&from, &inside)?;
    }
    Ok(())
}

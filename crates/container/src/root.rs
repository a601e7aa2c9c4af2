//! The root file system: mounted detached, shown only in the container's own mount namespace.

use crate::capabilities;
use crate::error::{Context, Error};
use crate::path::RootDirectory;
use crate::sys::{self, Errno, FilesystemContext};
use gamut_abi::plan::{Plan, Propagation, Root, RootSource};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `MS_*` word for a propagation.
pub(crate) fn propagation_flag(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// What a root is made of, opened.
pub(crate) enum Source {
    Layers(Directories),
    /// A copy of the mounts of a directory.
    Tree(OwnedFd),
    /// An overlay that the caller has mounted.
    Ready(OwnedFd),
}

/// A root's source, and what it is mounted over.
pub(crate) struct Opened {
    source: Source,
    mount_point: OwnedFd,
}

impl Opened {
    /// Opens both, in the mount namespace of the stage and still as the caller's user: the
    /// container's root may not be let through to them. `mapped` are the layers of an overlay
    /// whose ids have been mapped; empty if they are taken as they are. `ready` is the overlay if
    /// the caller has mounted it.
    pub(crate) fn open(
        root: &Root,
        mapped: Vec<OwnedFd>,
        ready: Option<OwnedFd>,
    ) -> Result<Self, Error> {
        let source = match (&root.source, ready) {
            (RootSource::Overlay { .. }, Some(ready)) => Source::Ready(ready),
            (RootSource::Directory { path }, _) => sys::c_string(path)
                .and_then(|name| sys::clone_tree(sys::cwd(), &name, true))
                .doing("open root directory", path)
                .map(Source::Tree)?,
            (
                RootSource::Overlay {
                    lower, upper, work, ..
                },
                None,
            ) => {
                let mut directories = Directories::open(lower, upper.as_deref(), work.as_deref())?;
                if !mapped.is_empty() {
                    directories.lower = mapped;
                    directories.detached = true;
                }
                Source::Layers(directories)
            }
        };
        let mount_point = open_mount_point(&root.mount_point)?;
        Ok(Self {
            source,
            mount_point,
        })
    }
}

/// Mounts the root over its mount point. Every mount of this namespace must be private by now.
pub(crate) fn mount(root: &Root, opened: Opened) -> Result<RootDirectory, Error> {
    let Opened {
        source,
        mount_point,
    } = opened;
    let mount = match source {
        Source::Tree(tree) => {
            // A root that follows the host is made of mounts that do.
            let propagation = match root.propagation {
                Propagation::Slave => libc::MS_SLAVE,
                _ => libc::MS_PRIVATE,
            };
            sys::mount_setattr(tree.as_fd(), 0, 0, propagation, true)
                .doing("make root private", "")?;
            tree
        }
        Source::Ready(mount) => mount,
        Source::Layers(directories) => match overlay(root, &directories, &mount_point)? {
            Overlay::Detached(mount) => mount,
            // The classic call has attached it already.
            Overlay::Attached(mount) => return Ok(RootDirectory(mount)),
        },
    };
    sys::move_mount(mount.as_fd(), mount_point.as_fd())
        .doing("mount root over", &root.mount_point)?;
    Ok(RootDirectory(mount))
}

fn open_mount_point(path: &str) -> Result<OwnedFd, Error> {
    let name = sys::c_string(path).doing("open mount point", path)?;
    sys::open(sys::cwd(), &name, libc::O_PATH | libc::O_DIRECTORY).doing("open mount point", path)
}

enum Overlay {
    Detached(OwnedFd),
    Attached(OwnedFd),
}

/// Descriptors of an overlay's directories. The kernel is told their numbers, relative to
/// `/proc/self/fd`: short, without characters to escape, and the container's mount table shows no
/// path of the host.
pub(crate) struct Directories {
    lower: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
    /// The layers are mounts that are attached nowhere yet.
    detached: bool,
}

impl Directories {
    fn open(lower: &[String], upper: Option<&str>, work: Option<&str>) -> Result<Self, Error> {
        let directory = |path: &str| {
            sys::c_string(path)
                .and_then(|name| sys::open(sys::cwd(), &name, libc::O_PATH | libc::O_DIRECTORY))
                .doing("open layer", path)
        };
        if lower.is_empty() {
            return Err(Error::invalid("the root has no layer"));
        }
        Ok(Self {
            lower: lower
                .iter()
                .map(|path| directory(path))
                .collect::<Result<_, _>>()?,
            upper: match (upper, work) {
                (Some(upper), Some(work)) => Some((directory(upper)?, directory(work)?)),
                (None, None) => None,
                _ => {
                    return Err(Error::invalid(
                        "a writable root needs an upper and a work directory",
                    ));
                }
            },
            detached: false,
        })
    }
}

/// Attaches detached layers where the root will cover them: overlayfs takes only mounts of this
/// mount namespace.
fn attach_layers(layers: &[OwnedFd], mount_point: &OwnedFd) -> sys::SysResult<OwnedFd> {
    let context = FilesystemContext::open(c"tmpfs")?;
    context.set(c"source", Some(c"layers"))?;
    let shelf = context.mount(0)?;
    sys::move_mount(shelf.as_fd(), mount_point.as_fd())?;
    for layer in layers {
        let name = number(layer);
        sys::mkdir(shelf.as_fd(), &name, 0o700)?;
        let place = sys::open(shelf.as_fd(), &name, libc::O_PATH | libc::O_DIRECTORY)?;
        sys::move_mount(layer.as_fd(), place.as_fd())?;
    }
    Ok(shelf)
}

fn number(fd: &OwnedFd) -> CString {
    // Digits hold no NUL, so this cannot fail.
    CString::new(fd.as_raw_fd().to_string()).unwrap_or_default()
}

fn overlay(
    root: &Root,
    directories: &Directories,
    mount_point: &OwnedFd,
) -> Result<Overlay, Error> {
    let RootSource::Overlay {
        volatile,
        userxattr,
        ..
    } = &root.source
    else {
        return Err(Error::invalid("the root is not an overlay"));
    };
    let shelf = if directories.detached {
        let attached = attach_layers(&directories.lower, mount_point);
        Some(attached.doing("mount the mapped layers below", &root.mount_point)?)
    } else {
        None
    };
    let options = OverlayOptions {
        volatile: *volatile,
        userxattr: *userxattr,
        mount_point: &root.mount_point,
        shelf: shelf.as_ref(),
    };
    overlay_of(directories, &options)
}

/// An overlay of detached layers whose ids are mapped; the last of them holds the directories
/// `upper` and `work`. Answers it detached.
pub(crate) fn mapped_overlay(
    mut layers: Vec<OwnedFd>,
    upper: &str,
    work: &str,
    volatile: bool,
    mount_point: &str,
) -> Result<OwnedFd, Error> {
    let place = open_mount_point(mount_point)?;
    let shelf =
        attach_layers(&layers, &place).doing("mount the mapped layers below", mount_point)?;
    let Some(writable) = layers.pop() else {
        return Err(Error::invalid("the root has no layer"));
    };
    let directory = |name: &str| {
        sys::c_string(name)
            .and_then(|name| {
                sys::open(
                    writable.as_fd(),
                    &name,
                    libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW,
                )
            })
            .doing("open layer", name)
    };
    let work = directory(work)?;
    act_as_owner(&work)?;
    let directories = Directories {
        lower: layers,
        upper: Some((directory(upper)?, work)),
        detached: true,
    };
    let options = OverlayOptions {
        volatile,
        userxattr: false,
        mount_point,
        shelf: Some(&shelf),
    };
    match overlay_of(&directories, &options)? {
        Overlay::Detached(mount) => Ok(mount),
        Overlay::Attached(mount) => {
            sys::clone_tree(mount.as_fd(), c"", false).doing("copy", "the root")
        }
    }
}

/// Makes files of this process belong to whoever owns a directory, with all of its rights: what
/// overlayfs makes for itself, it makes as the one who mounted it, and through a mapped mount only
/// ids of the mapping can make anything.
fn act_as_owner(directory: &OwnedFd) -> Result<(), Error> {
    let owner = sys::fstat(directory.as_fd()).doing("look at", "the work directory")?;
    let held = capabilities::get().doing("read", "capabilities")?;
    // SAFETY: plain calls that only change this process, which has one thread.
    unsafe {
        libc::setfsgid(owner.st_gid);
        libc::setfsuid(owner.st_uid);
    }
    // Giving up id 0 has made those for files ineffective.
    capabilities::set(held).doing("set", "capabilities")
}

struct OverlayOptions<'a> {
    volatile: bool,
    userxattr: bool,
    mount_point: &'a str,
    /// Where the layers are attached, if they have been detached.
    shelf: Option<&'a OwnedFd>,
}

fn overlay_of(directories: &Directories, options: &OverlayOptions<'_>) -> Result<Overlay, Error> {
    let descriptors = sys::open(
        sys::cwd(),
        c"/proc/self/fd",
        libc::O_PATH | libc::O_DIRECTORY,
    )
    .doing("open", "/proc/self/fd")?;
    sys::fchdir(descriptors.as_fd()).doing("enter", "/proc/self/fd")?;
    let mut flags: Vec<&std::ffi::CStr> = Vec::new();
    if options.volatile
        && let Some((_, work)) = &directories.upper
    {
        // The mark of an earlier mount, by which the kernel makes sure that somebody has thought
        // about a power cut in between. Whoever asks for `volatile` has.
        if sys::unlink(work.as_fd(), c"work/incompat/volatile/dirty").is_ok() {
            let _ = sys::remove_directory(work.as_fd(), c"work/incompat/volatile");
        }
        flags.push(c"volatile");
    }
    if options.userxattr {
        flags.push(c"userxattr");
    }
    match overlay_detached(directories, &flags)? {
        Some(mount) => Ok(Overlay::Detached(mount)),
        None => {
            let place = Place::new(options.mount_point, options.shelf)?;
            overlay_classic(directories, &flags, &place).map(Overlay::Attached)
        }
    }
}

/// By fsopen(2); `None` if this kernel (before 6.7) has no `lowerdir+`.
fn overlay_detached(
    directories: &Directories,
    flags: &[&std::ffi::CStr],
) -> Result<Option<OwnedFd>, Error> {
    let context = match FilesystemContext::open(c"overlay") {
        Ok(context) => context,
        Err(Errno(libc::ENOSYS)) => return Ok(None),
        Err(errno) => return Err(Error::system("open file system overlay", errno)),
    };
    // Before 6.5 any option is accepted here and fails the mount later.
    if context.is_legacy() {
        return Ok(None);
    }
    let failed = |what: &str, errno| {
        let log = context.log();
        let detail = if log.is_empty() {
            "the kernel's log may say more"
        } else {
            &log
        };
        Error::with_detail(what, errno, detail)
    };
    context
        .set(c"source", Some(c"overlay"))
        .map_err(|errno| failed("name the overlay", errno))?;
    for (index, layer) in directories.lower.iter().enumerate() {
        match context.set(c"lowerdir+", Some(&number(layer))) {
            Ok(()) => {}
            Err(Errno(libc::EINVAL)) if index == 0 => return Ok(None),
            Err(errno) => {
                let what = ["add layer ", &index.to_string(), " to the overlay"].concat();
                return Err(failed(&what, errno));
            }
        }
    }
    if let Some((upper, work)) = &directories.upper {
        context
            .set(c"upperdir", Some(&number(upper)))
            .and_then(|()| context.set(c"workdir", Some(&number(work))))
            .map_err(|errno| failed("make the overlay writable", errno))?;
    }
    for flag in flags {
        context
            .set(flag, None)
            .map_err(|errno| failed("set an option of the overlay", errno))?;
    }
    context
        .mount(0)
        .map(Some)
        .map_err(|errno| failed("mount the overlay", errno))
}

/// Where mount(2) puts an overlay: over the mount point by its path, or on the shelf, which is open
/// to the container's root whatever the path leads through.
struct Place<'a> {
    mount_point: &'a str,
    target: CString,
    shelf: Option<(&'a OwnedFd, OwnedFd)>,
}

impl<'a> Place<'a> {
    fn new(mount_point: &'a str, shelf: Option<&'a OwnedFd>) -> Result<Self, Error> {
        let Some(shelf) = shelf else {
            return Ok(Self {
                mount_point,
                target: sys::c_string(mount_point).doing("open mount point", mount_point)?,
                shelf: None,
            });
        };
        let place = sys::mkdir(shelf.as_fd(), c"root", 0o700)
            .and_then(|()| sys::open(shelf.as_fd(), c"root", libc::O_PATH | libc::O_DIRECTORY))
            .doing("make a place for the root below", mount_point)?;
        Ok(Self {
            mount_point,
            // Relative to /proc/self/fd.
            target: number(&place),
            shelf: Some((shelf, place)),
        })
    }

    /// What lies on top there by now.
    fn reopen(&self) -> Result<OwnedFd, Error> {
        match &self.shelf {
            None => open_mount_point(self.mount_point),
            Some((shelf, _)) => sys::open(shelf.as_fd(), c"root", libc::O_PATH | libc::O_DIRECTORY)
                .doing("open the root below", self.mount_point),
        }
    }
}

/// By mount(2): every option in one page, which holds some hundreds of layers as numbers.
fn overlay_classic(
    directories: &Directories,
    flags: &[&std::ffi::CStr],
    place: &Place<'_>,
) -> Result<OwnedFd, Error> {
    let mut data = Vec::with_capacity(1024);
    data.extend_from_slice(b"lowerdir=");
    for (index, layer) in directories.lower.iter().enumerate() {
        if index > 0 {
            data.push(b':');
        }
        data.extend_from_slice(number(layer).as_bytes());
    }
    if let Some((upper, work)) = &directories.upper {
        data.extend_from_slice(b",upperdir=");
        data.extend_from_slice(number(upper).as_bytes());
        data.extend_from_slice(b",workdir=");
        data.extend_from_slice(number(work).as_bytes());
    }
    for flag in flags {
        data.push(b',');
        data.extend_from_slice(flag.to_bytes());
    }
    if data.len() >= 4096 {
        return Err(Error::invalid(
            "the root has too many layers for this kernel; Linux 6.7 or later takes up to 500",
        ));
    }
    let data = CString::new(data).unwrap_or_default();
    let read_only = if directories.upper.is_none() {
        libc::MS_RDONLY
    } else {
        0
    };
    sys::mount_classic(c"overlay", &place.target, c"overlay", read_only, &data)
        .doing("mount the overlay over", place.mount_point)?;
    place.reopen()
}

/// Makes the root the root of this process and of the mount namespace, and lets go of everything
/// of the host. Answers a warning if that could only be done by halves.
pub(crate) fn enter(root: &RootDirectory) -> Result<Option<&'static str>, Error> {
    sys::fchdir(root.as_fd()).doing("enter", "the root")?;
    match sys::pivot_root_here() {
        // The old root lies on top of the new one now; the working directory is the old one.
        Ok(()) => sys::detach_here().doing("detach", "the host's root")?,
        // The host runs from its initramfs, which cannot be pivoted away.
        Err(Errno(libc::EINVAL)) => {
            let target = sys::open(sys::cwd(), c"/", libc::O_PATH | libc::O_DIRECTORY)
                .doing("open", "the host's root")?;
            sys::move_mount(root.as_fd(), target.as_fd()).doing("move", "the root to /")?;
            sys::fchdir(root.as_fd()).doing("enter", "the root")?;
            sys::chroot_here().doing("change", "the root")?;
            return Ok(Some(
                "the host's root is an initramfs, which pivot_root cannot replace: it stays mounted below the container's root, out of reach only without CAP_SYS_CHROOT",
            ));
        }
        Err(errno) => return Err(Error::system("pivot to the root", errno)),
    }
    sys::fchdir(root.as_fd()).doing("enter", "the root")?;
    Ok(None)
}

/// The last touches, once nothing has to be made in the root any more. A mount that was given a
/// propagation of its own keeps it: then the root's is set on the root alone.
pub(crate) fn finish(root: &RootDirectory, plan: &Plan) -> Result<(), Error> {
    let mounts = &plan.mounts;
    let plan = &plan.root;
    if plan.readonly {
        sys::mount_setattr(root.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)
            .doing("make", "the root read-only")?;
    }
    if plan.propagation != Propagation::Private {
        let flag = propagation_flag(plan.propagation);
        let everywhere =
            plan.propagation_recursive && mounts.iter().all(|mount| mount.propagation.is_none());
        sys::mount_setattr(root.as_fd(), 0, 0, flag, everywhere)
            .doing("set propagation of", "the root")?;
    }
    Ok(())
}

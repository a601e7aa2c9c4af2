//! The files of a container that does not run, or of an image: its layers, writable layer and
//! mounts put together where nobody else sees them.
//!
//! A thread of its own enters a new mount namespace, mounts there, and makes the result the root
//! of the namespace, so that no mount of the host is held. Then it goes back and ends. The
//! namespace lives as long as its descriptor.

use super::node::{IN_ROOT, Node, check};
use super::path::clean;
use crate::mount_api::{self, Context, clone_tree, descriptor, done, move_mount};
use gamut_image::layer::sys;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory or file of the host that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    pub source: PathBuf,
    /// Where in the container.
    pub destination: String,
    pub readonly: bool,
    /// What of the source is mounted, relative to it; empty for all.
    pub subpath: String,
    /// With the mounts below the source.
    pub recursive: bool,
    /// Make the destination if it is missing; otherwise leave the mount out.
    pub make: bool,
}

/// What a view is made of.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    /// Layer directories, topmost first; at least one.
    pub layers: &'a [PathBuf],
    /// Directory that has the writable layer: `upper` and `work`.
    pub writable: Option<&'a Path>,
    /// A directory that is the root by itself, in place of layers and writable layer.
    pub copy: Option<&'a Path>,
    /// Mounts, parents first.
    pub binds: &'a [Bind],
    /// Let nothing be changed but what is in writable mounts.
    pub readonly: bool,
}

/// A tree of files put together.
pub(super) struct View {
    root: OwnedFd,
    /// Keeps the mounts below the root; `None` if there are none.
    _namespace: Option<File>,
    bare: bool,
}

impl View {
    /// Shows the layers of an image.
    pub fn of_layers(layers: &[PathBuf]) -> io::Result<Self> {
        if let [layer] = layers {
            // overlayfs wants two directories at least.
            let root = open_directory(layer)?;
            return Ok(Self {
                root,
                _namespace: None,
                bare: true,
            });
        }
        Self::open(&Parts {
            layers,
            ..Parts::default()
        })
    }

    /// Shows the root of a mount namespace, without what is mounted below it. `root` is what that
    /// root is known to be.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or has another root by now.
    pub fn of_namespace(namespace: &File, root: &Node) -> io::Result<Self> {
        // Entering is for good, so a thread does it that ends afterwards.
        let tree = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("files".to_owned())
                .spawn_scoped(scope, || bare_root(namespace, root))?
                .join()
                .map_err(|_| io::Error::other("the thread that mounts has failed"))?
        });
        Ok(Self {
            root: tree?,
            _namespace: None,
            bare: false,
        })
    }

    /// Puts a tree together.
    ///
    /// # Errors
    /// If something cannot be mounted; nothing is left mounted then.
    pub fn open(parts: &Parts<'_>) -> io::Result<Self> {
        // A thread's mount namespace is its own, but only a thread that ends may change it.
        let built = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("files".to_owned())
                .spawn_scoped(scope, || build(parts))?
                .join()
                .map_err(|_| io::Error::other("the thread that mounts has failed"))?
        });
        let (root, namespace) = built?;
        Ok(Self {
            root,
            _namespace: Some(namespace),
            bare: false,
        })
    }

    /// The root: resolve below it with [`IN_ROOT`] only.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether it is a layer itself, with overlayfs' marks in it.
    pub fn is_bare(&self) -> bool {
        self.bare
    }
}

fn doing(what: &str, object: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| {
        io::Error::new(
            error.kind(),
            format!("{what} {}: {error}", object.display()),
        )
    }
}

/// Enters a namespace with this thread and takes a copy of its root mount alone.
fn bare_root(namespace: &File, root: &Node) -> io::Result<OwnedFd> {
    let home = File::open("/proc/thread-self/ns/mnt")?;
    // SAFETY: no memory is passed; this thread belongs to us and shares nothing afterwards.
    check(unsafe { libc::unshare(libc::CLONE_FS) })?;
    // SAFETY: no memory is passed; both descriptors are open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) })?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let found = || -> io::Result<OwnedFd> {
        let own = Node::from_fd(sys::openat2(
            File::open("/")?.as_fd(),
            c".",
            libc::O_PATH | libc::O_DIRECTORY,
            0,
        )?)?;
        if own.mount_id()? != root.mount_id()? {
            return Err(io::Error::other("the root is another by now"));
        }
        // SAFETY: the name is valid for the call.
        descriptor(unsafe {
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), flags)
        })
    };
    let tree = found();
    // SAFETY: no memory is passed; the descriptor is open.
    check(unsafe { libc::setns(home.as_raw_fd(), libc::CLONE_NEWNS) })?;
    tree
}

fn build(parts: &Parts<'_>) -> io::Result<(OwnedFd, File)> {
    let mount_point = parts.copy.or(parts.layers.first().map(PathBuf::as_path));
    let Some(mount_point) = mount_point else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is no layer",
        ));
    };
    let namespace = || File::open("/proc/thread-self/ns/mnt");
    let home = namespace()?;
    // SAFETY: no memory is passed; this thread belongs to us and shares nothing afterwards.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    mount(None, c"/", None, private, None)?;
    let root = match parts.copy {
        Some(copy) => on_itself(copy).map_err(doing("mount", copy))?,
        None => overlay(parts, mount_point)?,
    };
    for each in parts.binds {
        bind(root.as_fd(), each).map_err(doing("mount", &each.source))?;
    }
    if parts.readonly {
        set_readonly(root.as_fd())?;
    }
    let inside = namespace()?;
    let_go_of_host(root.as_fd())?;
    // The end of this thread must not be what ends the mounts: back to where it came from.
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(home.as_raw_fd(), libc::CLONE_NEWNS) })?;
    Ok((root, inside))
}

/// Mounts the layers over `mount_point`.
fn overlay(parts: &Parts<'_>, mount_point: &Path) -> io::Result<OwnedFd> {
    let mut options: Vec<(&CStr, OwnedFd)> = Vec::new();
    for layer in parts.layers {
        options.push((c"lowerdir+", open_directory(layer)?));
    }
    if let Some(writable) = parts.writable {
        let work = open_directory(&writable.join("work"))?;
        forget_volatile(work.as_fd());
        options.push((c"upperdir", open_directory(&writable.join("upper"))?));
        options.push((c"workdir", work));
    }
    // The kernel is told numbers, relative to here: short, with nothing to escape.
    let descriptors = open_directory(Path::new("/proc/self/fd"))?;
    // SAFETY: no memory is passed; the working directory is this thread's own since unshare(2).
    check(unsafe { libc::fchdir(descriptors.as_raw_fd()) })?;
    let failed = doing("mount the layers over", mount_point);
    match overlay_detached(&options) {
        Ok(overlay) => {
            let target = open_directory(mount_point)?;
            move_mount(overlay.as_fd(), target.as_fd()).map_err(failed)?;
            Ok(overlay)
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            overlay_classic(&options, parts.writable.is_none(), mount_point).map_err(failed)?;
            open_directory(mount_point)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The mark of an earlier `volatile` mount, which would forbid this one. Whoever copies files of
/// such a container wants what is there.
fn forget_volatile(work: BorrowedFd<'_>) {
    if sys::unlink(work, c"work/incompat/volatile/dirty", 0).is_ok() {
        let _ = sys::unlink(work, c"work/incompat/volatile", libc::AT_REMOVEDIR);
    }
}

fn number(fd: &OwnedFd) -> io::Result<CString> {
    sys::c_string(fd.as_raw_fd().to_string().as_bytes())
}

/// By fsopen(2); `EINVAL` if this kernel (before 6.7) has no `lowerdir+`.
fn overlay_detached(options: &[(&CStr, OwnedFd)]) -> io::Result<OwnedFd> {
    let context = Context::open(c"overlay")?;
    // Before 6.5 any option is accepted here and fails the mount, with a line in the kernel's log.
    // Such a kernel refuses descriptors as options of any name; others say that this is not open.
    // SAFETY: the name is valid for the call, which looks at nothing else.
    let legacy = done(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_fd().as_raw_fd(),
            libc::FSCONFIG_SET_FD,
            c"source".as_ptr(),
            std::ptr::null::<libc::c_void>(),
            i32::MAX,
        )
    });
    if legacy.is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (key, directory) in options {
        context.set(key, Some(&number(directory)?))?;
    }
    if gamut_isolation::is_in_user_namespace() {
        context.set(c"userxattr", None)?;
    }
    context.create()?;
    context.mount(0)
}

/// By mount(2): every option in one page, which holds some hundreds of layers as numbers.
fn overlay_classic(
    options: &[(&CStr, OwnedFd)],
    readonly: bool,
    mount_point: &Path,
) -> io::Result<()> {
    let numbers = |key: &CStr| -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        for (_, directory) in options.iter().filter(|(name, _)| *name == key) {
            if !text.is_empty() {
                text.push(b':');
            }
            text.extend_from_slice(number(directory)?.to_bytes());
        }
        Ok(text)
    };
    let mut data = [b"lowerdir=".as_slice(), &numbers(c"lowerdir+")?].concat();
    for (name, key) in [(b"upperdir=", c"upperdir"), (b",workdir=", c"workdir")] {
        let value = numbers(key)?;
        if !value.is_empty() {
            data.extend_from_slice(if name[0] == b',' { b"" } else { b"," });
            data.extend_from_slice(name);
            data.extend_from_slice(&value);
        }
    }
    if gamut_isolation::is_in_user_namespace() {
        data.extend_from_slice(b",userxattr");
    }
    if data.len() >= 4096 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many layers for this kernel; Linux 6.7 or later takes up to 500",
        ));
    }
    let target = sys::c_string(mount_point.as_os_str().as_bytes())?;
    let flags = if readonly { libc::MS_RDONLY } else { 0 };
    mount(
        Some(c"overlay"),
        &target,
        Some(c"overlay"),
        flags,
        Some(&sys::c_string(&data)?),
    )
}

/// Mounts a directory over itself, which makes it a mount point.
fn on_itself(directory: &Path) -> io::Result<OwnedFd> {
    let tree = clone_tree(directory, false)?;
    move_mount(tree.as_fd(), open_directory(directory)?.as_fd())?;
    Ok(tree)
}

/// A part of a source, found without leaving it: its links are somebody else's.
fn clone_beneath(source: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let part = open_beneath(source, subpath)?;
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the name is valid for the call; empty, it means the descriptor itself.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, part.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Opens (`O_PATH`) a part of a volume; links lead no further than the volume.
///
/// # Errors
/// Those of openat2(2); `EXDEV` for a way out.
pub(crate) fn open_beneath(source: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let top = open_directory(source)?;
    let path = sys::c_string(subpath.as_bytes())?;
    let beneath = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    sys::openat2(top.as_fd(), &path, libc::O_PATH, beneath)
}

/// Mounts something of the host; what is not there any more is left out.
fn bind(root: BorrowedFd<'_>, bind: &Bind) -> io::Result<()> {
    let cloned = match bind.subpath.as_str() {
        "" => clone_tree(&bind.source, bind.recursive),
        subpath => clone_beneath(&bind.source, subpath),
    };
    let tree = match cloned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        tree => Node::from_fd(tree?)?,
    };
    let Some(target) = mount_point(root, bind, tree.is_directory())? else {
        return Ok(());
    };
    if bind.readonly {
        set_readonly(tree.fd.as_fd())?;
    }
    move_mount(tree.fd.as_fd(), target.fd.as_fd())
}

/// Finds, or makes, where to mount. Links are followed inside the root.
fn mount_point(root: BorrowedFd<'_>, bind: &Bind, directory: bool) -> io::Result<Option<Node>> {
    let path = clean(bind.destination.as_bytes());
    let open = |path: &[u8]| -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        sys::openat2(root, &sys::c_string(path)?, libc::O_PATH, IN_ROOT)
    };
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match open(&path) {
        Ok(found) => return Node::from_fd(found).map(Some),
        Err(error) if missing(&error) && bind.make => {}
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut parent = open(b"")?;
    let ends = path
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'/')
        .map(|(at, _)| at);
    let mut start = 0;
    for end in ends.chain([path.len()]) {
        parent = match open(&path[..end]) {
            Err(error) if missing(&error) => {
                let name = sys::c_string(&path[start..end])?;
                if end == path.len() && !directory {
                    drop(sys::create_file(parent.as_fd(), &name)?);
                    sys::chmod(parent.as_fd(), &name, 0o644)?;
                } else {
                    sys::mkdir(parent.as_fd(), &name, 0o755)?;
                    sys::chmod(parent.as_fd(), &name, 0o755)?;
                }
                open(&path[..end])?
            }
            opened => opened?,
        };
        start = end + 1;
    }
    Node::from_fd(parent).map(Some)
}

/// Makes `root` the root of this thread's namespace and detaches the host's mounts.
fn let_go_of_host(root: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed; the working directory is this thread's own.
    check(unsafe { libc::fchdir(root.as_raw_fd()) })?;
    // SAFETY: both names are valid for the call.
    let pivoted =
        done(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) });
    match pivoted {
        // The host's root is an initramfs or shared with a chroot: then its mounts are held until
        // the view is closed.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
        pivoted => pivoted?,
    }
    // SAFETY: the name is valid for the call. The old root lies on top of the new one now.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) })
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    mount_api::open_directory(path).map_err(doing("open", path))
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every text is valid for the call or null where mount(2) allows it.
    check(unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data).cast(),
        )
    })
}

fn set_readonly(tree: BorrowedFd<'_>) -> io::Result<()> {
    mount_api::set_attributes(tree, (libc::MOUNT_ATTR_RDONLY, 0), 0, false)
}

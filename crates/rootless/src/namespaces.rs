//! The namespaces that an ordinary user's engine lives in.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::check;

/// User, mount and network namespace, held open.
#[derive(Debug)]
pub struct Namespaces {
    user: OwnedFd,
    mount: OwnedFd,
    network: OwnedFd,
}

impl Namespaces {
    /// Those of another process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path)
                .map(OwnedFd::from)
                .map_err(|source| Error::system(format!("open {path}"), source))
        };
        Ok(Self {
            user: open("user")?,
            mount: open("mnt")?,
            network: open("net")?,
        })
    }

    /// Takes three descriptors that came over a socket.
    pub(crate) fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [user, mount, network] = descriptors.try_into().ok()?;
        Some(Self {
            user,
            mount,
            network,
        })
    }

    /// Copies of the descriptors, in the order of `from_descriptors`.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        [&self.user, &self.mount, &self.network]
            .into_iter()
            .map(OwnedFd::try_clone)
            .collect()
    }

    /// The same namespaces once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            user: self.user.try_clone()?,
            mount: self.mount.try_clone()?,
            network: self.network.try_clone()?,
        })
    }

    /// What the links in `/proc/PID/ns` of a process inside say: user, mount, network.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        [&self.user, &self.mount, &self.network]
            .into_iter()
            .map(|fd| {
                let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                Ok(link.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// Whether the network namespace has an interface that is up. The caller has one thread.
    pub(crate) fn has_interface(&self, name: &CStr) -> bool {
        // SAFETY: fork(2) in a process with one thread; the child makes system calls only and
        // ends. `status` is writable.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let is_up = self.enter().is_ok() && interface_flags(name).is_ok_and(is_up);
                libc::_exit(i32::from(!is_up));
            }
            let mut status = 0;
            pid > 0 && libc::waitpid(pid, &raw mut status, 0) == pid && status == 0
        }
    }

    /// Moves this process in, where it is root. It must have one thread only. Allocates nothing,
    /// so that it may be called between fork and exec.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: setns(2) takes no pointers.
        check(unsafe { libc::setns(self.user.as_raw_fd(), libc::CLONE_NEWUSER) })?;
        become_root()?;
        // SAFETY: as above.
        check(unsafe { libc::setns(self.mount.as_raw_fd(), libc::CLONE_NEWNS) })?;
        // SAFETY: as above.
        check(unsafe { libc::setns(self.network.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
    }
}

/// Takes on the ids 0 of the user namespace.
pub(crate) fn become_root() -> io::Result<()> {
    // SAFETY: neither takes pointers.
    check(unsafe { libc::setresgid(0, 0, 0) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(0, 0, 0) }).map(drop)
}

/// In the first process: makes the user namespace.
pub(crate) fn make_user() -> io::Result<()> {
    // SAFETY: unshare(2) takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop)
}

/// In the first process, once its ids are mapped: makes the others and readies them.
pub(crate) fn make_others() -> io::Result<()> {
    become_root()?;
    // SAFETY: unshare(2) takes no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET) })?;
    // What is mounted on the host later shows here; nothing that is mounted here shows there.
    mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE)?;
    bring_up_loopback()?;
    // Shows the interfaces of the new network namespace. A machine that hides parts of its /sys
    // does not allow it; then programs in containers with network `host` see the machine's.
    let _ = remount_sys();
    Ok(())
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is null or a C string; null data is allowed for these.
    check(unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// Mounts a fresh sysfs over the old one, with its control groups.
fn remount_sys() -> io::Result<()> {
    // SAFETY: open_tree(2) reads a C string; a non-negative result is a new descriptor.
    let groups = unsafe {
        let flags = libc::OPEN_TREE_CLONE
            | libc::OPEN_TREE_CLOEXEC
            | libc::c_uint::try_from(libc::AT_RECURSIVE).unwrap_or(0x8000);
        let raw = libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            c"/sys/fs/cgroup".as_ptr(),
            flags,
        );
        i32::try_from(raw).ok().filter(|raw| *raw >= 0)
    };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), flags)?;
    let Some(groups) = groups else {
        return Ok(());
    };
    // SAFETY: both paths are C strings; the descriptor is open and closed once.
    let moved = unsafe {
        let moved = libc::syscall(
            libc::SYS_move_mount,
            groups,
            c"".as_ptr(),
            libc::AT_FDCWD,
            c"/sys/fs/cgroup".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        );
        let moved = if moved < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        };
        libc::close(groups);
        moved
    };
    if moved.is_err() {
        // Better the machine's interfaces than no control groups.
        // SAFETY: a C string.
        unsafe { libc::umount2(c"/sys".as_ptr(), libc::MNT_DETACH) };
    }
    moved
}

fn is_up(flags: libc::c_short) -> bool {
    libc::c_int::from(flags) & libc::IFF_UP != 0
}

fn request(name: &CStr) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request
}

fn interface_flags(name: &CStr) -> io::Result<libc::c_short> {
    let socket = crate::sys::socket(libc::SOCK_DGRAM)?;
    let mut request = request(name);
    // SAFETY: the ioctl fills in the flags of an ifreq that outlives it.
    unsafe {
        check(libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFFLAGS,
            &raw mut request,
        ))?;
        Ok(request.ifr_ifru.ifru_flags)
    }
}

fn bring_up_loopback() -> io::Result<()> {
    let socket = crate::sys::socket(libc::SOCK_DGRAM)?;
    let mut request = request(c"lo");
    request.ifr_ifru.ifru_flags =
        interface_flags(c"lo")? | libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the ioctl reads an ifreq that outlives it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
        .map(drop)
}

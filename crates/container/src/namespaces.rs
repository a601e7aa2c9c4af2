//! Namespaces to make and to join (namespaces(7)), id mappings and clock offsets.

use crate::error::{Context, Error};
use crate::newidmap;
use crate::sys::{self, Errno};
use gamut_abi::plan::{IdMapping, NamespaceKind, NamespaceSource, Plan, TimeOffset};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `CLONE_NEWTIME`, which only clone3, unshare and setns know.
const CLONE_NEWTIME: i32 = 0x80;

/// A namespace to join.
pub(crate) struct Join<'a> {
    kind: i32,
    name: &'static str,
    descriptor: Descriptor<'a>,
}

enum Descriptor<'a> {
    Opened(OwnedFd),
    Passed(BorrowedFd<'a>),
}

impl Join<'_> {
    /// The descriptor, if this is a user namespace.
    pub(crate) fn user_namespace(&self) -> Option<BorrowedFd<'_>> {
        (self.kind == libc::CLONE_NEWUSER).then(|| self.as_fd())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.descriptor {
            Descriptor::Opened(fd) => fd.as_fd(),
            Descriptor::Passed(fd) => *fd,
        }
    }
}

/// What a plan's namespaces come to.
pub(crate) struct Layout<'a> {
    /// `CLONE_NEW*` bits for clone3.
    pub clone_flags: u64,
    /// Namespaces to join, user and mount left out of the order: see [`join`].
    pub joins: Vec<Join<'a>>,
    /// A user namespace is made or joined.
    pub has_user: bool,
    /// It is made.
    pub new_user: bool,
    /// A mount namespace is made, so there is a root to be built.
    pub new_mount: bool,
    /// The caller's mounts are shared, so the root is mounted there.
    pub shares_mounts: bool,
    /// A network namespace is made, whose loopback is down.
    pub new_network: bool,
    /// A cgroup namespace is made, after the process has joined its group.
    pub new_cgroup: bool,
    /// Joining needs a process that is not yet the container's first one.
    pub intermediate: bool,
}

/// `CLONE_NEW*` bit and name of a kind.
pub(crate) fn kind_flag(kind: NamespaceKind) -> (i32, &'static str) {
    match kind {
        NamespaceKind::User => (libc::CLONE_NEWUSER, "user"),
        NamespaceKind::Mount => (libc::CLONE_NEWNS, "mount"),
        NamespaceKind::Network => (libc::CLONE_NEWNET, "network"),
        NamespaceKind::Pid => (libc::CLONE_NEWPID, "pid"),
        NamespaceKind::Ipc => (libc::CLONE_NEWIPC, "ipc"),
        NamespaceKind::Uts => (libc::CLONE_NEWUTS, "uts"),
        NamespaceKind::Cgroup => (libc::CLONE_NEWCGROUP, "cgroup"),
        NamespaceKind::Time => (CLONE_NEWTIME, "time"),
    }
}

impl<'a> Layout<'a> {
    /// Sorts a plan's namespaces and opens those given by path.
    pub(crate) fn of(plan: &Plan, descriptors: &'a [OwnedFd]) -> Result<Self, Error> {
        let mut layout = Self {
            clone_flags: 0,
            joins: Vec::new(),
            has_user: false,
            new_user: false,
            new_mount: false,
            shares_mounts: plan
                .namespaces
                .iter()
                .all(|namespace| namespace.kind != NamespaceKind::Mount),
            new_network: false,
            new_cgroup: false,
            intermediate: !plan.time_offsets.is_empty(),
        };
        let mut seen = 0;
        for namespace in &plan.namespaces {
            let (kind, name) = kind_flag(namespace.kind);
            if seen & kind != 0 {
                return Err(Error::invalid(
                    ["namespace ", name, " is listed twice"].concat(),
                ));
            }
            seen |= kind;
            layout.has_user |= namespace.kind == NamespaceKind::User;
            let descriptor = match &namespace.source {
                NamespaceSource::New => {
                    layout.make(namespace.kind, plan);
                    continue;
                }
                NamespaceSource::Path(path) => Descriptor::Opened(
                    sys::c_string(path)
                        .and_then(|path| sys::open(sys::cwd(), &path, libc::O_RDONLY))
                        .doing("open namespace", path)?,
                ),
                NamespaceSource::Descriptor(index) => Descriptor::Passed(
                    usize::try_from(*index)
                        .ok()
                        .and_then(|index| descriptors.get(index))
                        .ok_or_else(|| {
                            Error::invalid(
                                ["no descriptor came along for namespace ", name].concat(),
                            )
                        })?
                        .as_fd(),
                ),
            };
            let renames = plan.hostname.is_some() || plan.domainname.is_some();
            if namespace.kind == NamespaceKind::Uts && renames {
                refuse_own_names(&descriptor)?;
            }
            layout.intermediate |= namespace.kind == NamespaceKind::Pid;
            layout.joins.push(Join {
                kind,
                name,
                descriptor,
            });
        }
        layout.intermediate |= layout.has_user && !layout.joins.is_empty();
        Ok(layout)
    }

    fn make(&mut self, kind: NamespaceKind, plan: &Plan) {
        match kind {
            // Both need something to be done before anybody may be in them.
            NamespaceKind::Cgroup => self.new_cgroup = true,
            NamespaceKind::Time if !plan.time_offsets.is_empty() => {}
            _ => self.clone_flags |= u64::from(kind_flag(kind).0.unsigned_abs()),
        }
        match kind {
            NamespaceKind::User => self.new_user = true,
            NamespaceKind::Mount => self.new_mount = true,
            NamespaceKind::Network => self.new_network = true,
            _ => {}
        }
    }
}

/// A name must not be given to the host.
fn refuse_own_names(descriptor: &Descriptor<'_>) -> Result<(), Error> {
    let theirs = match descriptor {
        Descriptor::Opened(fd) => sys::fstat(fd.as_fd()),
        Descriptor::Passed(fd) => sys::fstat(*fd),
    };
    let own = sys::open(sys::cwd(), c"/proc/self/ns/uts", libc::O_RDONLY)
        .and_then(|own| sys::fstat(own.as_fd()));
    let (theirs, own) = theirs
        .and_then(|theirs| own.map(|own| (theirs, own)))
        .doing("look at namespace", "uts")?;
    if (theirs.st_dev, theirs.st_ino) == (own.st_dev, own.st_ino) {
        return Err(Error::invalid(
            "a host or domain name would change that of the host, whose uts namespace is joined",
        ));
    }
    Ok(())
}

/// Joins namespaces. Those that the host's root may still join come before the user namespace,
/// the others after it; the mount namespace comes last, since it changes the root.
pub(crate) fn join(joins: &[Join<'_>]) -> Result<(), Error> {
    let failed =
        |join: &Join<'_>, errno| Error::system(&["join namespace ", join.name].concat(), errno);
    let user = joins.iter().find(|join| join.kind == libc::CLONE_NEWUSER);
    let mut rest: Vec<&Join<'_>> = joins
        .iter()
        .filter(|join| join.kind != libc::CLONE_NEWUSER)
        .collect();
    rest.sort_by_key(|join| join.kind == libc::CLONE_NEWNS);
    if let Some(user) = user {
        let mut later = Vec::new();
        for join in rest {
            match sys::setns(join.as_fd(), join.kind) {
                Ok(()) => {}
                Err(Errno(libc::EPERM)) => later.push(join),
                Err(errno) => return Err(failed(join, errno)),
            }
        }
        sys::setns(user.as_fd(), user.kind).map_err(|errno| failed(user, errno))?;
        rest = later;
    }
    for join in rest {
        sys::setns(join.as_fd(), join.kind).map_err(|errno| failed(join, errno))?;
    }
    Ok(())
}

/// Becomes root of the user namespace, if it maps one; otherwise the ids stay unmapped.
pub(crate) fn become_root_inside() -> Result<(), Error> {
    // SAFETY: plain calls. The C library's wrappers would signal threads that are not ours.
    let result = unsafe {
        let gid = libc::syscall(libc::SYS_setresgid, 0, 0, 0);
        if gid < 0 {
            gid
        } else {
            libc::syscall(libc::SYS_setresuid, 0, 0, 0)
        }
    };
    if result < 0 && Errno::last() != Errno(libc::EINVAL) {
        return Err(Error::system(
            "become root of the user namespace",
            Errno::last(),
        ));
    }
    Ok(())
}

/// Writes the id mappings of a child's new user namespace (user_namespaces(7)).
pub(crate) fn write_mappings(
    pid: u32,
    uid_mappings: &[IdMapping],
    gid_mappings: &[IdMapping],
) -> Result<(), Error> {
    let base = ["/proc/", &pid.to_string(), "/"].concat();
    let way_out = "ids of others need CAP_SETUID and CAP_SETGID in the parent user namespace";
    // SAFETY: neither can fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if uid != 0
        && !(newidmap::may_write(uid_mappings, uid) && newidmap::may_write(gid_mappings, gid))
    {
        newidmap::run("newuidmap", pid, uid_mappings)?;
        return newidmap::run("newgidmap", pid, gid_mappings);
    }
    if uid != 0 && !gid_mappings.is_empty() {
        // An unprivileged parent must give up setgroups first.
        match sys::write_file(&[&base, "setgroups"].concat(), "deny") {
            Ok(()) | Err(Errno(libc::ENOENT)) => {}
            Err(errno) => return Err(Error::system("deny setgroups", errno)),
        }
    }
    if !uid_mappings.is_empty() {
        sys::write_file(&[&base, "uid_map"].concat(), &mapping_text(uid_mappings))
            .map_err(|errno| Error::with_detail("map user ids", errno, way_out))?;
    }
    if !gid_mappings.is_empty() {
        sys::write_file(&[&base, "gid_map"].concat(), &mapping_text(gid_mappings))
            .map_err(|errno| Error::with_detail("map group ids", errno, way_out))?;
    }
    Ok(())
}

fn mapping_text(mappings: &[IdMapping]) -> String {
    let mut text = String::new();
    for mapping in mappings {
        for number in [mapping.container_id, mapping.host_id, mapping.size] {
            text.push_str(&number.to_string());
            text.push(' ');
        }
        text.push('\n');
    }
    text
}

/// Makes a time namespace for the children of this process, with clock offsets
/// (time_namespaces(7)).
pub(crate) fn make_time_namespace(offsets: &[TimeOffset]) -> Result<(), Error> {
    sys::unshare(CLONE_NEWTIME).doing("make namespace", "time")?;
    let mut text = String::new();
    for offset in offsets {
        text.push_str(if offset.boottime {
            "boottime "
        } else {
            "monotonic "
        });
        text.push_str(&offset.seconds.to_string());
        text.push(' ');
        text.push_str(&offset.nanoseconds.to_string());
        text.push('\n');
    }
    sys::write_file("/proc/self/timens_offsets", &text).doing("set", "clock offsets")
}

/// Brings up the loopback of a new network namespace (netdevice(7)).
pub(crate) fn bring_up_loopback() -> Result<(), Error> {
    // SAFETY: all zeros is a valid ifreq; the calls read and write it while it lives; the socket
    // is closed on every way out.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(Error::system("bring up the loopback", Errno::last()));
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).unwrap_or_default();
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        let errno = Errno::last();
        libc::close(socket);
        if result < 0 {
            return Err(Error::system("bring up the loopback", errno));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_lines_of_three_numbers() {
        let mapping = |container_id, host_id, size| IdMapping {
            container_id,
            host_id,
            size,
        };
        assert_eq!(
            mapping_text(&[mapping(0, 100_000, 65536), mapping(65536, 7, 1)]),
            "0 100000 65536 \n65536 7 1 \n"
        );
    }
}

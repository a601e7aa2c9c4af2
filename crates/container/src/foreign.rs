//! Mounts of another mount namespace, as `/proc/PID/root/dev/shm`: a container that shares the IPC
//! namespace of another shares its POSIX shared memory, too.
//!
//! open_tree(2) copies only what belongs to the caller's mount namespace, but a copy, once made,
//! belongs to none and can be attached anywhere. So the caller goes there, copies and comes back.

use crate::sys::{self, Errno, SysResult};
use std::os::fd::{AsFd, OwnedFd};

/// The process id and the path inside, of a path through another process's root.
fn parse(source: &str) -> Option<(&str, &str)> {
    let (pid, inside) = source.strip_prefix("/proc/")?.split_once("/root/")?;
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !inside.is_empty()).then_some((pid, inside))
}

/// Whether a path leads through another process's root.
pub(crate) fn is_foreign(source: &str) -> bool {
    parse(source).is_some()
}

/// Copies a mount of another mount namespace, detached. The path inside is the other container's
/// to arrange, so no link is followed. The caller has one thread; its working directory and root
/// are those of its mount namespace afterwards.
pub(crate) fn clone_tree(source: &str, recursive: bool) -> SysResult<OwnedFd> {
    let (pid, inside) = parse(source).ok_or(Errno(libc::EINVAL))?;
    let open = |path: &str| sys::open(sys::cwd(), &sys::c_string(path)?, libc::O_RDONLY);
    let home = open("/proc/self/ns/mnt")?;
    let there = open(&["/proc/", pid, "/ns/mnt"].concat())?;
    sys::setns(there.as_fd(), libc::CLONE_NEWNS)?;
    let cloned = sys::open(sys::cwd(), c"/", libc::O_PATH | libc::O_DIRECTORY).and_then(|root| {
        let beneath = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
        let path = sys::c_string(inside)?;
        let found = sys::openat2(root.as_fd(), &path, libc::O_PATH, 0, beneath)?;
        sys::clone_tree(found.as_fd(), c"", recursive)
    });
    sys::setns(home.as_fd(), libc::CLONE_NEWNS)?;
    cloned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_through_a_process_are_foreign() {
        assert_eq!(parse("/proc/12/root/dev/shm"), Some(("12", "dev/shm")));
        for path in [
            "/proc/self/root/dev/shm",
            "/proc//root/x",
            "/proc/1/root/",
            "/dev/shm",
        ] {
            assert!(!is_foreign(path), "{path}");
        }
    }
}

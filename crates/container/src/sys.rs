//! The system calls that the C library does not wrap, and small safe wrappers of those it does.

mod mount;
mod socket;

pub(crate) use mount::{
    FilesystemContext, chroot_here, clone_tree, detach, detach_here, mount_classic, mount_idmap,
    mount_setattr, move_mount, pivot_root_here, set_propagation_everywhere,
};
pub(crate) use socket::{Control, send_with_descriptor};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// An error number of the kernel (errno(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub i32);

/// What a system call answers.
pub(crate) type SysResult<T> = Result<T, Errno>;

impl Errno {
    /// The error of the system call that just failed.
    pub(crate) fn last() -> Self {
        // SAFETY: the C library's errno of this thread is always valid to read.
        Self(unsafe { *libc::__errno_location() })
    }

    /// The C library's words for it, beginning in lower case.
    pub(crate) fn text(self) -> String {
        let mut buffer = [0_u8; 96];
        // SAFETY: the buffer is writable for its length; strerror_r ends the text with NUL.
        unsafe { libc::strerror_r(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
        let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
        let mut text = text.to_string_lossy().into_owned();
        if let Some(first) = text.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        text
    }
}

/// A path or text for the kernel; a NUL inside is `EINVAL`.
pub(crate) fn c_string(text: &str) -> SysResult<CString> {
    CString::new(text).map_err(|_| Errno(libc::EINVAL))
}

fn check(result: libc::c_long) -> SysResult<libc::c_long> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}

fn check_int(result: libc::c_int) -> SysResult<libc::c_int> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}

/// Takes ownership of a descriptor that the kernel just returned.
fn owned(result: libc::c_long) -> SysResult<OwnedFd> {
    let fd = RawFd::try_from(check(result)?).map_err(|_| Errno(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `AT_FDCWD`: paths are relative to the working directory.
pub(crate) fn cwd<'a>() -> BorrowedFd<'a> {
    // SAFETY: AT_FDCWD is not -1 and stays valid for ever.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

// ---------------------------------------------------------------- processes

/// `struct clone_args` (clone3(2)).
#[repr(C, align(8))]
#[derive(Default)]
pub(crate) struct CloneArguments {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// `CLONE_PIDFD` etc. as clone3(2) has them, 64 bits wide.
pub(crate) const CLONE_PIDFD: u64 = 0x1000;
pub(crate) const CLONE_PARENT: u64 = 0x8000;
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone this is.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The caller, with the new process's id and descriptor.
    Parent { pid: u32, pidfd: OwnedFd },
}

/// Clones this process without sharing memory, with a pidfd (clone3(2)).
///
/// # Safety
/// The calling process must have a single thread: the child gets a copy of this thread only, and
/// locks that others held would stay locked. The child must end by execve or `_exit`.
pub(crate) unsafe fn clone_process(
    flags: u64,
    exit_signal: i32,
    cgroup: Option<BorrowedFd<'_>>,
) -> SysResult<Side> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(exit_signal.unsigned_abs()),
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the arguments are a valid clone_args of the size given; without CLONE_VM the child
    // has its own copy of the stack and simply returns. The rest is the caller's promise.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<CloneArguments>(),
        )
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    let pid = u32::try_from(pid).map_err(|_| Errno(libc::ESRCH))?;
    // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor of ours there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid, pidfd })
}

/// Ends this process at once: no exit handlers, no flushing of buffers that are the parent's.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Held by a cloned process: should it panic where that unwinds, it ends here, rather than go on
/// in the code of its parent.
pub(crate) struct NeverUnwind;

impl Drop for NeverUnwind {
    fn drop(&mut self) {
        exit(101);
    }
}

/// A process id as the C library has it.
pub(crate) fn pid_t(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX)
}

/// Kills a child and waits until it is gone.
pub(crate) fn kill_and_reap(pid: u32) {
    // SAFETY: plain call; the pid is that of a child not yet waited for, so it cannot be reused.
    unsafe { libc::kill(pid_t(pid), libc::SIGKILL) };
    reap(pid);
}

/// Waits for a child and answers its wait status; `None` if somebody else waited for it.
pub(crate) fn reap(pid: u32) -> Option<i32> {
    let mut status = 0;
    loop {
        // SAFETY: status is writable. __WALL: whatever its exit signal.
        let got = unsafe { libc::waitpid(pid_t(pid), &raw mut status, libc::__WALL) };
        if got >= 0 {
            return Some(status);
        }
        if Errno::last() != Errno(libc::EINTR) {
            return None;
        }
    }
}

/// Whether a child is stopped by a signal. Children without an exit signal count, too.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: all zeros is a valid siginfo_t, which the call may fill.
    unsafe {
        let mut found: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid, &raw mut found, options) == 0 && found.si_pid() != 0
    }
}

/// Joins namespaces (setns(2)).
pub(crate) fn setns(fd: BorrowedFd<'_>, kinds: i32) -> SysResult<()> {
    // SAFETY: plain call with a valid descriptor.
    check_int(unsafe { libc::setns(fd.as_raw_fd(), kinds) }).map(drop)
}

/// Makes namespaces (unshare(2)).
pub(crate) fn unshare(kinds: i32) -> SysResult<()> {
    // SAFETY: plain call.
    check_int(unsafe { libc::unshare(kinds) }).map(drop)
}

/// prctl(2) with plain numbers as arguments.
pub(crate) fn prctl(option: i32, argument2: u64, argument3: u64) -> SysResult<i32> {
    // SAFETY: only options that take numbers are used in this crate.
    check_int(unsafe { libc::prctl(option, argument2, argument3, 0_u64, 0_u64) })
}

// ---------------------------------------------------------------- files

/// `RESOLVE_*` bits of openat2(2).
pub(crate) mod resolve {
    /// Refuse magic links of /proc.
    pub(crate) const NO_MAGICLINKS: u64 = 0x02;
    /// Refuse every symbolic link.
    pub(crate) const NO_SYMLINKS: u64 = 0x04;
    /// Refuse to leave the directory.
    pub(crate) const BENEATH: u64 = 0x08;
    /// Treat the directory as the root.
    pub(crate) const IN_ROOT: u64 = 0x10;
    /// Refuse to cross mounts.
    pub(crate) const NO_XDEV: u64 = 0x01;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), always close-on-exec. `EAGAIN` (a rename raced) is tried again.
pub(crate) fn openat2(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> SysResult<OwnedFd> {
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).unsigned_abs()),
        mode: u64::from(mode),
        resolve,
    };
    let mut tries = 0;
    loop {
        // SAFETY: path is NUL-terminated and how is a valid open_how of the size given.
        let result = owned(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        });
        match result {
            Err(Errno(libc::EAGAIN | libc::EINTR)) if tries < 64 => tries += 1,
            other => return other,
        }
    }
}

/// openat(2), always close-on-exec, for paths that are ours.
pub(crate) fn open(directory: BorrowedFd<'_>, path: &CStr, flags: i32) -> SysResult<OwnedFd> {
    // SAFETY: path is NUL-terminated.
    owned(libc::c_long::from(unsafe {
        libc::openat(
            directory.as_raw_fd(),
            path.as_ptr(),
            flags | libc::O_CLOEXEC,
            0,
        )
    }))
}

/// fstat(2).
/// Whether this process has not the rights of the machine's root: it is another user's, or root
/// in a user namespace only.
#[must_use]
pub fn is_unprivileged() -> bool {
    // SAFETY: only returns a number.
    unsafe { libc::geteuid() != 0 || is_in_user_namespace() }
}

/// Whether this process is in another user namespace than the machine's first. One system call:
/// the first one's inode number is fixed (`PROC_USER_INIT_INO` in Linux's proc_ns.h).
pub(crate) fn is_in_user_namespace() -> bool {
    const FIRST: u64 = 0xefff_fffd;
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is a C string and `stat` is writable; all-zero is a valid stat.
    unsafe {
        libc::stat(c"/proc/self/ns/user".as_ptr(), stat.as_mut_ptr()) == 0
            && stat.assume_init().st_ino != FIRST
    }
}

pub(crate) fn fstat(fd: BorrowedFd<'_>) -> SysResult<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the buffer is writable; on success the kernel has filled it.
    unsafe {
        check_int(libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()))?;
        Ok(stat.assume_init())
    }
}

/// Is this a directory?
pub(crate) fn is_directory(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// Is this the character device with these numbers?
pub(crate) fn is_character_device(stat: &libc::stat, major: u32, minor: u32) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(major, minor)
}

/// Magic number of the file system a descriptor is on (statfs(2)).
pub(crate) fn filesystem_magic(fd: BorrowedFd<'_>) -> SysResult<i64> {
    let mut statfs = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the buffer is writable; on success the kernel has filled it.
    unsafe {
        check_int(libc::fstatfs(fd.as_raw_fd(), statfs.as_mut_ptr()))?;
        Ok(statfs.assume_init().f_type)
    }
}

/// `ST_*` flags of the mount of an open file (statvfs(3)), those of the whole file system included.
pub(crate) fn mount_flags(fd: BorrowedFd<'_>) -> SysResult<u64> {
    let mut statvfs = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the buffer is writable; on success it has been filled.
    unsafe {
        check_int(libc::fstatvfs(fd.as_raw_fd(), statvfs.as_mut_ptr()))?;
        Ok(statvfs.assume_init().f_flag)
    }
}

/// Number of the mount of an open file (statx(2)), unique until the machine is started again where
/// the kernel (since 6.8) has such numbers.
pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> SysResult<u64> {
    /// `STATX_MNT_ID` and `STATX_MNT_ID_UNIQUE`
    const MOUNT_IDS: libc::c_uint = 0x1000 | 0x4000;
    let mut statx = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the path is an empty NUL-terminated text, the buffer writable; on success the kernel
    // has filled it.
    unsafe {
        check_int(libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            MOUNT_IDS,
            statx.as_mut_ptr(),
        ))?;
        Ok(statx.assume_init().stx_mnt_id)
    }
}

/// read(2) into a buffer, once.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> SysResult<usize> {
    loop {
        // SAFETY: the buffer is writable for its length.
        let got = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(got) => return Ok(got),
            Err(_) if Errno::last() == Errno(libc::EINTR) => {}
            Err(_) => return Err(Errno::last()),
        }
    }
}

/// Reads a whole file of at most `limit_bytes`; a longer one is `EFBIG`.
pub(crate) fn read_all(fd: BorrowedFd<'_>, limit_bytes: usize) -> SysResult<Vec<u8>> {
    let mut content = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let got = read(fd, &mut chunk)?;
        if got == 0 {
            return Ok(content);
        }
        if content.len() + got > limit_bytes {
            return Err(Errno(libc::EFBIG));
        }
        content.extend_from_slice(&chunk[..got]);
    }
}

/// write(2), once: what the kernel's control files want.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> SysResult<usize> {
    // SAFETY: the bytes are readable for their length.
    let put = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(put).map_err(|_| Errno::last())
}

/// Writes a text to a control file by its path.
pub(crate) fn write_file(path: &str, text: &str) -> SysResult<()> {
    let file = open(cwd(), &c_string(path)?, libc::O_WRONLY)?;
    write(std::os::fd::AsFd::as_fd(&file), text.as_bytes()).map(drop)
}

/// mkdirat(2).
pub(crate) fn mkdir(directory: BorrowedFd<'_>, name: &CStr, mode: u32) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::mkdirat(directory.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2).
pub(crate) fn mknod(
    directory: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    device: libc::dev_t,
) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::mknodat(directory.as_raw_fd(), name.as_ptr(), mode, device) })
        .map(drop)
}

/// symlinkat(2).
pub(crate) fn symlink(target: &CStr, directory: BorrowedFd<'_>, name: &CStr) -> SysResult<()> {
    // SAFETY: both texts are NUL-terminated.
    check_int(unsafe { libc::symlinkat(target.as_ptr(), directory.as_raw_fd(), name.as_ptr()) })
        .map(drop)
}

/// readlinkat(2).
pub(crate) fn readlink(directory: BorrowedFd<'_>, name: &CStr) -> SysResult<Vec<u8>> {
    let mut buffer = vec![0_u8; 4096];
    // SAFETY: name is NUL-terminated, the buffer is writable for its length.
    let got = unsafe {
        libc::readlinkat(
            directory.as_raw_fd(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    let got = usize::try_from(got).map_err(|_| Errno::last())?;
    buffer.truncate(got);
    Ok(buffer)
}

/// unlinkat(2) of a file.
pub(crate) fn unlink(directory: BorrowedFd<'_>, name: &CStr) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// unlinkat(2) of an empty directory.
pub(crate) fn remove_directory(directory: BorrowedFd<'_>, name: &CStr) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
        .map(drop)
}

/// fchownat(2) of a name itself; `u32::MAX` leaves an id as it is.
pub(crate) fn chown(directory: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> SysResult<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::fchownat(directory.as_raw_fd(), name.as_ptr(), uid, gid, flags) })
        .map(drop)
}

/// fchmod(2).
pub(crate) fn fchmod(fd: BorrowedFd<'_>, mode: u32) -> SysResult<()> {
    // SAFETY: plain call with a valid descriptor.
    check_int(unsafe { libc::fchmod(fd.as_raw_fd(), mode) }).map(drop)
}

/// Labels what a descriptor of any kind refers to (setxattr(2), `security.selinux`).
pub(crate) fn set_selinux_label(fd: BorrowedFd<'_>, label: &str) -> SysResult<()> {
    let path = c_string(&["/proc/self/fd/", &fd.as_raw_fd().to_string()].concat())?;
    // SAFETY: path and name are NUL-terminated, the label is readable for its length.
    check_int(unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.selinux".as_ptr(),
            label.as_ptr().cast(),
            label.len(),
            0,
        )
    })
    .map(drop)
}

/// fchdir(2).
pub(crate) fn fchdir(fd: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: plain call with a valid descriptor.
    check_int(unsafe { libc::fchdir(fd.as_raw_fd()) }).map(drop)
}

/// umask(2).
pub(crate) fn umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

/// dup2(2) onto a standard stream, which is inherited over execve.
pub(crate) fn dup_to(fd: BorrowedFd<'_>, number: RawFd) -> SysResult<()> {
    if fd.as_raw_fd() == number {
        // dup2 onto itself would leave close-on-exec set.
        // SAFETY: plain call with a valid descriptor.
        return check_int(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: the numbers used are those of the program about to be executed (0 to 2, and those that
    // are preserved), which this process gives away for good.
    check_int(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// A close-on-exec copy of a descriptor, numbered `minimum` or above (fcntl(2)).
pub(crate) fn dup_above(fd: BorrowedFd<'_>, minimum: RawFd) -> SysResult<OwnedFd> {
    // SAFETY: plain call with a valid descriptor.
    owned(libc::c_long::from(unsafe {
        libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, minimum)
    }))
}

/// close_range(2) from `first` on; `flags` may be `CLOSE_RANGE_CLOEXEC`.
pub(crate) fn close_from(first: u32, flags: u32) -> SysResult<()> {
    // SAFETY: only called where no owner of a descriptor in the range runs its destructor any
    // more: before execve, or in a stage that ends by execve or _exit.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// Closes every descriptor but these, for good.
pub(crate) fn close_all_but(kept: &mut [RawFd]) -> SysResult<()> {
    kept.sort_unstable();
    let mut first = 0_u32;
    for fd in kept {
        let fd = fd.unsigned_abs();
        if fd > first {
            // SAFETY: as in close_from.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) })?;
        }
        first = first.max(fd + 1);
    }
    close_from(first, 0)
}

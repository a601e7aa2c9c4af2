//! What the worker gives up before it reads anything that a container sends.
//!
//! It keeps what finding a container's network namespace (`/proc/PID/ns/net`), entering it and
//! leading port 53 there take. Of the daemon's other rights none is left, and programs that it
//! could start get none back.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::error::{Error, Result};

/// Version 3 of capget(2) and capset(2).
const CAPABILITY_VERSION: u32 = 0x2008_0522;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const KEPT: u64 = 1 << CAP_NET_ADMIN | 1 << CAP_SYS_PTRACE | 1 << CAP_SYS_ADMIN;
const MAX_CAPABILITIES: u32 = 64;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: i32,
}

/// Of thirty-two capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all rights but those that serving takes, now and for ever. To be called with one
/// thread.
///
/// # Errors
/// The kernel's.
pub(crate) fn confine() -> Result<()> {
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(failed("forbid new privileges"));
    }
    drop_capabilities()?;
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit is valid for reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) } != 0 {
        return Err(failed("forbid core files"));
    }
    let refused = |error: &dyn std::fmt::Display| {
        Error::system(
            "confine the resolver (seccomp)",
            io::Error::other(error.to_string()),
        )
    };
    let filter = filter().map_err(|error| refused(&error))?;
    seccompiler::apply_filter(&filter).map_err(|error| refused(&error))
}

fn failed(operation: &str) -> Error {
    Error::system(
        format!("confine the resolver ({operation})"),
        io::Error::last_os_error(),
    )
}

fn drop_capabilities() -> Result<()> {
    for capability in 0..MAX_CAPABILITIES {
        if KEPT >> capability & 1 == 1 {
            continue;
        }
        // Ends with the first one that the kernel does not know. Without CAP_SETPCAP the bounding
        // set stays; what is permitted shrinks all the same.
        // SAFETY: plain numbers.
        if unsafe {
            libc::prctl(
                libc::PR_CAPBSET_DROP,
                libc::c_ulong::from(capability),
                0,
                0,
                0,
            )
        } != 0
        {
            break;
        }
    }
    // SAFETY: plain numbers. Fails only where there are no ambient capabilities.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        process: 0,
    };
    let mut sets = [CapabilitySets::default(); 2];
    // SAFETY: header and sets are as capget(2) wants them, the sets writable.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) } != 0 {
        return Err(failed("look at its capabilities"));
    }
    for (index, half) in sets.iter_mut().enumerate() {
        let kept = u32::try_from(KEPT >> (32 * index) & u64::from(u32::MAX)).unwrap_or(0);
        half.permitted &= kept;
        half.effective = half.permitted;
        half.inheritable = 0;
    }
    // SAFETY: header and sets are as capset(2) wants them.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        return Err(failed("give up capabilities"));
    }
    Ok(())
}

/// System calls of the worker, its runtime and its threads, and of the keeper that it becomes when
/// its own is killed.
const ALLOWED: &[i64] = &[
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
    libc::SYS_socketpair,
    // Files: records, status files, namespaces, the lock.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    // Waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads and processes.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_pidfd_open,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setsid,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_wait4,
    // Namespaces, and what the next generation gives up.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_seccomp,
    libc::SYS_setns,
];

/// Calls of an older fashion that the C library still makes on this architecture.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_epoll_wait,
    libc::SYS_fork,
    libc::SYS_open,
    libc::SYS_pipe2,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[i64] = &[libc::SYS_pipe2];

/// What is not allowed is refused rather than punished: names shall be known on a machine whose C
/// library does things differently.
fn filter() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, Vec<_>> = ALLOWED
        .iter()
        .chain(ALLOWED_OLD)
        .map(|call| (*call, Vec::new()))
        .collect();
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        architecture,
    )?
    .try_into()
}

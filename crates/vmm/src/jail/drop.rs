//! Privileges, user and limits.

use std::io;

use crate::error::{Error, Result};

/// User and group that own nothing.
pub const NOBODY: u32 = 65534;

/// Version 3 of capget(2).
const CAPABILITY_VERSION: u32 = 0x2008_0522;
const MAX_CAPABILITIES: u64 = 64;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: i32,
}

/// Becomes nobody, without any capability, now and for ever.
pub(super) fn privileges() -> Result<()> {
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(Error::last("forbid new privileges"));
    }
    for capability in 0..MAX_CAPABILITIES {
        // Ends with the first one that the kernel does not know. Without CAP_SETPCAP there is
        // nothing to lose either.
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    become_nobody()?;
    drop_capabilities()?;
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(Error::last("forbid looking into the monitor"));
    }
    Ok(())
}

/// Changes user and group, if this is root and the other user exists here.
fn become_nobody() -> Result<()> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    // Raw calls: there is one thread, and the C library's would signal all of them.
    // SAFETY: plain numbers, an empty list.
    let refused = unsafe {
        // In a user namespace of an ordinary user it is forbidden; then there are no groups.
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>());
        libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) != 0
            || libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) != 0
    };
    if !refused {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Not mapped in this user namespace: root of it is nobody outside.
        Some(libc::EINVAL) => Ok(()),
        _ => Err(Error::system("become another user", error)
            .with_advice("the monitor needs CAP_SETUID and CAP_SETGID to give up the rest")),
    }
}

fn drop_capabilities() -> Result<()> {
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
    let none = [0_u32; 6];
    // SAFETY: header and sets are as capset(2) wants them.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if done != 0 {
        return Err(Error::last("give up all capabilities"));
    }
    Ok(())
}

/// Numbers in a row that are free, after which no descriptor is looked for.
const FREE_NUMBERS: i32 = 64;

/// One more than the highest descriptor that is open.
fn end_of_descriptors() -> i32 {
    let mut end: i32 = 3;
    let mut looked_at = end;
    while looked_at < end.saturating_add(FREE_NUMBERS) {
        // SAFETY: plain numbers.
        if unsafe { libc::fcntl(looked_at, libc::F_GETFD) } >= 0 {
            end = looked_at + 1;
        }
        looked_at += 1;
    }
    end
}

/// No further descriptors but for some, no core file.
pub(super) fn limits(further_descriptors: u64) -> Result<()> {
    // A new descriptor gets the lowest free number: once none is free below the limit, that is one
    // too many. The free ones are taken rather than the limit put below them, since poll(2) waits
    // for no more descriptors than the limit.
    let end = end_of_descriptors();
    loop {
        // SAFETY: plain numbers.
        let taken = unsafe { libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 3) };
        if taken >= end {
            // SAFETY: just made, and nobody else's.
            unsafe { libc::close(taken) };
        }
        if taken < 0 || taken >= end {
            break;
        }
    }
    let open = u64::try_from(end)
        .unwrap_or(64)
        .saturating_add(further_descriptors);
    for (resource, limit) in [(libc::RLIMIT_NOFILE, open), (libc::RLIMIT_CORE, 0)] {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: the limit is valid for reads.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            return Err(Error::last("limit the monitor's resources"));
        }
    }
    Ok(())
}

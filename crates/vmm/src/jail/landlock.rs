//! No file system: a Landlock ruleset without rules (landlock(7)).

use crate::error::{Error, Result};

const CREATE_RULESET: i64 = 444;
const RESTRICT_SELF: i64 = 446;
const VERSION_FLAG: u32 = 1;

/// All rights over files that a version of Landlock knows, by version from 1.
const FILE_RIGHTS: [u64; 5] = [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];
/// Bind and connect of TCP, from version 4.
const NETWORK_RIGHTS: u64 = 3;
/// Abstract unix sockets and signals, from version 6.
const SCOPES: u64 = 3;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Rules {
    files: u64,
    network: u64,
    scopes: u64,
}

/// What is denied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Denied {
    /// Every file that is not open yet.
    pub(super) files: bool,
    /// TCP, abstract sockets of others, and signals to who is not denied as much.
    pub(super) others: bool,
}

/// Denies this thread, and what it will start, files or others. A kernel without Landlock is left
/// to seccomp, which forbids the calls.
pub(super) fn deny(denied: Denied) -> Result<()> {
    // SAFETY: asks for the version, without a ruleset.
    let version = unsafe {
        libc::syscall(
            CREATE_RULESET,
            std::ptr::null::<Rules>(),
            0_usize,
            VERSION_FLAG,
        )
    };
    let Ok(version) = usize::try_from(version) else {
        return Ok(());
    };
    let known = FILE_RIGHTS.len();
    let rules = Rules {
        files: FILE_RIGHTS
            .get(version.clamp(1, known) - 1)
            .filter(|_| denied.files)
            .copied()
            .unwrap_or(0),
        network: if denied.others && version >= 4 {
            NETWORK_RIGHTS
        } else {
            0
        },
        scopes: if denied.others && version >= 6 {
            SCOPES
        } else {
            0
        },
    };
    if (rules.files, rules.network, rules.scopes) == (0, 0, 0) {
        return Ok(());
    }
    let size = match version {
        0..=3 => 8_usize,
        4..=5 => 16,
        _ => 24,
    };
    // SAFETY: the rules are valid for reads of that size.
    let ruleset = unsafe { libc::syscall(CREATE_RULESET, &raw const rules, size, 0_u32) };
    if ruleset < 0 {
        return Err(Error::last("make a Landlock ruleset"));
    }
    // SAFETY: a descriptor just made, closed afterwards.
    let done = unsafe {
        let done = libc::syscall(RESTRICT_SELF, ruleset, 0_u32);
        libc::syscall(libc::SYS_close, ruleset);
        done
    };
    if done != 0 {
        return Err(Error::last("enter a Landlock ruleset"));
    }
    Ok(())
}

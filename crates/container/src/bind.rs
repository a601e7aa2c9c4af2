//! Flags and propagation of bind mounts.

use crate::error::Error;
use crate::root;
use crate::sys::{self, Errno};
use gamut_abi::plan::{Mount, NamespaceKind, Plan, Propagation};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is done, for errors that say by themselves to which mount.
const SET_FLAGS: &str = "set its flags";

/// Bits to clear with bits to set: access times are one field, set as a whole.
pub(crate) fn attribute_bits(mount: &Mount) -> (u64, u64) {
    let times = libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_STRICTATIME;
    let field = if mount.attributes_set & times != 0 {
        libc::MOUNT_ATTR__ATIME
    } else {
        0
    };
    (mount.attributes_set, mount.attributes_clear | field)
}

/// What a bind without a word about it propagates: as the root does, but it can be bound again.
fn default_propagation(root: Propagation) -> Propagation {
    match root {
        Propagation::Unbindable => Propagation::Private,
        other => other,
    }
}

/// Gives a copy of a source, which is attached nowhere yet, its flags and its propagation.
pub(crate) fn adjust(plan: &Plan, mount: &Mount, tree: &OwnedFd) -> Result<(), Error> {
    let (set, clear) = attribute_bits(mount);
    let (propagation, everywhere) = mount
        .propagation
        .unwrap_or((default_propagation(plan.root.propagation), true));
    let propagation = root::propagation_flag(propagation);
    let system = |errno| Error::system(SET_FLAGS, errno);
    let fd = tree.as_fd();
    let adjusted = match mount.implied_clear {
        Some(implied) => {
            let locked = plan
                .namespaces
                .iter()
                .any(|namespace| namespace.kind == NamespaceKind::User);
            set_exactly(fd, (set, clear, implied), locked)?;
            sys::mount_setattr(fd, 0, 0, propagation, everywhere)
        }
        None if set | clear == 0 || mount.attributes_recursive == everywhere => {
            sys::mount_setattr(fd, set, clear, propagation, everywhere)
        }
        None => sys::mount_setattr(fd, set, clear, 0, mount.attributes_recursive)
            .and_then(|()| sys::mount_setattr(fd, 0, 0, propagation, everywhere)),
    };
    adjusted
        .and_then(|()| match mount.recursive_attributes {
            Some((set, clear)) => sys::mount_setattr(fd, set, clear, 0, true),
            None => Ok(()),
        })
        .map_err(system)
}

/// Flags that a user namespace locks: `ST_*` as fstatfs(2) shows them, and their `MOUNT_ATTR_*`.
const LOCKED: [(u64, u64, &str); 4] = [
    (libc::ST_RDONLY, libc::MOUNT_ATTR_RDONLY, "ro"),
    (libc::ST_NOSUID, libc::MOUNT_ATTR_NOSUID, "nosuid"),
    (libc::ST_NODEV, libc::MOUNT_ATTR_NODEV, "nodev"),
    (libc::ST_NOEXEC, libc::MOUNT_ATTR_NOEXEC, "noexec"),
];

/// Sets the flags of a mount as a whole. `locked`: it is for a user namespace, to which the kernel
/// would not let go flags of its source. This process may be able to clear them nevertheless, so
/// it is checked here that none is lost.
fn set_exactly(
    tree: BorrowedFd<'_>,
    (set, clear, implied): (u64, u64, u64),
    locked: bool,
) -> Result<(), Error> {
    let system = |errno| Error::system(SET_FLAGS, errno);
    if !locked {
        match sys::mount_setattr(tree, set, clear | implied, 0, false) {
            // The caller is in a user namespace himself.
            Err(Errno(libc::EPERM)) => {}
            other => return other.map_err(system),
        }
    }
    let kept = LOCKED.iter().fold(0, |bits, (_, bit, _)| bits | bit);
    let before = sys::mount_flags(tree).map_err(system)?;
    sys::mount_setattr(tree, set, clear | implied & !kept, 0, false).map_err(|errno| {
        let detail = "flags of the source that user namespaces lock cannot be cleared";
        Error::with_detail(SET_FLAGS, errno, detail)
    })?;
    let after = sys::mount_flags(tree).map_err(system)?;
    let times = libc::ST_NOATIME | libc::ST_NODIRATIME | libc::ST_RELATIME;
    let mut lost: Vec<&str> = LOCKED
        .iter()
        .filter(|(flag, _, _)| before & !after & flag != 0)
        .map(|(_, _, name)| *name)
        .collect();
    if (before ^ after) & times != 0 {
        lost.push("access times");
    }
    if lost.is_empty() {
        return Ok(());
    }
    let detail = [
        "cannot clear locked flags of its source in a user namespace: ",
        &lost.join(", "),
        "; leave out the options that undo them",
    ]
    .concat();
    Err(Error::with_detail(SET_FLAGS, Errno(libc::EPERM), &detail))
}

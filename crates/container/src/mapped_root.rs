//! An overlay whose layers are id-mapped for the container's user namespace, mounted with all of
//! the caller's rights.
//!
//! Mounted inside the user namespace, overlayfs would not see the marks that layers have in
//! `trusted.` attributes. And it takes only layers that are attached in its own mount namespace;
//! nothing is to be mounted in the caller's. So a child with a mount namespace of its own mounts
//! it, hands it over detached, and is gone.

use crate::channel::{self, Channel, Message};
use crate::error::{Context, Error};
use crate::idmap::Mapper;
use crate::root;
use crate::sys::{self, Side};
use gamut_abi::plan::{MountIdmap, Root, RootSource};
use std::os::fd::{AsFd, OwnedFd};

const WHAT: &str = "mount the mapped overlay:";

/// Mounts the overlay of a plan; files of the writable layer, too, keep the ids of the inside.
pub(crate) fn mount(plan: &Root, mapper: &mut Mapper<'_>) -> Result<OwnedFd, Error> {
    let RootSource::Overlay {
        lower,
        upper: Some(upper),
        work: Some(work),
        volatile,
        ..
    } = &plan.source
    else {
        return Err(Error::invalid("the mapped root is no writable overlay"));
    };
    let ((parent, upper), (work_parent, work)) = (split(upper), split(work));
    if parent != work_parent {
        return Err(Error::invalid(
            "upper and work directory of a mapped root have to lie in one directory",
        ));
    }
    let mut layers = Vec::with_capacity(lower.len() + 1);
    for path in lower.iter().map(String::as_str).chain([parent]) {
        layers.push(mapped(path, mapper)?);
    }
    let (ours, theirs) = channel::pair().doing("make", "a socket pair")?;
    let flags = u64::from(libc::CLONE_NEWNS.unsigned_abs());
    // SAFETY: the caller of this crate promises to have one thread; the child ends right here.
    let side = unsafe { sys::clone_process(flags, libc::SIGCHLD, None) };
    let pid = match side.doing(WHAT, "make a child")? {
        Side::Child => {
            let _end = sys::NeverUnwind;
            drop(ours);
            let made = sys::set_propagation_everywhere(libc::MS_PRIVATE)
                .doing("make private", "all mounts")
                .and_then(|()| {
                    root::mapped_overlay(layers, upper, work, *volatile, &plan.mount_point)
                });
            theirs.say(&match made {
                Ok(mount) => Message::Mount(mount),
                Err(error) => Message::Failed(error),
            });
            sys::exit(0)
        }
        Side::Parent { pid, pidfd: _ } => pid,
    };
    drop(theirs);
    let mount = receive(&ours);
    sys::kill_and_reap(pid);
    mount
}

fn receive(channel: &Channel) -> Result<OwnedFd, Error> {
    match channel.listen().doing(WHAT, "listen to the child")? {
        Some(Message::Mount(mount)) => Ok(mount),
        Some(Message::Failed(error)) => Err(error),
        _ => Err(Error::invalid("the child that mounts the root has died")),
    }
}

fn mapped(path: &str, mapper: &mut Mapper<'_>) -> Result<OwnedFd, Error> {
    let tree = sys::c_string(path)
        .and_then(|name| sys::clone_tree(sys::cwd(), &name, false))
        .doing("open layer", path)?;
    let as_container = MountIdmap {
        uid_mappings: Vec::new(),
        gid_mappings: Vec::new(),
        recursive: false,
    };
    mapper.map(tree.as_fd(), &as_container, &["layer ", path].concat())?;
    Ok(tree)
}

/// Directory and name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or((".", path))
}

//! Mounts whose files show other ids (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! The kernel takes the mapping from a user namespace. Mounts are mapped by the caller, who has
//! privileges over the file system; the container's own processes mostly have not.

use crate::channel;
use crate::error::{Context, Error};
use crate::namespaces::{self, Layout};
use crate::sys::{self, Errno, Side};
use gamut_abi::plan::{IdMapping, MountIdmap, Plan};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A mapping, and the namespace that stands for it.
type Made = (Vec<IdMapping>, Vec<IdMapping>, OwnedFd);

/// User namespaces that exist for their mappings alone, each made once.
pub(crate) struct Mapper<'a> {
    plan: &'a Plan,
    layout: &'a Layout<'a>,
    made: Vec<Made>,
}

impl<'a> Mapper<'a> {
    pub(crate) fn new(plan: &'a Plan, layout: &'a Layout<'a>) -> Self {
        Self {
            plan,
            layout,
            made: Vec::new(),
        }
    }

    /// Maps the ids of a detached mount; `what` names it.
    pub(crate) fn map(
        &mut self,
        mount: BorrowedFd<'_>,
        idmap: &MountIdmap,
        what: &str,
    ) -> Result<(), Error> {
        let recursive = idmap.recursive;
        let namespace = if idmap.uid_mappings.is_empty() && idmap.gid_mappings.is_empty() {
            self.containers()?
        } else {
            self.namespace(&idmap.uid_mappings, &idmap.gid_mappings)?
        };
        sys::mount_idmap(mount, namespace, recursive).map_err(|errno| {
            let detail = match errno.0 {
                libc::EINVAL => {
                    "its file system, or one below it, does not support id-mapped mounts"
                }
                libc::EPERM => {
                    "it takes CAP_SYS_ADMIN over the file system, and a mount without a mapping yet"
                }
                _ => "",
            };
            Error::with_detail(&["map the ids of ", what].concat(), errno, detail)
        })
    }

    /// The container's own user namespace, or one with the same mappings.
    fn containers(&mut self) -> Result<BorrowedFd<'_>, Error> {
        let plan = self.plan;
        if self.layout.new_user {
            return self.namespace(&plan.uid_mappings, &plan.gid_mappings);
        }
        self.layout
            .joins
            .iter()
            .find_map(namespaces::Join::user_namespace)
            .ok_or_else(|| {
                Error::invalid(
                    "ids are to be mapped as in the container's user namespace, but it has none",
                )
            })
    }

    fn namespace(
        &mut self,
        uids: &[IdMapping],
        gids: &[IdMapping],
    ) -> Result<BorrowedFd<'_>, Error> {
        let known = self
            .made
            .iter()
            .position(|(u, g, _)| u == uids && g == gids);
        let index = known.unwrap_or(self.made.len());
        if known.is_none() {
            let namespace = make_namespace(uids, gids)?;
            self.made.push((uids.to_vec(), gids.to_vec(), namespace));
        }
        Ok(self.made[index].2.as_fd())
    }
}

/// Makes a user namespace: by a child that does nothing but be in it for a moment.
fn make_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, Error> {
    let what = "make a user namespace for";
    let (ours, theirs) = channel::pair().doing("make", "a socket pair")?;
    let flags = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    // SAFETY: the caller of this crate promises to have one thread; the child ends right here.
    let side = unsafe { sys::clone_process(flags, libc::SIGCHLD, None) };
    let pid = match side.doing(what, "an id-mapped mount")? {
        Side::Child => {
            drop(ours);
            // Comes back once the parent is done with it, or gone.
            let _ = theirs.wait();
            sys::exit(0)
        }
        Side::Parent { pid, pidfd: _ } => pid,
    };
    drop(theirs);
    let opened = namespaces::write_mappings(pid, uids, gids).and_then(|()| {
        sys::c_string(&["/proc/", &pid.to_string(), "/ns/user"].concat())
            .and_then(|path| sys::open(sys::cwd(), &path, libc::O_RDONLY))
            .doing("open", "a user namespace")
    });
    sys::kill_and_reap(pid);
    opened
}

/// Copies of an overlay's layers, mapped as the container's user namespace does. Empty where this
/// caller may not map them.
pub(crate) fn map_layers(
    mapper: &mut Mapper<'_>,
    layers: &[String],
) -> Result<Vec<OwnedFd>, Error> {
    let as_container = MountIdmap {
        uid_mappings: Vec::new(),
        gid_mappings: Vec::new(),
        recursive: false,
    };
    let mut mapped = Vec::with_capacity(layers.len());
    for layer in layers {
        let tree = sys::c_string(layer)
            .and_then(|path| sys::clone_tree(sys::cwd(), &path, false))
            .map_err(|errno| Error::system(&["open layer ", layer].concat(), errno));
        let one = tree.and_then(|tree| {
            mapper
                .map(tree.as_fd(), &as_container, &["layer ", layer].concat())
                .map(|()| tree)
        });
        match one {
            Ok(tree) => mapped.push(tree),
            Err(error) if Errno(error.errno) == Errno(libc::EPERM) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    Ok(mapped)
}

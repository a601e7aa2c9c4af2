//! The mounted hierarchies.

use crate::controller::{Controller, ControllerSet};
use crate::error::Error;
use crate::mountinfo;
use crate::sys;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Magic numbers of statfs(2).
const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// How the machine has its control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// cgroup v2 alone.
    V2,
    /// cgroup v1 alone.
    V1,
    /// v1 controllers, and a v2 hierarchy beside them with few or none.
    Hybrid,
}

/// One hierarchy, as told to [`Hierarchies::with_roots`] and by [`Hierarchies::roots`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyRoot {
    /// Absolute path of its root.
    pub path: String,
    /// cgroup2.
    pub v2: bool,
    /// Its controllers.
    pub controllers: Vec<Controller>,
}

#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub(crate) root: String,
    pub(crate) directory: OwnedFd,
    pub(crate) v2: bool,
    pub(crate) controllers: ControllerSet,
}

impl Hierarchy {
    /// Whether it is the one by which systemd follows its services on v1. Containers are put there
    /// beside those of the caller, so that stopping his service does not stop them; it limits
    /// nothing, so that what cannot be done there is no error.
    pub(crate) fn only_tracks(&self) -> bool {
        !self.v2 && self.controllers.is_empty()
    }
}

/// Every hierarchy that carries a controller of the model. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hierarchies {
    pub(crate) list: Arc<[Hierarchy]>,
}

impl Hierarchies {
    /// Finds the hierarchies in `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// If the file cannot be read, or no hierarchy is mounted.
    pub fn detect() -> Result<Self, Error> {
        let path = "/proc/self/mountinfo";
        let text = std::fs::read(path).map_err(|source| Error::system("read", path, source))?;
        Self::detect_at(&String::from_utf8_lossy(&text))
    }

    /// Finds the hierarchies in a text in the format of `/proc/self/mountinfo`. A mount point
    /// that is hidden under another mount is left out, and so is a second mount of a controller.
    ///
    /// # Errors
    /// If no hierarchy is mounted.
    pub fn detect_at(mountinfo: &str) -> Result<Self, Error> {
        let mut list: Vec<Hierarchy> = Vec::new();
        for mounted in mountinfo::parse(mountinfo) {
            let taken = list.iter().any(|known| {
                known.v2 == mounted.v2
                    && known.controllers.is_empty() == mounted.controllers.is_empty()
                    && known.controllers.contains_all(mounted.controllers)
                    || known.v2 && mounted.v2
            });
            if taken {
                continue;
            }
            let Ok(directory) = sys::open_root(&mounted.root) else {
                continue;
            };
            let magic = if mounted.v2 {
                CGROUP2_SUPER_MAGIC
            } else {
                CGROUP_SUPER_MAGIC
            };
            if sys::file_system_type(directory.as_fd()).ok() != Some(magic) {
                continue;
            }
            let controllers = if mounted.v2 {
                let text =
                    sys::read_file(directory.as_fd(), c"cgroup.controllers").map_err(|source| {
                        Error::system("read cgroup.controllers in", &*mounted.root, source)
                    })?;
                ControllerSet::parse_v2(&text)
            } else {
                mounted.controllers
            };
            list.push(Hierarchy {
                root: mounted.root,
                directory,
                v2: mounted.v2,
                controllers,
            });
        }
        Self::from_list(list)
    }

    /// Takes the given directories as roots of hierarchies, whatever file system they are on.
    ///
    /// # Errors
    /// If a directory cannot be opened, or there is none.
    pub fn with_roots(roots: &[HierarchyRoot]) -> Result<Self, Error> {
        let mut list = Vec::with_capacity(roots.len());
        for root in roots {
            let directory = sys::open_root(&root.path)
                .map_err(|source| Error::system("open", &*root.path, source))?;
            let mut controllers = ControllerSet::default();
            for controller in &root.controllers {
                controllers.insert(*controller);
            }
            list.push(Hierarchy {
                root: root.path.clone(),
                directory,
                v2: root.v2,
                controllers,
            });
        }
        Self::from_list(list)
    }

    /// None at all: for those who may not use what there is.
    #[must_use]
    pub fn none() -> Self {
        Self { list: [].into() }
    }

    fn from_list(list: Vec<Hierarchy>) -> Result<Self, Error> {
        if list.iter().all(Hierarchy::only_tracks) {
            return Err(Error::invalid(
                "find control groups in",
                "/proc/self/mountinfo",
                "neither cgroup2 nor a cgroup v1 controller is mounted; mount cgroup2 on /sys/fs/cgroup",
            ));
        }
        Ok(Self { list: list.into() })
    }

    /// How the machine has its control groups.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let v2 = self.list.iter().any(|hierarchy| hierarchy.v2);
        let v1 = self
            .list
            .iter()
            .any(|hierarchy| !hierarchy.v2 && !hierarchy.only_tracks());
        match (v1, v2) {
            (true, true) => Mode::Hybrid,
            (true, false) => Mode::V1,
            (false, _) => Mode::V2,
        }
    }

    /// Whether a controller is there, in either version. Freezing and device access count as
    /// there if a v2 hierarchy is, since v2 has them built in.
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.locate(controller).is_some()
            || (matches!(controller, Controller::Devices | Controller::Freezer)
                && self.v2().is_some())
            || (controller == Controller::Cpuacct && self.mode() == Mode::V2)
    }

    /// The controllers that are there.
    #[must_use]
    pub fn controllers(&self) -> Vec<Controller> {
        Controller::ALL
            .into_iter()
            .filter(|controller| self.has(*controller))
            .collect()
    }

    /// The hierarchies with their roots and controllers, for those who show them to a container.
    #[must_use]
    pub fn roots(&self) -> Vec<HierarchyRoot> {
        self.list
            .iter()
            .filter(|hierarchy| !hierarchy.only_tracks())
            .map(|hierarchy| HierarchyRoot {
                path: hierarchy.root.clone(),
                v2: hierarchy.v2,
                controllers: hierarchy.controllers.iter().collect(),
            })
            .collect()
    }

    /// The hierarchy that has a controller.
    pub(crate) fn locate(&self, controller: Controller) -> Option<&Hierarchy> {
        self.list
            .iter()
            .find(|hierarchy| hierarchy.controllers.contains(controller))
    }

    /// The v2 hierarchy.
    pub(crate) fn v2(&self) -> Option<&Hierarchy> {
        self.list.iter().find(|hierarchy| hierarchy.v2)
    }
}

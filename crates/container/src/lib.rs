//! The container mechanism: namespaces, mounts, process set-up, exec.
//!
//! [`create`] carries out a [`gamut_abi::plan::Plan`]: it clones a process into new namespaces
//! (or has it join existing ones), which builds its root file system out of detached mounts,
//! makes it its root, becomes the user it is to be and waits. [`Created::start`] lets it become
//! the program. [`exec`] runs a further process in the container.
//!
//! The caller is the parent of every process made here and has to be single-threaded: what is
//! cloned goes on in ordinary code until execve. Nothing is mounted in the caller's own mount
//! namespace, so that nothing is left behind whatever ends when.

mod affinity;
mod bind;
mod capabilities;
mod cgroup_mount;
mod channel;
mod conversation;
mod copy_up;
mod devices;
mod error;
mod execute;
mod foreign;
mod gate;
mod hide;
mod hooks;
mod host_root;
mod idmap;
mod init;
mod join;
mod labels;
mod launch;
mod limits;
mod listener;
mod mapped_root;
mod mounts;
mod namespaces;
mod netlink;
mod network_devices;
mod newidmap;
pub mod passwd;
mod path;
mod process;
mod root;
mod scheduling;
mod stage;
mod sys;
mod sysctl;
mod terminal;

pub use error::Error;
pub use gate::Gate;
pub use hooks::run_hooks;
pub use host_root::unmount_root;
pub use join::{ExecOptions, JoinGroups, exec, exec_with};
pub use launch::{CreateOptions, Created, Running, Stdio, create};
pub use sys::is_unprivileged;

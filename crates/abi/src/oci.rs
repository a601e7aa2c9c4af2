//! What the OCI runtime command hands to the program that makes the container.
//!
//! `gamut-runtime` compiles a bundle, puts an [`OciRequest`] as one frame (see [`crate::wire`])
//! into descriptor [`LAUNCH_DESCRIPTOR`] and replaces itself by the sealed supervisor program,
//! called [`PROGRAM_NAME`]. Both come from one build, so nothing here has to stay readable.

use crate::plan::Plan;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// First argument by which the supervisor's program knows that it is to make an OCI container.
pub const PROGRAM_NAME: &str = "gamut-runtime";

/// Number of the descriptor from which the launch is read.
pub const LAUNCH_DESCRIPTOR: u8 = 3;

/// Directory of a unikernel's jail in a state directory.
pub const JAIL_DIRECTORY: &str = "unikernel";

/// File in the state directory: bundle, control group and the like, as JSON.
pub const STATE_FILE: &str = "state.json";

/// File in the state directory: process id and start time (proc_pid_stat(5), field 22) of the
/// first process, once there is one.
pub const PID_FILE: &str = "pid";

/// Socket in the state directory at which a created container waits for its start.
pub const GATE_FILE: &str = "start.sock";

/// File in the state directory of a container that shares its caller's mounts: number of its
/// root's mount, and where that is.
pub const MOUNT_FILE: &str = "root-mount";

/// Copy of the configuration in the state directory, as it was when the container was made.
pub const CONFIG_FILE: &str = "config.json";

/// What the program is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, for as long as it takes to send or read it"
)]
pub enum OciRequest {
    /// Make a container.
    Launch(OciLaunch),
    /// Run a further process in one.
    Exec(OciExec),
}

/// What to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OciVerb {
    /// Make it and leave it waiting at its gate.
    Create,
    /// Make it, run it, forward signals to it, remove it, and exit with its code.
    Run,
    /// Make it, run it and leave it.
    RunDetached,
}

/// A container to be made. Descriptors from [`LAUNCH_DESCRIPTOR`] + 1 on are for its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciLaunch {
    /// How far to go.
    pub verb: OciVerb,
    /// The container.
    pub plan: Plan,
    /// Its state directory, which exists.
    pub state_directory: String,
    /// Leave the state directory when the container has ended.
    pub keep: bool,
    /// Adopt what the container leaves behind, as long as it runs in the foreground.
    pub subreaper: bool,
    /// How many descriptors are for its program.
    pub extra_files: u32,
    /// Where callers are told.
    pub callers: OciCallers,
}

/// A further process in a container. Descriptor [`LAUNCH_DESCRIPTOR`] + 1 is the pidfd of the
/// container's first process, those behind it are for the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciExec {
    /// Id of the container.
    pub id: String,
    /// Process id of its first process.
    pub init_pid: u32,
    /// The process, and of the container what concerns it; all its namespaces are joined.
    pub plan: Plan,
    /// The control group of the container.
    pub cgroup_path: Option<String>,
    /// Groups below that one, each for some controllers of version 1 or, if it names none, for
    /// all.
    pub subgroups: Vec<OciSubgroup>,
    /// Come back as soon as the process runs.
    pub detach: bool,
    /// How many descriptors are for the program.
    pub extra_files: u32,
    /// Where callers are told.
    pub callers: OciCallers,
}

/// A control group below that of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciSubgroup {
    /// Controllers of version 1 by name; none means all.
    pub controllers: Vec<String>,
    /// Path from the top of the hierarchies.
    pub path: String,
}

/// Where callers are told what they wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciCallers {
    /// Name by which the command was called, for messages.
    pub program: String,
    /// File for the process id, in the host's view.
    pub pid_file: Option<String>,
    /// Unix stream socket to which the master of the terminal is sent.
    pub console_socket: Option<String>,
    /// Unix stream socket to which the pidfd of the process is sent.
    pub pidfd_socket: Option<String>,
    /// File to which an error is appended, in JSON if the second is true.
    pub log: Option<(String, bool)>,
    /// Tell what is being done as well, in the log or, if there is none, on standard error.
    pub debug: bool,
}

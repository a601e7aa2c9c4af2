//! What the OCI runtime command hands to the program that makes the container.
//!
//! `gamut-runtime` compiles a bundle, puts an [`OciLaunch`] as one frame (see [`crate::wire`])
//! into descriptor [`LAUNCH_DESCRIPTOR`] and replaces itself by the sealed supervisor program,
//! called [`PROGRAM_NAME`]. Both come from one build, so nothing here has to stay readable.

use crate::plan::Plan;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// First argument by which the supervisor's program knows that it is to make an OCI container.
pub const PROGRAM_NAME: &str = "gamut-runtime";

/// Number of the descriptor from which the launch is read.
pub const LAUNCH_DESCRIPTOR: u8 = 3;

/// File in the state directory: bundle, control group and the like, as JSON.
pub const STATE_FILE: &str = "state.json";

/// File in the state directory: process id and start time (proc_pid_stat(5), field 22) of the
/// first process, once there is one.
pub const PID_FILE: &str = "pid";

/// Socket in the state directory at which a created container waits for its start.
pub const GATE_FILE: &str = "start.sock";

/// What to do with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OciVerb {
    /// Make it and leave it waiting at its gate.
    Create,
    /// Make it, run it, forward signals to it, remove it, and exit with its code.
    Run,
}

/// A container to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciLaunch {
    /// How far to go.
    pub verb: OciVerb,
    /// The container.
    pub plan: Plan,
    /// Its state directory, which exists.
    pub state_directory: String,
    /// File for the process id, in the host's view.
    pub pid_file: Option<String>,
    /// Unix stream socket to which the master of the terminal is sent.
    pub console_socket: Option<String>,
    /// File to which an error is appended, in JSON if the second is true.
    pub log: Option<(String, bool)>,
}

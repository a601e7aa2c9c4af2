//! The status file: what a supervisor leaves behind for whoever comes next.
//!
//! It is written to a temporary name and renamed at every change, so that it is always whole.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Where a workload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Set up, waiting for the start.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Gone, and to be started again by policy.
    Restarting,
    /// Gone for good.
    Exited,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code; 128 + signal for a killed process.
    pub code: i32,
    /// Signal that killed it, 0 if none.
    pub signal: i32,
    /// The kernel killed a process of the group for want of memory.
    pub out_of_memory: bool,
    /// When it ended, in nanoseconds since the epoch.
    pub finished_ns: u64,
}

/// How a sandbox stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Id of the container.
    pub id: String,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// Process id of the first process seen from the host, 0 if none runs.
    pub pid: u32,
    /// Where it stands.
    pub state: State,
    /// When it was started last, in nanoseconds since the epoch, 0 if never.
    pub started_ns: u64,
    /// How often it was started again by policy.
    pub restart_count: u32,
    /// How it ended last.
    pub exit: Option<ExitStatus>,
    /// Why it could not be started, if so.
    pub error: String,
}

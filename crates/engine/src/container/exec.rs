//! Exec sessions: further processes in running containers.

use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment beyond the container's.
    pub environment: Vec<String>,
    /// Working directory; empty for the container's.
    pub working_directory: String,
    /// `user[:group]`; empty for the container's.
    pub user: String,
    /// A pseudo-terminal for its stdio.
    pub terminal: bool,
    /// Every capability that the engine has.
    pub privileged: bool,
    /// Which of stdin, stdout and stderr the client means to attach to.
    pub attach: (bool, bool, bool),
    /// Size of the terminal at the start: rows, columns.
    pub console_size: Option<(u16, u16)>,
    /// Key sequence that detaches the client; only kept.
    pub detach_keys: String,
}

/// An exec session as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRecord {
    /// Its id.
    pub id: String,
    /// The container it runs in.
    pub container_id: String,
    /// What was asked for.
    pub request: ExecRequest,
    /// It has been started.
    pub started: bool,
    /// It runs.
    pub running: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// When it ended.
    pub ended: Option<std::time::Instant>,
    /// Its process id seen from the host, 0 if it does not run.
    pub pid: u32,
}

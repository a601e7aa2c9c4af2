//! The verbs and their options.

use super::words::Words;
use crate::error::Error;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make a container.
    Create(Launch),
    /// Make, run and remove it.
    Run(Launch),
    /// Start a created one.
    Start(String),
    /// Show it.
    State(String),
    /// Send a signal.
    Kill(Kill),
    /// Remove it; even if it runs, if the second is true.
    Delete(String, bool),
    /// Run a further process in it.
    Exec(Box<Exec>),
    /// List all.
    List(List),
    /// List its processes.
    Processes(Processes),
    /// Freeze its processes.
    Pause(String),
    /// Let them run again.
    Resume(String),
    /// Change its limits.
    Update(Box<Update>),
    /// Show what it uses.
    Events(Events),
    /// Write a configuration to begin with.
    Specification(Specification),
    /// Show what this program can do.
    Features,
    /// Show the version.
    Version,
    /// Show the help of a verb, or of all.
    Help(String),
}

/// Options of `create` and `run`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The new container.
    pub id: String,
    /// Its bundle; the working directory if not given.
    pub bundle: Option<PathBuf>,
    /// How callers are told.
    pub callers: Callers,
    /// Descriptors beside the standard streams that the program gets.
    pub preserve_fds: u32,
    /// Come back once the program runs.
    pub detach: bool,
    /// Leave the container when it has ended.
    pub keep: bool,
    /// Do not adopt what the container leaves behind.
    pub no_subreaper: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// Where callers are told what they wait for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Socket for the terminal.
    pub console_socket: Option<PathBuf>,
    /// Socket for the pidfd.
    pub pidfd_socket: Option<PathBuf>,
}

impl Callers {
    /// Takes an option; false if it is none of these.
    pub(super) fn take(
        &mut self,
        words: &mut Words,
        name: &str,
        value: &mut Option<String>,
    ) -> Result<bool, Error> {
        let slot = match name {
            "--pid-file" => &mut self.pid_file,
            "--console-socket" => &mut self.console_socket,
            "--pidfd-socket" => &mut self.pidfd_socket,
            _ => return Ok(false),
        };
        *slot = Some(words.path(name, value.take())?);
        Ok(true)
    }
}

/// Options of `kill`.
#[derive(Debug, PartialEq, Eq)]
pub struct Kill {
    /// The container.
    pub id: String,
    /// The signal's number.
    pub signal: i32,
    /// To every process.
    pub all: bool,
}

/// Options of `exec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// File with a whole `process` object instead.
    pub process: Option<PathBuf>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Further environment.
    pub env: Vec<String>,
    /// Give it a terminal.
    pub terminal: bool,
    /// User and, behind a colon, group.
    pub user: Option<(u32, Option<u32>)>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// Come back once the program runs.
    pub detach: bool,
    /// How callers are told.
    pub callers: Callers,
    /// SELinux label.
    pub process_label: Option<String>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// no_new_privs, if it is to be other than that of the container.
    pub no_new_privileges: Option<bool>,
    /// Further capabilities.
    pub capabilities: Vec<String>,
    /// Descriptors beside the standard streams that the program gets.
    pub preserve_fds: u32,
    /// Control groups below that of the container.
    pub subgroups: Vec<Subgroup>,
    /// Even if it is paused.
    pub ignore_paused: bool,
}

/// A control group below that of the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Subgroup {
    /// Controllers of version 1; none means all.
    pub controllers: Vec<String>,
    /// Its path.
    pub path: String,
}

/// Options of `list`.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Ids only.
    pub quiet: bool,
    /// As JSON.
    pub json: bool,
}

/// Options of `ps`.
#[derive(Debug, PartialEq, Eq)]
pub struct Processes {
    /// The container.
    pub id: String,
    /// Process ids as JSON.
    pub json: bool,
    /// Options for ps(1).
    pub ps_options: Vec<String>,
}

/// Options of `update`: limits in the words of the command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The container.
    pub id: String,
    /// File with limits, `-` for standard input; wins over all others.
    pub resources: Option<PathBuf>,
    /// Single limits, as name without dashes and value.
    pub limits: Vec<(String, String)>,
}

/// Options of `events`.
#[derive(Debug, PartialEq, Eq)]
pub struct Events {
    /// The container.
    pub id: String,
    /// Once, then come back.
    pub once: bool,
    /// Time between two, in milliseconds.
    pub interval_ms: u64,
}

/// Options of `spec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Specification {
    /// Where it is written; the working directory if not given.
    pub bundle: Option<PathBuf>,
    /// For a user who is not root.
    pub rootless: bool,
}

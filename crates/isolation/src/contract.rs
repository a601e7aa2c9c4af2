//! The contract between the engine and a level of isolation.
//!
//! Every verb is idempotent by id, takes a [`Context`] with deadline and cancellation, and leaves
//! nothing half done when it fails. No verb has a default implementation: a level that cannot do
//! something answers with a typed [`crate::Refusal`].

use crate::error::{Error, Refusal};
use gamut_abi::control::{Attach, Event, Log, RestartPolicy};
use gamut_abi::plan::TerminalSize;
use gamut_abi::resources::Resources;
use gamut_abi::status::Status;
use gamut_cgroup::Stats;
use gamut_spec::form::ImageForm;
use gamut_spec::isolation::IsolationLevel;
use oci_spec::runtime::{Process, Spec};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// On whose behalf, and until when, a verb is carried out.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Id of the API request, for logs.
    pub request_id: String,
    /// User id of the API's peer.
    pub peer_uid: u32,
    /// When to give up; `None` never.
    pub deadline: Option<Instant>,
    /// Set when the caller has hung up.
    pub cancelled: Arc<AtomicBool>,
}

impl Context {
    /// Whether the caller has hung up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// What a workload is to have that not every level gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// A pseudo-terminal.
    Terminal,
    /// A stdin that clients write to.
    Stdin,
    /// The host's network.
    HostNetwork,
    /// Another workload's network.
    SharedNetwork,
    /// The processes or the inter-process communication of the host or of another workload.
    SharedProcesses,
    /// User ids of its own.
    UserNamespace,
    /// Every capability and device.
    Privileged,
    /// Capabilities added or dropped, or another system call filter.
    Confinement,
    /// Devices of the host.
    Devices,
    /// Kernel parameters.
    Sysctls,
    /// Resource limits of its process.
    Ulimits,
    /// File systems in memory.
    Tmpfs,
    /// A user, or groups, of its own choice.
    User,
    /// A working directory.
    WorkingDirectory,
    /// A minimal init.
    Init,
    /// A health check that runs a command.
    HealthCommand,
    /// Further processes beside the first one.
    Exec,
    /// The names of other workloads, by a resolver on its loopback.
    Names,
    /// Networks that come and go while it runs.
    ChangingNetworks,
}

/// What one workload lends to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loan {
    /// Its network (`--network container:NAME`).
    Network,
    /// Its processes (`--pid container:NAME`).
    Processes,
    /// Its inter-process communication (`--ipc container:NAME`).
    Ipc,
}

/// How a sandbox is connected to networks.
#[derive(Debug)]
pub enum Endpoint {
    /// The host's own network stack.
    Host,
    /// A prepared network namespace (loopback only, or with interfaces). The sandbox keeps it.
    Namespace(OwnedFd),
    /// The network of another workload of this level, by its id.
    Workload(String),
}

/// What a root file system is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// Read-only layer directories, topmost first, below a writable directory.
    Layers {
        /// Layer directories, topmost first.
        lower: Vec<PathBuf>,
        /// Directory that holds (or will hold) the writable layer: `upper` and `work`.
        writable: PathBuf,
        /// The container does not outlive a power cut: skip syncs.
        volatile: bool,
    },
    /// A plain directory.
    Directory(PathBuf),
}

/// A sandbox to be made.
#[derive(Debug)]
pub struct SandboxSpec {
    /// Its id; for a sandbox of one, that of its workload.
    pub id: String,
    /// Its network.
    pub endpoint: Endpoint,
}

/// A stream that is attached before the start, so that no output is missed.
#[derive(Debug)]
pub struct AttachedStream {
    /// Which streams it carries.
    pub attach: Attach,
    /// The supervisor's end of it.
    pub stream: OwnedFd,
}

/// A workload to be made in a prepared sandbox.
#[derive(Debug)]
pub struct WorkloadSpec {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// The sandbox it runs in.
    pub sandbox_id: String,
    /// What to run, as an OCI runtime configuration. `root.path` is ignored in favour of `root`;
    /// namespaces of kind network without a path are taken from the sandbox.
    pub config: Spec,
    /// Docker's `user[:group]`, looked up inside the root; wins over `process.user` if set.
    pub user: Option<String>,
    /// Further groups by name or number.
    pub additional_groups: Vec<String>,
    /// Make the working directory if it is missing.
    pub create_cwd: bool,
    /// Run a minimal init as PID 1.
    pub init: bool,
    /// The root file system.
    pub root: RootSource,
    /// Where output is kept.
    pub log: Option<Log>,
    /// When to start again.
    pub restart: RestartPolicy,
    /// The process gets a stdin.
    pub open_stdin: bool,
    /// Close stdin when the first attached client closes its side.
    pub stdin_once: bool,
    /// Clients attached from the beginning.
    pub attached: Vec<AttachedStream>,
}

/// A further process in a running workload.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// Id of the session.
    pub id: String,
    /// What to run.
    pub process: Process,
    /// Docker's `user[:group]`, looked up inside the root; wins over `process.user` if set.
    pub user: Option<String>,
    /// Streams to connect.
    pub attach: Option<Attach>,
}

/// What came of a verb that starts something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Started {
    /// Process id seen from the host, 0 where a level has none.
    pub pid: u32,
    /// What had to be given up because the machine forbids it, one sentence each.
    pub warnings: Vec<String>,
}

/// A stream of events of one workload; the first tells how things stand.
pub trait Events: Send {
    /// Waits for the next event. `None`: the supervisor is gone (its status file tells the rest).
    ///
    /// # Errors
    /// If the connection breaks or carries something that is no event.
    fn next(&mut self) -> std::io::Result<Option<Event>>;

    /// The stream socket below, for callers that wait with their own reactor and decode the
    /// frames (`gamut_abi::wire`) of [`Event`]s that arrive on it.
    fn into_stream(self: Box<Self>) -> UnixStream;
}

/// One level of isolation.
pub trait Isolation: Send + Sync {
    /// Which level this is.
    fn level(&self) -> IsolationLevel;

    /// What the level cannot do. Shown in the docs and by `gamut info`.
    fn refusals(&self) -> &'static [Refusal];

    /// In which form the level takes a program.
    fn image_form(&self) -> ImageForm;

    /// Looks, before anything is made, whether the level can give a workload what it is to have.
    /// Answers what it will have to do without, one sentence each.
    ///
    /// # Errors
    /// [`Error::Refused`] for what would not be the same workload without it.
    fn admit(&self, wanted: &[Feature]) -> Result<Vec<String>, Error>;

    /// Whether its workloads can lend something to others.
    ///
    /// # Errors
    /// [`Error::Refused`] if not.
    fn lend(&self, loan: Loan) -> Result<(), Error>;

    /// What is worth knowing of how a workload is run, as name and value; nothing if it does not
    /// run.
    ///
    /// # Errors
    /// If it cannot be looked up.
    fn describe(&self, id: &str) -> Result<BTreeMap<String, String>, Error>;

    /// Makes a sandbox ready. Nothing outlives the daemon until a workload is created in it.
    ///
    /// # Errors
    /// If the endpoint cannot be had.
    fn prepare(&self, context: &Context, sandbox: SandboxSpec) -> Result<(), Error>;

    /// Sets a workload up to just before its first instruction, under a supervisor of its own.
    ///
    /// # Errors
    /// If the configuration or the system does not allow it; nothing is left behind.
    fn create(&self, context: &Context, workload: WorkloadSpec) -> Result<Started, Error>;

    /// Starts a created workload.
    ///
    /// # Errors
    /// If it is not there or its program cannot be executed.
    fn start(&self, context: &Context, id: &str) -> Result<Started, Error>;

    /// Runs a further process. `stream` is the supervisor's end of the client's stream.
    ///
    /// # Errors
    /// If the workload does not run or the program cannot be executed.
    fn exec(
        &self,
        context: &Context,
        id: &str,
        exec: ExecSpec,
        stream: Option<OwnedFd>,
    ) -> Result<Started, Error>;

    /// Sends a signal to the first process, to all (`all`), or to an exec session.
    ///
    /// # Errors
    /// If it does not run.
    fn signal(
        &self,
        context: &Context,
        id: &str,
        exec_id: Option<&str>,
        signal: i32,
        all: bool,
    ) -> Result<(), Error>;

    /// Sends `signal`, waits up to `timeout_ms` (`None`: for ever), then kills. Ends restarts.
    ///
    /// # Errors
    /// If the system does not allow it. A workload that is gone already is no error.
    fn stop(
        &self,
        context: &Context,
        id: &str,
        signal: i32,
        timeout_ms: Option<u64>,
    ) -> Result<(), Error>;

    /// Resizes the terminal of the workload or of an exec session.
    ///
    /// # Errors
    /// If it does not run or has no terminal.
    fn resize(
        &self,
        context: &Context,
        id: &str,
        exec_id: Option<&str>,
        size: TerminalSize,
    ) -> Result<(), Error>;

    /// Freezes every process.
    ///
    /// # Errors
    /// If it does not run.
    fn pause(&self, context: &Context, id: &str) -> Result<(), Error>;

    /// Thaws every process.
    ///
    /// # Errors
    /// If it does not run.
    fn resume(&self, context: &Context, id: &str) -> Result<(), Error>;

    /// Changes limits or the restart policy while running.
    ///
    /// # Errors
    /// If it does not run or a limit is refused.
    fn update(
        &self,
        context: &Context,
        id: &str,
        resources: Option<Resources>,
        restart: Option<RestartPolicy>,
    ) -> Result<(), Error>;

    /// Connects a stream to the workload's stdio.
    ///
    /// # Errors
    /// If it does not run.
    fn attach(
        &self,
        context: &Context,
        id: &str,
        attach: Attach,
        stream: OwnedFd,
    ) -> Result<(), Error>;

    /// Connects to a TCP port as a process of the workload would connect to `localhost`, without
    /// making one there. Whatever is read from it is the workload's: hostile.
    ///
    /// # Errors
    /// If it does not run, nobody listens, or the deadline passes.
    fn dial(&self, context: &Context, id: &str, port: u16) -> Result<TcpStream, Error>;

    /// Connects a debugger, which speaks GDB's remote protocol, to the workload's machine. The
    /// workload stands until the debugger lets it go on, and goes on when it leaves.
    ///
    /// # Errors
    /// If it does not run, or the level has no machine.
    fn debug(&self, context: &Context, id: &str) -> Result<UnixStream, Error>;

    /// Use of resources.
    ///
    /// # Errors
    /// If it does not run.
    fn stats(&self, context: &Context, id: &str) -> Result<Stats, Error>;

    /// Process ids seen from the host.
    ///
    /// # Errors
    /// If it does not run, or the level has no processes to show.
    fn processes(&self, context: &Context, id: &str) -> Result<Vec<u32>, Error>;

    /// An open directory that is the workload's root as the workload sees it, for copying in and
    /// out. Every path below it is hostile: resolve with `openat2(RESOLVE_IN_ROOT)`.
    ///
    /// # Errors
    /// If it does not run or the level cannot show its files.
    fn root(&self, context: &Context, id: &str) -> Result<OwnedFd, Error>;

    /// Writes a checkpoint to a directory.
    ///
    /// # Errors
    /// If the level cannot, or it does not run.
    fn checkpoint(
        &self,
        context: &Context,
        id: &str,
        directory: &std::path::Path,
    ) -> Result<(), Error>;

    /// How a workload stands, from its run directory. `None`: it has none. A workload whose
    /// supervisor died without a last word is reported as exited (137).
    ///
    /// # Errors
    /// If the run directory cannot be read.
    fn status(&self, id: &str) -> Result<Option<Status>, Error>;

    /// Events of a running workload.
    ///
    /// # Errors
    /// If it does not run.
    fn watch(&self, context: &Context, id: &str) -> Result<Box<dyn Events>, Error>;

    /// Ids of every workload of which there is anything, running or not: a run directory, or what
    /// one without it has left (a control group). [`Self::delete`] removes it.
    ///
    /// # Errors
    /// If it cannot be looked up.
    fn list(&self) -> Result<Vec<String>, Error>;

    /// Kills what is left of a workload and removes its run directory, control group and sandbox.
    /// The writable layer and the log are the caller's.
    ///
    /// # Errors
    /// If the system does not allow it. A workload that is gone is no error.
    fn delete(&self, context: &Context, id: &str) -> Result<(), Error>;
}

//! The protocol between the daemon and a supervisor.
//!
//! Frames (see [`crate::wire`]) travel over a unix stream socket: at launch an inherited one,
//! afterwards connections to `control.sock` in the run directory. A connection carries requests
//! and their replies in turn. After [`Verb::Watch`] it carries [`Event`]s only. Descriptors travel
//! with `SCM_RIGHTS` on the first byte of a frame.

use crate::plan::{Plan, Process, TerminalSize};
use crate::resources::Resources;
use crate::status::{ExitStatus, Status};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A request to a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Id of the API request that caused it, for the supervisor's log.
    pub request_id: String,
    /// User id of the API's peer.
    pub peer_uid: u32,
    /// What to do.
    pub verb: Verb,
}

/// What a supervisor can be asked to do. Every verb may be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// First frame on the inherited socket: set everything up to just before execve. Descriptors:
    /// those of [`crate::plan::NamespaceSource::Descriptor`], then one stream per `attach` entry.
    /// Answer: [`Reply::Created`]; with [`Launch::start`] the process runs by then, and its id is
    /// in the status.
    Launch(Box<Launch>),
    /// Execute the process. Answer: [`Reply::Started`]; again after the start, the same answer.
    Start,
    /// Send a signal to the first process, or to all. The restart policy applies as after any
    /// end (see [`Verb::Stop`]), but SIGKILL, SIGTERM, SIGINT and SIGQUIT cancel a pending restart.
    Signal {
        /// Signal number.
        signal: i32,
        /// Every process of the control group.
        all: bool,
    },
    /// Send `signal`, wait, then kill everything. Restart policies no longer apply.
    /// Answer: [`Reply::Done`] once the first process is gone.
    Stop {
        /// Signal number.
        signal: i32,
        /// Milliseconds until SIGKILL; `None` waits for ever.
        timeout_ms: Option<u64>,
    },
    /// Resize the terminal of the first process or of an exec session.
    Resize {
        /// `None` is the first process.
        exec_id: Option<String>,
        /// New size.
        size: TerminalSize,
    },
    /// Run a further process in the container. One stream descriptor comes along if `attach` is
    /// set. Answer: [`Reply::ExecStarted`], or an error if it could not be executed.
    Exec(Box<Exec>),
    /// Send a signal to an exec session's process.
    ExecSignal {
        /// The session.
        exec_id: String,
        /// Signal number.
        signal: i32,
    },
    /// Connect one stream descriptor to the stdio of the first process.
    Attach(Attach),
    /// Freeze every process.
    Pause,
    /// Thaw every process.
    Resume,
    /// Change limits or the restart policy.
    Update {
        /// New limits; only what is set changes.
        resources: Option<Box<Resources>>,
        /// New restart policy.
        restart: Option<RestartPolicy>,
    },
    /// Turn this connection into a stream of [`Event`]s, beginning with the current status.
    Watch,
    /// Answer: [`Reply::Status`].
    Status,
}

/// Everything a supervisor needs to know at launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// What to run.
    pub plan: Plan,
    /// Directory of the supervisor: `control.sock`, `status`, `lock`. It exists and is empty.
    pub run_directory: String,
    /// Where output is kept; `None` keeps none.
    pub log: Option<Log>,
    /// When to start again without being asked.
    pub restart: RestartPolicy,
    /// The process gets a stdin; otherwise `/dev/null`.
    pub open_stdin: bool,
    /// Close stdin after the first attached client has closed its side.
    pub stdin_once: bool,
    /// Clients attached before the start, so that no output is missed.
    pub attach: Vec<Attach>,
    /// Start at once, without waiting for [`Verb::Start`].
    pub start: bool,
}

/// Where and how output is kept: lines of `TIME STREAM TAG TEXT`, the format of Kubernetes' CRI,
/// with TIME in RFC 3339 with nanoseconds, STREAM `stdout` or `stderr`, TAG `F` (full) or `P`
/// (partial: the line goes on).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Path of the newest file; older ones are PATH.1, PATH.2, ... Empty: no file.
    pub path: String,
    /// A file is rotated before it grows beyond this many bytes; 0 never rotates. A single line
    /// longer than this has a file of its own.
    pub max_file_bytes: u64,
    /// How many files are kept, the newest included, at least 1.
    pub max_files: u32,
    /// Another receiver of the same lines.
    pub sink: Option<LogSink>,
}

/// A receiver of log lines besides the file. It never holds up the workload: what it does not take
/// is queued, and what does not fit into the queue is dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSink {
    /// Where it listens.
    pub address: SinkAddress,
    /// How it wants its lines.
    pub format: SinkFormat,
    /// Bytes that may wait.
    pub max_queue_bytes: u32,
}

/// Where a [`LogSink`] listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkAddress {
    /// Datagrams to a unix socket, by its path.
    UnixDatagram(String),
    /// A unix stream socket, by its path.
    UnixStream(String),
    /// UDP, as `ADDRESS:PORT` in numbers.
    Udp(String),
    /// TCP, as `ADDRESS:PORT` in numbers.
    Tcp(String),
}

/// How a [`LogSink`] wants its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkFormat {
    /// The native protocol of systemd's journal; these fields go with every line.
    Journal {
        /// Name and value.
        fields: Vec<(String, String)>,
    },
    /// A message of syslog per line.
    Syslog {
        /// The form.
        style: SyslogStyle,
        /// Number of the facility, 0..=23.
        facility: u8,
        /// Name of the host, in the forms that have one.
        hostname: String,
        /// Who speaks.
        tag: String,
    },
}

/// Forms of a syslog message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogStyle {
    /// `<PRI>Mmm dd hh:mm:ss TAG[PID]: TEXT`, as syslog(3) writes it.
    #[default]
    Local,
    /// With the name of the host (RFC 3164).
    Rfc3164,
    /// RFC 5424, times in seconds.
    Rfc5424,
    /// RFC 5424, times in microseconds.
    Rfc5424Micro,
}

/// When a supervisor starts its process again. Delays double from 100 ms to 1 minute and start
/// afresh after 10 s of running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    Never,
    /// After a non-zero exit.
    OnFailure {
        /// At most this often; 0 is for ever.
        maximum_retries: u32,
    },
    /// After every exit.
    Always,
}

/// Which streams a client is connected to. Output is framed as Docker's multiplexed stream
/// (`[1|2, 0, 0, 0, length as u32 big-endian]`), or raw if the process has a terminal. Input is
/// raw. Shutting down the write side closes its part of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Client's bytes go to stdin.
    pub stdin: bool,
    /// Client gets stdout.
    pub stdout: bool,
    /// Client gets stderr.
    pub stderr: bool,
}

/// A further process in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Id of the session.
    pub exec_id: String,
    /// What to run.
    pub process: Process,
    /// Streams of the client that comes along; `None` for a detached session.
    pub attach: Option<Attach>,
}

/// Answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing more to say.
    Done,
    /// Everything is ready for [`Verb::Start`].
    Created {
        /// What had to be given up because the machine forbids it, one sentence each.
        warnings: Vec<String>,
    },
    /// The process runs.
    Started {
        /// Process id of the first process, seen from the host.
        pid: u32,
    },
    /// The exec session's process runs.
    ExecStarted {
        /// Its process id, seen from the host.
        pid: u32,
        /// What had to be given up, one sentence each.
        warnings: Vec<String>,
    },
    /// The current status.
    Status(Status),
    /// It did not work; nothing has changed.
    Failed(Failure),
}

/// Why something did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// Operation, object, cause and way out, in one sentence.
    pub message: String,
    /// The kernel's error number behind it, 0 if none.
    pub errno: i32,
}

/// Sorts of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The request does not fit the state (not started, already gone).
    State,
    /// The program to execute does not exist in the container (exit code 127 by convention).
    ExecutableNotFound,
    /// The program exists but cannot be executed (exit code 126 by convention).
    ExecutableDenied,
    /// The plan asks for something invalid.
    Invalid,
    /// This supervisor does not know the verb or version.
    Unsupported,
    /// Anything else: the system said no.
    System,
}

/// What a supervisor tells its watchers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// First event: how things stand. Also the last one of a sandbox that was given up before its
    /// start.
    Status(Status),
    /// The first process runs (again).
    Started {
        /// Its process id seen from the host.
        pid: u32,
        /// Nanoseconds since the epoch.
        time_ns: u64,
        /// How often it was started again by policy.
        restart_count: u32,
    },
    /// The first process is gone.
    Exited {
        /// How.
        exit: ExitStatus,
        /// The policy will start it again after this many milliseconds.
        restart_in_ms: Option<u64>,
    },
    /// The kernel killed a process of the group for want of memory.
    OutOfMemory {
        /// Nanoseconds since the epoch.
        time_ns: u64,
    },
    /// All processes are frozen.
    Paused,
    /// They run again.
    Resumed,
    /// An exec session's process is gone.
    ExecExited {
        /// The session.
        exec_id: String,
        /// How.
        exit: ExitStatus,
    },
}

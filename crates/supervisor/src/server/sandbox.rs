//! The sandbox: what is known about it, its status, and its clock.

use super::core::Core;
use super::exec::Session;
use super::memory::MemoryWatch;
use super::restart::Backoff;
use super::run_directory::RunDirectory;
use super::{exit, report};
use crate::sys::process::{self, Reaped};
use gamut_abi::control::{Event, Failure, FailureKind, Launch};
use gamut_abi::status::{ExitStatus, State, Status};
use gamut_cgroup::{Group, Hierarchies};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// A status file that could not be written is tried again this often.
const STATUS_RETRY: Duration = Duration::from_secs(1);

/// Where the first process stands.
pub(super) enum Phase {
    /// Set up, waiting for the start.
    Created {
        created: Box<gamut_container::Created>,
        /// Without anybody connected, it is given up then.
        abandoned_at: Option<Instant>,
    },
    /// It runs, or has just ended and its last output is awaited.
    Running(Running),
    /// Gone, started again then.
    Restarting { at: Instant },
    /// Gone for good; the control group is removed next.
    Removing {
        retry_at: Instant,
        delay: Duration,
        until: Instant,
    },
    /// Nothing is left.
    Exited,
}

/// The first process.
pub(super) struct Running {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) paused: bool,
    pub(super) since: Instant,
    /// How it ended, while its last output is awaited.
    pub(super) exit: Option<ExitStatus>,
}

/// A stop under way.
pub(super) struct Stopping {
    /// Everything is killed then.
    pub(super) kill_at: Option<Instant>,
    /// Connections that wait for the end.
    pub(super) waiters: Vec<u32>,
}

/// See the module's text.
pub(super) struct Sandbox {
    pub(super) launch: Launch,
    /// Namespaces to join.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) directory: RunDirectory,
    pub(super) group: Option<(Hierarchies, Group)>,
    /// The group was killed as a whole, and must be made anew before anything starts in it.
    pub(super) group_killed: bool,
    pub(super) out_of_memory: MemoryWatch,
    pub(super) phase: Phase,
    /// Hub of the first process.
    pub(super) hub: u32,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) backoff: Backoff,
    pub(super) stopping: Option<Stopping>,
    /// Clients that wait for the next start.
    pub(super) waiting: Vec<(OwnedFd, gamut_abi::control::Attach)>,
    pub(super) started_ns: u64,
    pub(super) restart_count: u32,
    pub(super) last_exit: Option<ExitStatus>,
    pub(super) error: String,
    /// The status file is out of date; it is tried again then.
    pub(super) status_retry_at: Option<Instant>,
}

impl Sandbox {
    /// Process id of the first process, 0 if none runs.
    pub(super) fn pid(&self) -> u32 {
        match &self.phase {
            Phase::Created { created, .. } => created.pid,
            Phase::Running(running) if running.exit.is_none() => running.pid,
            _ => 0,
        }
    }

    /// The first process, if it runs.
    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(running) if running.exit.is_none() => Some(running),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> State {
        match &self.phase {
            Phase::Created { .. } => State::Created,
            Phase::Running(running) if running.paused => State::Paused,
            Phase::Running(_) => State::Running,
            Phase::Restarting { .. } => State::Restarting,
            Phase::Removing { .. } | Phase::Exited => State::Exited,
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            id: self.launch.plan.id.clone(),
            supervisor_pid: std::process::id(),
            pid: self.pid(),
            state: self.state(),
            started_ns: self.started_ns,
            restart_count: self.restart_count,
            exit: self.last_exit,
            error: self.error.clone(),
        }
    }

    /// Brings the status file up to date; a failure is tried again later.
    pub(super) fn write_status(&mut self) {
        let first = self.status_retry_at.is_none();
        self.status_retry_at = match self.directory.write_status(&self.status()) {
            Ok(()) => None,
            Err(error) => {
                if first {
                    self.report(&format!(
                        "cannot write the status file, will retry: {error}"
                    ));
                }
                Some(Instant::now() + STATUS_RETRY)
            }
        };
    }

    pub(super) fn report(&self, text: &str) {
        report(&format!("{}: {text}", self.launch.plan.id));
    }

    /// Reaps every child that has ended.
    pub(super) fn reap(&mut self, core: &mut Core) {
        if let Phase::Created { created, .. } = &self.phase {
            // It is the mechanism's child until it is started; nothing else runs yet.
            if crate::sys::io::is_readable(created.pidfd.as_fd()) {
                self.give_up(core, "the process was killed before its start");
            }
            return;
        }
        while let Some(reaped) = process::reap() {
            self.child_ended(core, reaped);
        }
        self.memory_ran_out(core);
    }

    fn child_ended(&mut self, core: &mut Core, reaped: Reaped) {
        if self
            .running()
            .is_some_and(|running| running.pid == reaped.pid)
        {
            self.first_process_ended(core, reaped);
        } else {
            self.session_ended(core, reaped);
        }
    }

    /// Tells watchers if the kernel has killed for want of memory.
    pub(super) fn memory_ran_out(&mut self, core: &mut Core) {
        if self
            .out_of_memory
            .look(self.group.as_ref().map(|(_, group)| group))
        {
            core.broadcast(&Event::OutOfMemory {
                time_ns: crate::sys::clock::now_ns(),
            });
        }
    }

    /// When [`Self::tick`] must be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Created { abandoned_at, .. } => *abandoned_at,
            Phase::Restarting { at } => Some(*at),
            Phase::Removing { retry_at, .. } => Some(*retry_at),
            Phase::Running(_) | Phase::Exited => None,
        };
        let kill = match &self.phase {
            Phase::Running(running) if running.exit.is_none() => {
                self.stopping.as_ref().and_then(|stopping| stopping.kill_at)
            }
            _ => None,
        };
        [
            phase,
            kill,
            self.status_retry_at,
            self.out_of_memory.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self, core: &mut Core, now: Instant) {
        if self.status_retry_at.is_some_and(|due| due <= now) {
            self.write_status();
        }
        if self.out_of_memory.deadline().is_some_and(|due| due <= now) {
            self.memory_ran_out(core);
        }
        self.end_drained_sessions(core);
        match &mut self.phase {
            Phase::Created { abandoned_at, .. } => {
                if core.connections.is_empty() {
                    let due = *abandoned_at.get_or_insert(now + exit::ABANDONED);
                    if due <= now {
                        self.give_up(core, "nobody came to start it");
                    }
                } else {
                    *abandoned_at = None;
                }
            }
            Phase::Running(running) => {
                if running.exit.is_some() {
                    if core.is_drained(self.hub) {
                        self.run_ended(core);
                    }
                } else if let Some(stopping) = &mut self.stopping
                    && stopping.kill_at.is_some_and(|due| due <= now)
                {
                    stopping.kill_at = None;
                    self.kill_everything(core);
                }
            }
            Phase::Restarting { at } => {
                if *at <= now {
                    self.start_again(core);
                }
            }
            Phase::Removing { retry_at, .. } => {
                if *retry_at <= now {
                    self.remove_group(core);
                }
            }
            Phase::Exited => {}
        }
    }

    /// Everything is over and everybody told.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Exited)
    }

    /// Last act: a status that could not be written gets one more try.
    pub(super) fn leave(&mut self) {
        if self.status_retry_at.is_some() {
            self.write_status();
        }
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref().map(|(_, group)| group)
    }
}

/// A refusal that does not come from the kernel.
pub(super) fn refusal(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
        errno: 0,
    }
}

/// A refusal by the system.
pub(super) fn system(operation: &str, error: &std::io::Error) -> Failure {
    Failure {
        kind: FailureKind::System,
        message: format!("{operation}: {error}"),
        errno: error.raw_os_error().unwrap_or(0),
    }
}

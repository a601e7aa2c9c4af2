//! One plain process with its streams, sessions and watchers.

use super::events::Watchers;
use super::streams::{Output, Streams};
use gamut_abi::control::{Attach, Event};
use gamut_abi::status::{ExitStatus, State, Status};
use gamut_spec::time::now_ns;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What to execute.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) directory: PathBuf,
}

/// A process that has been started and not been reaped: its id is its own.
#[derive(Debug)]
struct Live {
    pid: u32,
}

/// What changes over a workload's life.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) status: Status,
    first: Option<Live>,
    /// Exec sessions that run.
    sessions: BTreeMap<String, Live>,
    pub(super) watchers: Watchers,
}

/// One workload.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) root: PathBuf,
    pub(super) program: Program,
    pub(super) open_stdin: bool,
    pub(super) streams: Streams,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Workload {
    pub(super) fn new(
        id: &str,
        root: PathBuf,
        program: Program,
        open_stdin: bool,
        streams: Streams,
    ) -> Arc<Self> {
        let status = Status {
            id: id.to_owned(),
            supervisor_pid: std::process::id(),
            pid: 0,
            state: State::Created,
            started_ns: 0,
            restart_count: 0,
            exit: None,
            error: String::new(),
        };
        let inner = Inner {
            status,
            first: None,
            sessions: BTreeMap::new(),
            watchers: Watchers::default(),
        };
        Arc::new(Self {
            root,
            program,
            open_stdin,
            streams,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // The entries are whole, whoever panicked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the first process; `Ok` with its id if it runs already.
    ///
    /// # Errors
    /// Those of execve(2) and of threads.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<u32> {
        let mut inner = self.lock();
        if let Some(live) = &inner.first {
            return Ok(live.pid);
        }
        let child = spawn(&self.program, self.open_stdin)?;
        let pid = child.id();
        inner.first = Some(Live { pid });
        inner.status.pid = pid;
        inner.status.state = State::Running;
        inner.status.started_ns = now_ns();
        let event = Event::Started {
            pid,
            time_ns: inner.status.started_ns,
            restart_count: 0,
        };
        inner.watchers.tell(&event);
        drop(inner);
        let workload = Arc::clone(self);
        self.follow(child, self.streams.clone(), move |exit| {
            workload.ended(exit);
        });
        Ok(pid)
    }

    /// Starts a further process.
    ///
    /// # Errors
    /// Those of execve(2), and `AlreadyExists` if the session runs.
    pub(super) fn exec(
        self: &Arc<Self>,
        exec_id: &str,
        program: &Program,
        client: Option<(Attach, OwnedFd)>,
    ) -> io::Result<u32> {
        let mut inner = self.lock();
        if inner.sessions.contains_key(exec_id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let streams = Streams::new(true);
        let stdin = client.as_ref().is_some_and(|(attach, _)| attach.stdin);
        // Before the start, so that no output is missed.
        if let Some((attach, stream)) = client {
            streams.attach(attach, stream)?;
        }
        let child = spawn(program, stdin).inspect_err(|_| streams.close())?;
        let pid = child.id();
        inner.sessions.insert(exec_id.to_owned(), Live { pid });
        drop(inner);
        let workload = Arc::clone(self);
        let id = exec_id.to_owned();
        self.follow(child, streams, move |exit| {
            workload.session_ended(&id, exit);
        });
        Ok(pid)
    }

    /// Carries the output of a child and reaps it, on threads of their own.
    fn follow(
        self: &Arc<Self>,
        mut child: Child,
        streams: Streams,
        ended: impl FnOnce(ExitStatus) + Send + 'static,
    ) {
        let stdin = child
            .stdin
            .take()
            .map(|stdin| File::from(OwnedFd::from(stdin)));
        streams.open_input(stdin);
        let mut carriers = Vec::new();
        let stdout = child
            .stdout
            .take()
            .map(|pipe| (Output::Stdout, OwnedFd::from(pipe)));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| (Output::Stderr, OwnedFd::from(pipe)));
        for (output, pipe) in stdout.into_iter().chain(stderr) {
            let streams = streams.clone();
            carriers.push(thread::spawn(move || {
                streams.carry_output(output, File::from(pipe));
            }));
        }
        let workload = Arc::clone(self);
        thread::spawn(move || {
            wait_without_reaping(child.id());
            // While the lock is held nobody sends a signal; afterwards nobody finds the id.
            let mut inner = workload.lock();
            let status = child.wait();
            inner.forget(child.id());
            drop(inner);
            for carrier in carriers {
                // A carrier does not panic; if it did, its output has ended all the same.
                let _ = carrier.join();
            }
            ended(exit_status(status.ok()));
            streams.close();
        });
    }

    fn ended(&self, exit: ExitStatus) {
        let mut inner = self.lock();
        inner.status.pid = 0;
        inner.status.state = State::Exited;
        inner.status.exit = Some(exit);
        inner.watchers.tell(&Event::Exited {
            exit,
            restart_in_ms: None,
        });
        inner.watchers.close();
        drop(inner);
        self.changed.notify_all();
    }

    /// Ends a workload that was never started.
    pub(super) fn abandon(&self) {
        let signal = libc::SIGKILL;
        self.ended(ExitStatus {
            code: 128 + signal,
            signal,
            out_of_memory: false,
            finished_ns: now_ns(),
        });
        self.streams.close();
    }

    fn session_ended(&self, exec_id: &str, exit: ExitStatus) {
        let event = Event::ExecExited {
            exec_id: exec_id.to_owned(),
            exit,
        };
        self.lock().watchers.tell(&event);
    }

    /// Waits until the first process has ended; false if it has not by then.
    pub(super) fn wait_ended(&self, limit: Duration, gone: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let mut inner = self.lock();
        while inner.status.state != State::Exited {
            if begun.elapsed() >= limit || gone() {
                return false;
            }
            let pause = Duration::from_millis(50).min(limit);
            inner = self
                .changed
                .wait_timeout(inner, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Inner {
    /// The child is reaped: its id may be anybody's from now on.
    fn forget(&mut self, pid: u32) {
        if self.first.as_ref().is_some_and(|live| live.pid == pid) {
            self.first = None;
        }
        self.sessions.retain(|_, live| live.pid != pid);
    }

    /// Sends a signal to the first process, or to its whole group and those of the sessions.
    /// False if it does not run.
    pub(super) fn signal(&self, signal: i32, all: bool) -> bool {
        let Some(first) = &self.first else {
            return false;
        };
        send(first.pid, signal, all);
        if all {
            for session in self.sessions.values() {
                send(session.pid, signal, true);
            }
        }
        true
    }

    /// Sends a signal to a session's process. False if it does not run.
    pub(super) fn signal_session(&self, exec_id: &str, signal: i32) -> bool {
        let session = self.sessions.get(exec_id);
        if let Some(session) = session {
            send(session.pid, signal, false);
        }
        session.is_some()
    }

    /// Ids of the first process and of the sessions.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.first
            .iter()
            .chain(self.sessions.values())
            .map(|live| live.pid)
            .collect()
    }
}

/// Sends a signal to a process that has not been reaped, or to its process group.
fn send(pid: u32, signal: i32, group: bool) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    // SAFETY: kill only takes numbers. The child is not reaped, so that the id is its own; it was
    // made the leader of a process group of that id.
    unsafe { libc::kill(if group { -pid } else { pid }, signal) };
}

fn spawn(program: &Program, stdin: bool) -> io::Result<Child> {
    let [name, args @ ..] = program.args.as_slice() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(name);
    command
        .args(args)
        .env_clear()
        .envs(
            program
                .env
                .iter()
                .filter_map(|variable| variable.split_once('=')),
        )
        .current_dir(&program.directory)
        .process_group(0)
        .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn()
}

/// Waits until a child has ended, leaving it to be reaped.
fn wait_without_reaping(pid: u32) {
    // SAFETY: waitid writes into a siginfo_t of its own; all-zero is a valid one.
    unsafe {
        let mut information: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(
            libc::P_PID,
            pid,
            &raw mut information,
            libc::WEXITED | libc::WNOWAIT,
        ) < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

fn exit_status(status: Option<std::process::ExitStatus>) -> ExitStatus {
    let signal = status.and_then(|status| status.signal()).unwrap_or(0);
    let code = status
        .and_then(|status| status.code())
        .unwrap_or(128 + signal);
    ExitStatus {
        code,
        signal,
        out_of_memory: false,
        finished_ns: now_ns(),
    }
}

//! The level `process`: plain child processes in a directory of the host, isolated by nothing.
//!
//! For tests of the contract. There is no supervisor: the daemon itself is the parent, and all
//! that is known about a workload goes with it.

mod events;
mod refusals;
mod streams;
mod workload;

use crate::compile::{ProcessOptions, compile_process};
use crate::contract::{
    Context, Endpoint, Events, ExecSpec, Feature, Isolation, Loan, RootSource, SandboxSpec,
    Started, WorkloadSpec,
};
use crate::error::{Error, Refusal};
use gamut_abi::control::{Attach, Event, RestartPolicy};
use gamut_abi::plan::{TerminalSize, User};
use gamut_abi::resources::Resources;
use gamut_abi::status::{State, Status};
use gamut_cgroup::Stats;
use gamut_spec::form::ImageForm;
use gamut_spec::isolation::IsolationLevel;
use refusals::{REFUSALS, refuse};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use streams::Streams;
use workload::{Program, Workload};

/// How long the kernel may take to end a killed process.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection may take whose caller sets no deadline.
const DIAL_LIMIT: Duration = Duration::from_secs(60);

/// Sandboxes and workloads by id.
#[derive(Debug, Default)]
struct Table {
    sandboxes: BTreeSet<String>,
    workloads: BTreeMap<String, Arc<Workload>>,
}

/// Plain processes.
#[derive(Debug, Default)]
pub struct ProcessLevel(Mutex<Table>);

/// Refuses a verb whose caller has hung up or whose time is over.
fn check(context: &Context, operation: &'static str, id: &str) -> Result<(), Error> {
    if context.is_cancelled() {
        return Err(Error::Cancelled {
            operation,
            id: id.to_owned(),
        });
    }
    if context
        .deadline
        .is_some_and(|deadline| deadline <= Instant::now())
    {
        return Err(Error::Timeout {
            operation,
            id: id.to_owned(),
            allowed_ms: 0,
        });
    }
    Ok(())
}

fn system(operation: &'static str, id: &str, source: io::Error) -> Error {
    Error::System {
        operation,
        id: id.to_owned(),
        source: source.into(),
    }
}

fn not_running(operation: &'static str, id: &str) -> Error {
    Error::State {
        operation,
        id: id.to_owned(),
        reason: "it is not running".to_owned(),
    }
}

/// What a program that could not be executed means to the caller.
fn execution_failed(
    operation: &'static str,
    id: &str,
    program: &Program,
    error: io::Error,
) -> Error {
    let name = program.args.first().map_or("", String::as_str);
    match error.kind() {
        ErrorKind::NotFound => Error::ExecutableNotFound(format!("execute {name}: {error}")),
        ErrorKind::PermissionDenied => Error::ExecutableDenied(format!("execute {name}: {error}")),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => {
            Error::ExecutableDenied(format!("execute {name}: {error}"))
        }
        _ => system(operation, id, error),
    }
}

/// The program of a configuration, and the refusal of what a plain process cannot have.
fn program(
    process: &oci_spec::runtime::Process,
    user: Option<String>,
    root: &Path,
) -> Result<Program, Error> {
    let options = ProcessOptions {
        user,
        ..ProcessOptions::default()
    };
    let compiled = compile_process(process, options, &mut Vec::new())?;
    let is_root = match &compiled.user {
        User::Numeric {
            uid,
            gid,
            additional_gids,
        } => (*uid, *gid) == (0, 0) && additional_gids.is_empty(),
        User::Lookup {
            spec,
            additional_groups,
        } => matches!(spec.as_str(), "" | "0" | "root" | "0:0") && additional_groups.is_empty(),
    };
    if !is_root {
        return Err(refuse("user"));
    }
    if compiled.terminal.is_some() {
        return Err(refuse("terminal"));
    }
    let directory = root.join(compiled.cwd.trim_start_matches('/'));
    Ok(Program {
        args: compiled.args,
        env: compiled.env,
        directory,
    })
}

impl ProcessLevel {
    /// No sandboxes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The entries are whole, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<Workload>, Error> {
        let found = self.lock().workloads.get(id).cloned();
        found.ok_or_else(|| Error::NotFound {
            object: "workload",
            id: id.to_owned(),
        })
    }

    /// The workload, if its process runs.
    fn running(
        &self,
        context: &Context,
        operation: &'static str,
        id: &str,
    ) -> Result<Arc<Workload>, Error> {
        check(context, operation, id)?;
        let workload = self.find(id)?;
        let state = workload.lock().status.state;
        match state {
            State::Running | State::Paused => Ok(workload),
            _ => Err(not_running(operation, id)),
        }
    }

    fn set_paused(
        &self,
        context: &Context,
        operation: &'static str,
        id: &str,
        paused: bool,
    ) -> Result<(), Error> {
        let workload = self.running(context, operation, id)?;
        let mut inner = workload.lock();
        let (signal, state, event) = if paused {
            (libc::SIGSTOP, State::Paused, Event::Paused)
        } else {
            (libc::SIGCONT, State::Running, Event::Resumed)
        };
        if inner.status.state == state {
            return Ok(());
        }
        if !inner.signal(signal, true) {
            return Err(not_running(operation, id));
        }
        inner.status.state = state;
        inner.watchers.tell(&event);
        Ok(())
    }
}

impl Isolation for ProcessLevel {
    fn level(&self) -> IsolationLevel {
        IsolationLevel::Process
    }

    fn refusals(&self) -> &'static [Refusal] {
        REFUSALS
    }

    fn image_form(&self) -> ImageForm {
        ImageForm::Linux
    }

    fn admit(&self, _: &[Feature]) -> Result<Vec<String>, Error> {
        // What it cannot give is told by `create`, which knows all of it.
        Ok(Vec::new())
    }

    fn lend(&self, _: Loan) -> Result<(), Error> {
        Ok(())
    }

    fn describe(&self, _: &str) -> Result<BTreeMap<String, String>, Error> {
        Ok(BTreeMap::new())
    }

    fn prepare(&self, context: &Context, sandbox: SandboxSpec) -> Result<(), Error> {
        check(context, "prepare", &sandbox.id)?;
        match sandbox.endpoint {
            Endpoint::Host => {
                self.lock().sandboxes.insert(sandbox.id);
                Ok(())
            }
            Endpoint::Namespace(_) | Endpoint::Workload(_) => Err(refuse("network")),
        }
    }

    fn create(&self, context: &Context, workload: WorkloadSpec) -> Result<Started, Error> {
        let id = workload.id;
        check(context, "create", &id)?;
        let RootSource::Directory(root) = workload.root else {
            return Err(refuse("image"));
        };
        for (refused, capability) in [
            (workload.init, "init"),
            (workload.log.is_some(), "logs"),
            (workload.restart != RestartPolicy::Never, "restart"),
            (!workload.additional_groups.is_empty(), "user"),
        ] {
            if refused {
                return Err(refuse(capability));
            }
        }
        let Some(process) = workload.config.process() else {
            return Err(Error::Invalid {
                field: "process".to_owned(),
                problem: "is missing; there is nothing to run".to_owned(),
            });
        };
        let program = program(process, workload.user, &root)?;
        if workload.create_cwd {
            std::fs::create_dir_all(&program.directory)
                .map_err(|error| system("create", &id, error))?;
        }
        let mut table = self.lock();
        if let Some(known) = table.workloads.get(&id) {
            return match known.lock().status.state {
                State::Created if workload.attached.is_empty() => Ok(Started::default()),
                _ => Err(Error::State {
                    operation: "create",
                    id,
                    reason: "it exists already; delete it first".to_owned(),
                }),
            };
        }
        if !table.sandboxes.contains(&workload.sandbox_id) {
            return Err(Error::NotFound {
                object: "sandbox",
                id: workload.sandbox_id,
            });
        }
        let streams = Streams::new(workload.stdin_once);
        for client in workload.attached {
            streams
                .attach(client.attach, client.stream)
                .map_err(|error| system("create", &id, error))?;
        }
        let made = Workload::new(&id, root, program, workload.open_stdin, streams);
        table.workloads.insert(id, made);
        Ok(Started::default())
    }

    fn start(&self, context: &Context, id: &str) -> Result<Started, Error> {
        check(context, "start", id)?;
        let workload = self.find(id)?;
        if workload.lock().status.state == State::Exited {
            return Err(Error::State {
                operation: "start",
                id: id.to_owned(),
                reason: "it has exited; create it anew".to_owned(),
            });
        }
        let pid = workload
            .start()
            .map_err(|error| execution_failed("start", id, &workload.program, error))?;
        Ok(Started {
            pid,
            warnings: Vec::new(),
        })
    }

    fn exec(
        &self,
        context: &Context,
        id: &str,
        exec: ExecSpec,
        stream: Option<OwnedFd>,
    ) -> Result<Started, Error> {
        let workload = self.running(context, "exec", id)?;
        let program = program(&exec.process, exec.user, &workload.root)?;
        let client = match (exec.attach, stream) {
            (Some(attach), Some(stream)) => Some((attach, stream)),
            (None, None) => None,
            _ => {
                return Err(Error::Invalid {
                    field: "exec".to_owned(),
                    problem: "a stream and what to attach to it belong together".to_owned(),
                });
            }
        };
        match workload.exec(&exec.id, &program, client) {
            Ok(pid) => Ok(Started {
                pid,
                warnings: Vec::new(),
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::State {
                operation: "exec",
                id: id.to_owned(),
                reason: format!("session {} exists already", exec.id),
            }),
            Err(error) => Err(execution_failed("exec", id, &program, error)),
        }
    }

    fn signal(
        &self,
        context: &Context,
        id: &str,
        exec_id: Option<&str>,
        signal: i32,
        all: bool,
    ) -> Result<(), Error> {
        let workload = self.running(context, "signal", id)?;
        if !(1..=64).contains(&signal) {
            return Err(Error::Invalid {
                field: "signal".to_owned(),
                problem: format!("{signal} is not between 1 and 64"),
            });
        }
        let inner = workload.lock();
        match exec_id {
            Some(exec_id) if !inner.signal_session(exec_id, signal) => Err(Error::NotFound {
                object: "exec session",
                id: exec_id.to_owned(),
            }),
            None if !inner.signal(signal, all) => Err(not_running("signal", id)),
            _ => Ok(()),
        }
    }

    fn stop(
        &self,
        context: &Context,
        id: &str,
        signal: i32,
        timeout_ms: Option<u64>,
    ) -> Result<(), Error> {
        check(context, "stop", id)?;
        let Ok(workload) = self.find(id) else {
            return Ok(());
        };
        if workload.lock().status.state == State::Created {
            // It has no process: it ends as if that had been killed.
            workload.abandon();
            return Ok(());
        }
        {
            let inner = workload.lock();
            inner.signal(signal, false);
            // What is frozen cannot act on a signal.
            inner.signal(libc::SIGCONT, true);
        }
        let gone = || check(context, "stop", id).is_err();
        let limit = timeout_ms.map_or(Duration::MAX, Duration::from_millis);
        if workload.wait_ended(limit, gone) {
            return Ok(());
        }
        check(context, "stop", id)?;
        workload.lock().signal(libc::SIGKILL, true);
        if workload.wait_ended(KILL_LIMIT, gone) {
            return Ok(());
        }
        check(context, "stop", id)?;
        Err(system(
            "stop",
            id,
            io::Error::new(ErrorKind::TimedOut, "it does not die"),
        ))
    }

    fn resize(
        &self,
        context: &Context,
        id: &str,
        _: Option<&str>,
        _: TerminalSize,
    ) -> Result<(), Error> {
        self.running(context, "resize", id)?;
        Err(refuse("terminal"))
    }

    fn pause(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.set_paused(context, "pause", id, true)
    }

    fn resume(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.set_paused(context, "resume", id, false)
    }

    fn update(
        &self,
        context: &Context,
        id: &str,
        resources: Option<Resources>,
        restart: Option<RestartPolicy>,
    ) -> Result<(), Error> {
        self.running(context, "update", id)?;
        if resources.is_some_and(|resources| resources != Resources::default()) {
            return Err(refuse("limits"));
        }
        match restart {
            None | Some(RestartPolicy::Never) => Ok(()),
            Some(_) => Err(refuse("restart")),
        }
    }

    fn attach(
        &self,
        context: &Context,
        id: &str,
        attach: Attach,
        stream: OwnedFd,
    ) -> Result<(), Error> {
        let workload = self.running(context, "attach", id)?;
        workload
            .streams
            .attach(attach, stream)
            .map_err(|error| system("attach", id, error))
    }

    fn debug(&self, _: &Context, _: &str) -> Result<UnixStream, Error> {
        Err(refuse("debug"))
    }

    fn stats(&self, context: &Context, id: &str) -> Result<Stats, Error> {
        self.running(context, "stats", id)?;
        Err(refuse("stats"))
    }

    fn processes(&self, context: &Context, id: &str) -> Result<Vec<u32>, Error> {
        let workload = self.running(context, "top", id)?;
        let processes = workload.lock().processes();
        Ok(processes)
    }

    fn dial(&self, context: &Context, id: &str, port: u16) -> Result<TcpStream, Error> {
        self.running(context, "connect to", id)?;
        let left = context.deadline.map_or(DIAL_LIMIT, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        crate::container::dial::loopback(port, left)
            .map_err(|error| system("connect to", id, error))
    }

    fn root(&self, context: &Context, id: &str) -> Result<OwnedFd, Error> {
        let workload = self.running(context, "open the root of", id)?;
        let path: PathBuf = workload.root.join(".");
        File::open(path)
            .map(OwnedFd::from)
            .map_err(|error| system("open the root of", id, error))
    }

    fn checkpoint(&self, _: &Context, _: &str, _: &Path) -> Result<(), Error> {
        Err(refuse("checkpoint"))
    }

    fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        let workload = self.lock().workloads.get(id).cloned();
        Ok(workload.map(|workload| workload.lock().status.clone()))
    }

    fn watch(&self, context: &Context, id: &str) -> Result<Box<dyn Events>, Error> {
        check(context, "watch", id)?;
        let workload = self.find(id)?;
        let mut inner = workload.lock();
        if inner.status.state == State::Exited {
            return Err(not_running("watch", id));
        }
        let first = Event::Status(inner.status.clone());
        inner
            .watchers
            .add(&first)
            .map_err(|error| system("watch", id, error))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.lock().workloads.keys().cloned().collect())
    }

    fn delete(&self, context: &Context, id: &str) -> Result<(), Error> {
        check(context, "delete", id)?;
        let workload = self.lock().workloads.get(id).cloned();
        if let Some(workload) = workload {
            let runs = workload.lock().signal(libc::SIGKILL, true);
            if runs && !workload.wait_ended(KILL_LIMIT, || check(context, "delete", id).is_err()) {
                check(context, "delete", id)?;
                let error = io::Error::new(ErrorKind::TimedOut, "it does not die");
                return Err(system("delete", id, error));
            }
        }
        let mut table = self.lock();
        table.workloads.remove(id);
        table.sandboxes.remove(id);
        Ok(())
    }
}

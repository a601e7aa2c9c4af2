//! The level `container`: namespaces and control groups on the host's kernel, one supervisor per
//! workload.
//!
//! The level keeps next to nothing in memory: the run directory of each supervisor is the
//! authority, so that a new daemon finds everything. Each verb has a connection of its own; a long
//! stop blocks nobody else.

mod call;
mod create;
mod descendants;
pub(crate) mod dial;
mod directory;
mod groups;
mod leftovers;
mod pid;
mod turns;

use crate::compile::{ProcessOptions, cgroup_path, compile_process};
use crate::contract::{
    Context, Endpoint, Events, ExecSpec, Feature, Isolation, Loan, SandboxSpec, Started,
    WorkloadSpec,
};
use crate::error::{Error, Refusal};
use crate::events::SocketEvents;
use call::Call;
pub(crate) use directory::is_id;
use directory::{RunRoot, read_record};
use gamut_abi::control::{Attach, Exec, Reply, RestartPolicy, Verb};
use gamut_abi::plan::TerminalSize;
use gamut_abi::resources::Resources;
use gamut_abi::status::{State, Status};
use gamut_cgroup::{Group, Hierarchies, Stats};
use gamut_spec::form::ImageForm;
use gamut_spec::isolation::IsolationLevel;
use gamut_supervisor::{Client, Executable};
use pid::PinnedProcess;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use turns::Turns;

/// Where a [`ContainerLevel`] keeps things.
#[derive(Debug, Clone)]
pub struct ContainerOptions {
    /// Directory for run directories, on a file system that does not survive a boot (`/run/gamut`).
    pub run_root: PathBuf,
    /// The supervisor's program file.
    pub supervisor: PathBuf,
    /// Control group below which every workload has one (`/gamut`).
    pub cgroup_parent: String,
    /// Why there are no control groups to be had; workloads then have no limits, and what needs
    /// a group is refused with this reason.
    pub without_groups: Option<String>,
}

/// Containers.
#[derive(Debug)]
pub struct ContainerLevel {
    run_root: RunRoot,
    executable: Executable,
    cgroup_parent: String,
    hierarchies: Hierarchies,
    without_groups: Option<String>,
    /// Networks of prepared sandboxes in which nothing has been created yet.
    sandboxes: Mutex<HashMap<String, Endpoint>>,
    /// Connections to supervisors whose workload has not been started.
    pending: Mutex<HashMap<String, Client>>,
    /// Workloads whose run directory is being filled.
    creating: Mutex<HashSet<String>>,
    turns: Turns,
}

/// Locks, whoever panicked while holding it: every entry is whole at all times.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_id(id: &str) -> Result<(), Error> {
    if is_id(id) {
        return Ok(());
    }
    Err(Error::Invalid {
        field: "id".to_owned(),
        problem: format!("{id:?} cannot name a workload; use up to 128 of A-Z a-z 0-9 _ . -"),
    })
}

/// Notes for its lifetime that an id is in a set.
struct Busy<'a>(&'a Mutex<HashSet<String>>, &'a str);

impl<'a> Busy<'a> {
    fn new(set: &'a Mutex<HashSet<String>>, id: &'a str) -> Self {
        lock(set).insert(id.to_owned());
        Self(set, id)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(self.0).remove(self.1);
    }
}

impl ContainerLevel {
    /// What a container cannot do.
    pub const REFUSALS: &[Refusal] = &[
        Refusal {
            level: IsolationLevel::Container,
            capability: "checkpoint",
            reason: "saving the state of processes on the host's kernel is not part of this version",
            alternative: "stop the container and start it again",
        },
        Refusal {
            level: IsolationLevel::Container,
            capability: "debug",
            reason: "it has no machine of its own that a debugger could stop",
            alternative: "run gdb or gdbserver in it, or attach gdb to its processes from the host",
        },
    ];

    /// Seals the supervisor's program, finds the control groups and makes the run root.
    ///
    /// # Errors
    /// If the program cannot be read, no control groups are mounted or the run root cannot be
    /// made.
    pub fn new(options: ContainerOptions) -> Result<Self, Error> {
        let fail = |operation: &'static str, object: &Path, source| Error::System {
            operation,
            id: object.display().to_string(),
            source,
        };
        let ContainerOptions {
            run_root,
            supervisor,
            cgroup_parent,
            without_groups,
        } = options;
        let cgroup_parent = cgroup_path("cgroup parent", &cgroup_parent)?;
        let executable = Executable::share(&supervisor)
            .map_err(|error| fail("read the supervisor", &supervisor, error.into()))?;
        gamut_supervisor::adopt_supervisors()
            .map_err(|error| fail("adopt supervisors of", &supervisor, error.into()))?;
        let detected = if without_groups.is_some() {
            Ok(Hierarchies::none())
        } else {
            Hierarchies::detect()
        };
        let hierarchies = detected.map_err(|error| {
            fail(
                "find control groups in",
                Path::new("/proc/self/mountinfo"),
                error.into(),
            )
        })?;
        if let Err(error) = hierarchies.vacate_root() {
            // Limits will be missed one by one, and each says so.
            tracing::warn!(error = %error, "control groups cannot be divided here");
        }
        let run_root = RunRoot::open(&run_root)
            .map_err(|error| fail("make the run root", &run_root, error.into()))?;
        Ok(Self {
            run_root,
            executable,
            cgroup_parent,
            hierarchies,
            without_groups,
            sandboxes: Mutex::default(),
            pending: Mutex::default(),
            creating: Mutex::default(),
            turns: Turns::default(),
        })
    }

    fn lock_sandboxes(&self) -> MutexGuard<'_, HashMap<String, Endpoint>> {
        lock(&self.sandboxes)
    }

    fn lock_pending(&self) -> MutexGuard<'_, HashMap<String, Client>> {
        lock(&self.pending)
    }

    fn forget_sandbox(&self, id: &str) {
        // The descriptor is closed outside the lock.
        let forgotten = self.lock_sandboxes().remove(id);
        drop(forgotten);
    }

    fn is_being_created(&self, id: &str) -> bool {
        lock(&self.creating).contains(id)
    }

    fn default_group(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup_parent)
    }

    /// Connects to the supervisor of a workload.
    fn connect(&self, call: &Call<'_>) -> Result<Client, Error> {
        if !is_id(call.id) {
            return Err(call.not_found());
        }
        call.connect(&self.run_root.of(call.id))
    }

    /// One verb over a connection of its own, answered with `Done`.
    fn simple(
        &self,
        context: &Context,
        operation: &'static str,
        id: &str,
        verb: Verb,
        descriptors: &[OwnedFd],
    ) -> Result<(), Error> {
        let call = Call::begin(context, operation, id)?;
        let mut client = self.connect(&call)?;
        call.request(&mut client, verb, descriptors).map(|_| ())
    }

    /// The control group of a workload that runs.
    fn group(&self, call: &Call<'_>) -> Result<Group, Error> {
        self.running(call)?;
        self.need_groups(call)?;
        let record = read_record(&self.run_root.of(call.id)).map_err(|error| call.system(error))?;
        let path = record
            .map(|record| record.cgroup_path)
            .filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| self.default_group(call.id));
        Group::at(&self.hierarchies, &path).map_err(|error| call.system(error))
    }

    /// Does something with the first process of a workload that runs.
    fn with_first_process<T>(
        &self,
        call: &Call<'_>,
        work: impl FnOnce(&PinnedProcess) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        let status = self.running(call)?;
        PinnedProcess::open_child(status.pid, status.supervisor_pid)
            .and_then(|process| work(&process))
            .map_err(|error| {
                if create::is_gone(&error) {
                    call.state("it has just ended")
                } else {
                    call.system(error)
                }
            })
    }

    /// The status of a workload that has a first process.
    fn running(&self, call: &Call<'_>) -> Result<Status, Error> {
        if !is_id(call.id) {
            return Err(call.not_found());
        }
        let status = self
            .read(call.operation, call.id)?
            .ok_or_else(|| call.not_found())?;
        if matches!(status.state, State::Exited | State::Restarting) || status.pid == 0 {
            return Err(call.state("it is not running"));
        }
        Ok(status)
    }
}

impl Isolation for ContainerLevel {
    fn level(&self) -> IsolationLevel {
        IsolationLevel::Container
    }

    fn refusals(&self) -> &'static [Refusal] {
        Self::REFUSALS
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
        let SandboxSpec { id, endpoint } = sandbox;
        Call::begin(context, "prepare", &id)?;
        check_id(&id)?;
        self.lock_sandboxes().insert(id, endpoint);
        Ok(())
    }

    fn create(&self, context: &Context, workload: WorkloadSpec) -> Result<Started, Error> {
        self.create_workload(context, workload)
    }

    fn start(&self, context: &Context, id: &str) -> Result<Started, Error> {
        let call = Call::begin(context, "start", id)?;
        let pending = self.lock_pending().remove(id);
        let mut client = match pending {
            Some(client) => client.with_context(call.client_context()),
            None => self.connect(&call)?,
        };
        match call.request(&mut client, Verb::Start, &[])? {
            Reply::Started { pid } => Ok(Started {
                pid,
                warnings: Vec::new(),
            }),
            _ => Err(call.system("the supervisor's answer does not fit")),
        }
    }

    fn exec(
        &self,
        context: &Context,
        id: &str,
        exec: ExecSpec,
        stream: Option<OwnedFd>,
    ) -> Result<Started, Error> {
        let call = Call::begin(context, "exec", id)?;
        let mut client = self.connect(&call)?;
        let record = read_record(&self.run_root.of(id)).map_err(|error| call.system(error))?;
        let (seccomp, seccomp_listener) = record
            .map(|record| (record.seccomp, record.seccomp_listener))
            .unwrap_or_default();
        let options = ProcessOptions {
            user: exec.user,
            // A further process must not escape the filter of the first.
            seccomp,
            seccomp_listener,
            ..ProcessOptions::default()
        };
        let mut warnings = Vec::new();
        let process = compile_process(&exec.process, options, &mut warnings)?;
        if exec.attach.is_some() != stream.is_some() {
            return Err(Error::Invalid {
                field: "exec".to_owned(),
                problem: "a stream and what to attach to it belong together".to_owned(),
            });
        }
        let verb = Verb::Exec(Box::new(Exec {
            exec_id: exec.id,
            process,
            attach: exec.attach,
        }));
        let descriptors: Vec<OwnedFd> = stream.into_iter().collect();
        match call.request(&mut client, verb, &descriptors)? {
            Reply::ExecStarted {
                pid,
                warnings: more,
            } => {
                warnings.extend(more);
                Ok(Started { pid, warnings })
            }
            _ => Err(call.system("the supervisor's answer does not fit")),
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
        let verb = match exec_id {
            Some(exec_id) => Verb::ExecSignal {
                exec_id: exec_id.to_owned(),
                signal,
            },
            None => Verb::Signal { signal, all },
        };
        self.simple(context, "signal", id, verb, &[])
    }

    fn stop(
        &self,
        context: &Context,
        id: &str,
        signal: i32,
        timeout_ms: Option<u64>,
    ) -> Result<(), Error> {
        let call = Call::begin(context, "stop", id)?;
        let client = match self.connect(&call) {
            Ok(client) => client,
            // Gone already, or never there: that is what was asked for.
            Err(Error::NotFound { .. } | Error::State { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.lock_pending().remove(id);
        match call.request_patiently(client, Verb::Stop { signal, timeout_ms }) {
            Ok(_) => Ok(()),
            Err(Error::State { .. })
                if self
                    .read("stop", id)?
                    .is_none_or(|status| status.state == State::Exited) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn resize(
        &self,
        context: &Context,
        id: &str,
        exec_id: Option<&str>,
        size: TerminalSize,
    ) -> Result<(), Error> {
        let verb = Verb::Resize {
            exec_id: exec_id.map(str::to_owned),
            size,
        };
        self.simple(context, "resize", id, verb, &[])
    }

    fn pause(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.need_groups(&Call::begin(context, "pause", id)?)?;
        self.simple(context, "pause", id, Verb::Pause, &[])
    }

    fn resume(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.simple(context, "resume", id, Verb::Resume, &[])
    }

    fn update(
        &self,
        context: &Context,
        id: &str,
        resources: Option<Resources>,
        restart: Option<RestartPolicy>,
    ) -> Result<(), Error> {
        if resources.is_some() {
            self.need_groups(&Call::begin(context, "update", id)?)?;
        }
        let verb = Verb::Update {
            resources: resources.map(Box::new),
            restart,
        };
        self.simple(context, "update", id, verb, &[])
    }

    fn attach(
        &self,
        context: &Context,
        id: &str,
        attach: Attach,
        stream: OwnedFd,
    ) -> Result<(), Error> {
        self.simple(context, "attach", id, Verb::Attach(attach), &[stream])
    }

    fn dial(&self, context: &Context, id: &str, port: u16) -> Result<TcpStream, Error> {
        let call = Call::begin(context, "connect to", id)?;
        self.with_first_process(&call, |process| {
            dial::from_within(process, port, call.time_left())
        })
    }

    fn debug(&self, _: &Context, _: &str) -> Result<UnixStream, Error> {
        Err(Error::Refused(Self::REFUSALS[1]))
    }

    fn stats(&self, context: &Context, id: &str) -> Result<Stats, Error> {
        let call = Call::begin(context, "stats", id)?;
        let group = self.group(&call)?;
        group.stats().map_err(|error| call.system(error))
    }

    fn processes(&self, context: &Context, id: &str) -> Result<Vec<u32>, Error> {
        let call = Call::begin(context, "top", id)?;
        if self.without_groups.is_some() {
            return Ok(descendants::of(self.running(&call)?.supervisor_pid));
        }
        let group = self.group(&call)?;
        group.processes().map_err(|error| call.system(error))
    }

    fn root(&self, context: &Context, id: &str) -> Result<OwnedFd, Error> {
        let call = Call::begin(context, "open the root of", id)?;
        self.with_first_process(&call, |process| {
            process.open_file("root", libc::O_PATH | libc::O_DIRECTORY)
        })
    }

    fn checkpoint(&self, _: &Context, _: &str, _: &Path) -> Result<(), Error> {
        Err(Error::Refused(Self::REFUSALS[0]))
    }

    fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        if is_id(id) {
            self.read("status", id)
        } else {
            Ok(None)
        }
    }

    fn watch(&self, context: &Context, id: &str) -> Result<Box<dyn Events>, Error> {
        let call = Call::begin(context, "watch", id)?;
        let watcher = self
            .connect(&call)?
            .watch()
            .map_err(|error| call.failed(error))?;
        // Nothing has been read yet: the decoder is empty.
        let (stream, _) = watcher.into_inner();
        Ok(Box::new(SocketEvents::new(stream)))
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        let fail = |what: &str, source| Error::System {
            operation: "list",
            id: what.to_owned(),
            source,
        };
        let mut ids = self
            .run_root
            .list()
            .map_err(|error| fail("the run directories", error.into()))?;
        let groups = gamut_cgroup::list_children(&self.hierarchies, &self.cgroup_parent)
            .map_err(|error| fail("the control groups", error.into()))?;
        // The parent may hold others' groups as well.
        ids.extend(
            groups
                .into_iter()
                .filter(|name| gamut_spec::id::is_id(name)),
        );
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn delete(&self, context: &Context, id: &str) -> Result<(), Error> {
        let call = Call::begin(context, "delete", id)?;
        if !is_id(id) {
            return Ok(());
        }
        let _turn = self.turns.take(id);
        self.clean_up(&call)?;
        self.forget_sandbox(id);
        Ok(())
    }
}

//! From a launch request to a running process, the first time and again.

use super::core::Core;
use super::memory::MemoryWatch;
use super::restart::Backoff;
use super::run_directory::RunDirectory;
use super::sandbox::{Phase, Running, Sandbox, refusal, system};
use super::stdio::{self, Wanted};
use super::token::Token;
use crate::hub::HubOptions;
use crate::log::LogWriter;
use crate::sys::clock::now_ns;
use crate::sys::epoll::Epoll;
use gamut_abi::control::{Attach, Event, Failure, FailureKind, Launch};
use gamut_abi::plan::{NamespaceSource, Plan};
use gamut_abi::resources::Resources;
use gamut_abi::status::ExitStatus;
use gamut_cgroup::{Group, Hierarchies};
use gamut_container::{CreateOptions, Created, Stdio};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The supervisor is the last that the kernel should kill for want of memory.
const OWN_OOM_SCORE_ADJ: &str = "-999";

impl Sandbox {
    /// Sets everything up to just before execve. On failure nothing is left behind.
    ///
    /// # Errors
    /// Why it did not work.
    pub(super) fn launch(
        core: &mut Core,
        mut launch: Launch,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(Self, Vec<String>), Failure> {
        let streams = split_descriptors(&launch, &mut descriptors)?;
        let own_score = protect_from_oom();
        launch.plan.process.oom_score_adj.get_or_insert(own_score);
        let directory = RunDirectory::open(&launch.run_directory)
            .map_err(|error| system(&format!("take over {}", launch.run_directory), &error))?;
        core.log = match &launch.log {
            None => None,
            Some(log) => Some(
                LogWriter::open(log)
                    .map_err(|error| system(&format!("open the log {}", log.path), &error))?,
            ),
        };
        let mut warnings = Vec::new();
        let group = make_group(&launch.plan, &mut warnings)?;
        let joined = group.as_ref().map(|(_, group)| group);
        let prepared = prepare(core, &launch, &descriptors, joined).and_then(|(created, hub)| {
            let attached = attach_all(core, hub, streams);
            let watched = core.watch(Token::Listener, directory.listener());
            match attached.and(watched) {
                Ok(()) => Ok((created, hub)),
                Err(error) => {
                    core.close_hub(hub);
                    created.abort();
                    Err(system("wait for the streams of the process", &error))
                }
            }
        });
        let (mut created, hub) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                if let Some((_, group)) = &group {
                    discard(group);
                }
                return Err(failure);
            }
        };
        warnings.append(&mut created.warnings);
        let mut sandbox = Self {
            out_of_memory: MemoryWatch::new(
                group
                    .as_ref()
                    .map(|(hierarchies, group)| (hierarchies, group)),
                &core.epoll,
            ),
            launch,
            descriptors,
            directory,
            group,
            group_killed: false,
            phase: Phase::Created {
                created: Box::new(created),
                abandoned_at: None,
            },
            hub,
            sessions: BTreeMap::new(),
            backoff: Backoff::new(),
            stopping: None,
            waiting: Vec::new(),
            started_ns: 0,
            restart_count: 0,
            last_exit: None,
            error: String::new(),
            status_retry_at: None,
        };
        sandbox.write_status();
        Ok((sandbox, warnings))
    }

    /// Executes the process; again after the start, only says its id.
    ///
    /// # Errors
    /// Why it did not work; then nothing is left of it, and the supervisor is about to leave.
    pub(super) fn start(&mut self, core: &mut Core) -> Result<u32, Failure> {
        match &self.phase {
            Phase::Created { .. } => {}
            Phase::Running(running) if running.exit.is_none() => return Ok(running.pid),
            Phase::Restarting { .. } => {
                self.start_again(core);
                return match self.pid() {
                    0 => Err(refusal(FailureKind::System, self.error.clone())),
                    pid => Ok(pid),
                };
            }
            _ => {
                let text = format!("start: {} has exited; launch it anew", self.launch.plan.id);
                return Err(refusal(FailureKind::State, text));
            }
        }
        let Phase::Created { created, .. } = std::mem::replace(&mut self.phase, Phase::Exited)
        else {
            return Err(refusal(FailureKind::State, "start: not created"));
        };
        match core.make_process(|| created.start()) {
            Ok(running) => Ok(self.has_started(core, running)),
            Err(error) => {
                self.error.clone_from(&error.message);
                self.discard_unstarted(core);
                Err(error.into())
            }
        }
    }

    fn has_started(&mut self, core: &mut Core, running: gamut_container::Running) -> u32 {
        let pid = running.pid;
        self.started_ns = now_ns();
        self.error.clear();
        self.out_of_memory.run_begins();
        self.phase = Phase::Running(Running {
            pid,
            pidfd: running.pidfd,
            paused: false,
            since: Instant::now(),
            exit: None,
        });
        self.write_status();
        core.broadcast(&Event::Started {
            pid,
            time_ns: self.started_ns,
            restart_count: self.restart_count,
        });
        pid
    }

    /// Starts the process anew by policy. A failure counts as a run that ended at once.
    pub(super) fn start_again(&mut self, core: &mut Core) {
        self.restart_count = self.restart_count.saturating_add(1);
        match self.try_again(core) {
            Ok(running) => {
                self.has_started(core, running);
            }
            Err(failure) => {
                self.report(&format!("start it again: {}", failure.message));
                core.with_hub(self.hub, |hub, tools| {
                    hub.process_gone(tools);
                    hub.close_clients(tools);
                });
                self.error = failure.message;
                let code = match failure.kind {
                    FailureKind::ExecutableNotFound => 127,
                    FailureKind::ExecutableDenied => 126,
                    _ => 128,
                };
                let exit = ExitStatus {
                    code,
                    signal: 0,
                    out_of_memory: false,
                    finished_ns: now_ns(),
                };
                self.decide(core, exit, Duration::ZERO);
            }
        }
    }
}

impl Sandbox {
    fn try_again(&mut self, core: &mut Core) -> Result<gamut_container::Running, Failure> {
        self.renew_group(&core.epoll)?;
        let (created, hub) = prepare(core, &self.launch, &self.descriptors, self.group())?;
        self.hub = hub;
        let streams = std::mem::take(&mut self.waiting);
        if let Err(error) = attach_all(core, hub, streams) {
            self.report(&format!("attach a waiting client: {error}"));
        }
        core.make_process(|| created.start()).map_err(Failure::from)
    }

    /// Makes a control group anew that was killed, or that the last run has divided: on v2 a group
    /// that shares controllers out to groups of its own takes no process. Linux kills whatever is
    /// cloned straight into a group (`CLONE_INTO_CGROUP`) that `cgroup.kill` was ever written to: it
    /// compares the count of kills of the new group with that of the parent's group.
    fn renew_group(&mut self, epoll: &Epoll) -> Result<(), Failure> {
        let (Some((hierarchies, group)), Some(cgroup)) = (&self.group, &self.launch.plan.cgroup)
        else {
            return Ok(());
        };
        let is_divided = gamut_cgroup::list_children(hierarchies, &cgroup.path)
            .is_ok_and(|children| !children.is_empty());
        if !self.group_killed && !is_divided {
            return Ok(());
        }
        self.out_of_memory.close(epoll);
        group
            .remove()
            .and_then(|()| group.create())
            .and_then(|()| group.apply(&allowed(&cgroup.resources)))
            .and_then(|_| cgroup.owner.map_or(Ok(()), |owner| group.delegate(owner)))
            .map_err(|error| group_failure(&error))?;
        self.group_killed = false;
        self.out_of_memory = MemoryWatch::new(Some((hierarchies, group)), epoll);
        Ok(())
    }
}

/// Checks that as many descriptors came as the plan and the attached clients need; leaves those
/// of namespaces and returns the clients' streams.
fn split_descriptors(
    launch: &Launch,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<Vec<(OwnedFd, Attach)>, Failure> {
    let namespaces = launch
        .plan
        .namespaces
        .iter()
        .filter_map(|namespace| match namespace.source {
            NamespaceSource::Descriptor(index) => usize::try_from(index).ok(),
            _ => None,
        });
    let count = namespaces.max().map_or(0, |index| index.saturating_add(1));
    if descriptors.len() != count.saturating_add(launch.attach.len()) {
        let text = format!(
            "launch: {} descriptors came along, but the plan needs {count} and {} are to be attached",
            descriptors.len(),
            launch.attach.len()
        );
        return Err(refusal(FailureKind::Invalid, text));
    }
    if launch.plan.id.is_empty() || !launch.run_directory.starts_with('/') {
        let text = "launch: it needs an id, and a run directory with an absolute path";
        return Err(refusal(FailureKind::Invalid, text));
    }
    let streams = descriptors.split_off(count);
    Ok(streams
        .into_iter()
        .zip(launch.attach.iter().copied())
        .collect())
}

/// Makes the kernel spare the supervisor where that is permitted. Returns the value that it had
/// before, which the workload shall have (children inherit it).
fn protect_from_oom() -> i32 {
    const FILE: &str = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(FILE)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    // Needs CAP_SYS_RESOURCE; without it things stay as they are.
    let _ = fs::write(FILE, OWN_OOM_SCORE_ADJ);
    before.unwrap_or(0)
}

/// Makes and limits the control group of a plan, if it has one.
///
/// # Errors
/// Why it did not work; nothing is left of the group then.
pub(crate) fn make_group(
    plan: &Plan,
    warnings: &mut Vec<String>,
) -> Result<Option<(Hierarchies, Group)>, Failure> {
    let Some(cgroup) = &plan.cgroup else {
        return Ok(None);
    };
    let hierarchies = Hierarchies::detect().map_err(|error| group_failure(&error))?;
    let named = if cgroup.systemd {
        Group::at_systemd(&hierarchies, &cgroup.path)
    } else {
        Group::at(&hierarchies, &cgroup.path)
    };
    let group = named.map_err(|error| group_failure(&error))?;
    match group.create() {
        // Groups are not an ordinary user's to make unless they are delegated.
        Err(error) if is_forbidden(error.errno()) && gamut_container::is_unprivileged() => {
            warnings.extend(cgroup.resources.asked().into_iter().map(|limit| {
                format!(
                    "{limit} is not limited: no control group is delegated to this user ({error})"
                )
            }));
            return Ok(None);
        }
        created => created.map_err(|error| group_failure(&error))?,
    }
    let limited = group
        .apply(&allowed(&cgroup.resources))
        .and_then(|warnings| {
            if let Some(owner) = cgroup.owner {
                group.delegate(owner)?;
            }
            Ok(warnings)
        });
    match limited {
        Ok(mut more) => {
            warnings.append(&mut more);
            Ok(Some((hierarchies, group)))
        }
        Err(error) => {
            discard(&group);
            Err(group_failure(&error))
        }
    }
}

/// What of the limits this process may set: filters of devices are root's. An ordinary user's
/// workload cannot make device nodes, and opens what the user may open.
fn allowed(resources: &Resources) -> Cow<'_, Resources> {
    if resources.devices.is_empty() || !gamut_container::is_unprivileged() {
        return Cow::Borrowed(resources);
    }
    let mut allowed = resources.clone();
    allowed.devices.clear();
    Cow::Owned(allowed)
}

fn is_forbidden(errno: i32) -> bool {
    matches!(errno, libc::EACCES | libc::EPERM | libc::EROFS)
}

/// Removes a group whose processes, if any, are of no use any more.
pub(crate) fn discard(group: &Group) {
    let removed = group.kill().and_then(|()| group.remove());
    if let Err(error) = removed {
        super::report(&format!("remove the control group: {error}"));
    }
}

/// The mechanism's error as the protocol has it.
pub(crate) fn group_failure(error: &gamut_cgroup::Error) -> Failure {
    Failure {
        kind: FailureKind::System,
        message: error.to_string(),
        errno: error.errno(),
    }
}

/// Makes stdio, the process up to just before execve, and the hub between the two.
fn prepare(
    core: &mut Core,
    launch: &Launch,
    descriptors: &[OwnedFd],
    group: Option<&Group>,
) -> Result<(Created, u32), Failure> {
    let terminal = launch.plan.process.terminal.is_some();
    let (stdio, mut ends) = if terminal {
        (Stdio::Null, crate::hub::Ends::default())
    } else {
        stdio::make(Wanted {
            stdin: launch.open_stdin,
            stdout: true,
            stderr: true,
        })
        .map_err(|error| system("make the pipes of the process", &error))?
    };
    let mut created = core
        .make_process(|| {
            gamut_container::create(
                &launch.plan,
                descriptors,
                stdio,
                group,
                CreateOptions::default(),
            )
        })
        .map_err(Failure::from)?;
    let hub = match (terminal, created.terminal.take()) {
        (true, Some(master)) => stdio::terminal(master, launch.open_stdin).map(|made| ends = made),
        (true, None) => Err(io::Error::other("the process has no terminal")),
        (false, _) => Ok(()),
    }
    .and_then(|()| {
        let stdin_once = launch.stdin_once;
        core.add_hub(
            ends,
            HubOptions {
                terminal,
                stdin_once,
                logged: launch.log.is_some(),
            },
        )
    });
    match hub {
        Ok(hub) => Ok((created, hub)),
        Err(error) => {
            created.abort();
            Err(system("set up the streams of the process", &error))
        }
    }
}

fn attach_all(core: &mut Core, hub: u32, streams: Vec<(OwnedFd, Attach)>) -> io::Result<()> {
    for (stream, attach) in streams {
        core.with_hub(hub, |hub, tools| {
            hub.attach(tools.epoll, stream, attach, tools.now)
        })
        .unwrap_or(Ok(()))?;
    }
    Ok(())
}

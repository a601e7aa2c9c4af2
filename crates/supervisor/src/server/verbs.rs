//! What a sandbox can be asked to do, besides launch, start and exec.

use super::core::Core;
use super::launch::group_failure;
use super::sandbox::{Phase, Sandbox, Stopping, refusal, system};
use crate::hub::Hub;
use crate::sys::{io, process};
use gamut_abi::control::{Attach, Event, Failure, FailureKind, RestartPolicy};
use gamut_abi::plan::TerminalSize;
use gamut_abi::resources::Resources;
use gamut_abi::status::State;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Largest signal number (`SIGRTMAX`).
const MAX_SIGNAL: i32 = 64;

impl Sandbox {
    fn state_refusal(&self, operation: &str) -> Failure {
        let state = match self.state() {
            State::Created => "is not started yet",
            State::Running => "is running or just ending",
            State::Paused => "is paused; resume it first",
            State::Restarting => "waits to be started again",
            State::Exited => "has exited",
        };
        refusal(
            FailureKind::State,
            format!("{operation}: {} {state}", self.launch.plan.id),
        )
    }

    /// Sends a signal to the first process, or to all.
    ///
    /// # Errors
    /// If none runs, or the kernel refuses.
    pub(super) fn signal(
        &mut self,
        core: &mut Core,
        signal: i32,
        all: bool,
    ) -> Result<(), Failure> {
        check_signal(signal)?;
        if matches!(self.phase, Phase::Restarting { .. }) && is_deadly(signal) {
            self.end(core);
            return Ok(());
        }
        if self.running().is_none() {
            return Err(self.state_refusal("signal"));
        }
        if signal == libc::SIGKILL && all {
            self.kill_everything(core);
            return Ok(());
        }
        if let (true, Some(group)) = (all, self.group()) {
            for pid in group.processes().map_err(|error| group_failure(&error))? {
                process::kill(pid, signal)
                    .map_err(|error| system(&format!("signal process {pid}"), &error))?;
            }
        } else if let Some(running) = self.running() {
            process::send_signal(running.pidfd.as_fd(), signal)
                .map_err(|error| system("signal the process", &error))?;
        }
        if signal == libc::SIGKILL {
            // On cgroup v1 nothing dies frozen.
            self.resume(core);
        }
        Ok(())
    }

    /// Stops the process, in the end by killing everything. True if it is gone already; otherwise
    /// the connection is answered when it is.
    ///
    /// # Errors
    /// If the signal is none, or the kernel refuses.
    pub(super) fn stop(
        &mut self,
        core: &mut Core,
        connection: u32,
        signal: i32,
        timeout_ms: Option<u64>,
    ) -> Result<bool, Failure> {
        check_signal(signal)?;
        match self.phase {
            Phase::Exited => return Ok(true),
            Phase::Created { .. } => {
                self.give_up(core, "stopped before its start");
                return Ok(true);
            }
            Phase::Restarting { .. } => self.end(core),
            Phase::Running(_) | Phase::Removing { .. } => {}
        }
        if matches!(self.phase, Phase::Exited) {
            return Ok(true);
        }
        let now = Instant::now();
        let kill_at = timeout_ms.map(|timeout_ms| {
            now.checked_add(Duration::from_millis(timeout_ms))
                .unwrap_or(now + FOR_EVER)
        });
        let stopping = self.stopping.get_or_insert(Stopping {
            kill_at: None,
            waiters: Vec::new(),
        });
        stopping.kill_at = [stopping.kill_at, kill_at].into_iter().flatten().min();
        stopping.waiters.push(connection);
        if timeout_ms == Some(0) || signal == libc::SIGKILL {
            self.kill_everything(core);
        } else if let Some(running) = self.running() {
            process::send_signal(running.pidfd.as_fd(), signal)
                .map_err(|error| system("signal the process", &error))?;
            self.resume(core);
        }
        Ok(false)
    }

    /// Sets the size of a terminal.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn resize(
        &self,
        core: &Core,
        exec_id: Option<&str>,
        size: TerminalSize,
    ) -> Result<(), Failure> {
        let hub = match exec_id {
            None => self.hub,
            Some(exec_id) => self.session(exec_id, "resize")?.hub,
        };
        let Some(terminal) = core.hubs.get(&hub).and_then(Hub::terminal) else {
            return Err(refusal(
                FailureKind::State,
                "resize: the process has no terminal",
            ));
        };
        io::set_window_size(terminal, size.rows, size.columns)
            .map_err(|error| system("resize the terminal", &error))
    }

    fn session(&self, exec_id: &str, operation: &str) -> Result<&super::exec::Session, Failure> {
        self.sessions.get(exec_id).ok_or_else(|| {
            refusal(
                FailureKind::State,
                format!("{operation}: exec session {exec_id} is not running"),
            )
        })
    }

    /// Sends a signal to a session's process.
    ///
    /// # Errors
    /// If there is no such session, or the kernel refuses.
    pub(super) fn exec_signal(&self, exec_id: &str, signal: i32) -> Result<(), Failure> {
        check_signal(signal)?;
        let session = self.session(exec_id, "signal")?;
        match process::send_signal(session.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                Err(system("signal the process", &error))
            }
            _ => Ok(()),
        }
    }

    /// Connects a stream to the first process, or to the one that is started next.
    ///
    /// # Errors
    /// If there is no process to come.
    pub(super) fn attach(
        &mut self,
        core: &mut Core,
        attach: Attach,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let [stream] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|descriptors| {
            let text = format!(
                "attach: {} descriptors came along instead of 1",
                descriptors.len()
            );
            refusal(FailureKind::Invalid, text)
        })?;
        match &self.phase {
            Phase::Created { .. } | Phase::Running(_) => core
                .with_hub(self.hub, |hub, tools| {
                    hub.attach(tools.epoll, stream, attach, tools.now)
                })
                .unwrap_or(Ok(()))
                .map_err(|error| system("attach", &error)),
            Phase::Restarting { .. } => {
                self.waiting.push((stream, attach));
                Ok(())
            }
            Phase::Removing { .. } | Phase::Exited => Err(self.state_refusal("attach")),
        }
    }

    /// Freezes every process.
    ///
    /// # Errors
    /// If none runs, or there is no freezer.
    pub(super) fn pause(&mut self, core: &mut Core) -> Result<(), Failure> {
        match self.running() {
            None => return Err(self.state_refusal("pause")),
            Some(running) if running.paused => return Ok(()),
            Some(_) => {}
        }
        let Some(group) = self.group() else {
            let text = "pause: the container has no control group of its own to freeze";
            return Err(refusal(FailureKind::Unsupported, text));
        };
        group.freeze().map_err(|error| group_failure(&error))?;
        if let Some(running) = self.running() {
            running.paused = true;
        }
        self.write_status();
        core.broadcast(&Event::Paused);
        Ok(())
    }

    /// Thaws every process, if they are frozen.
    ///
    /// # Errors
    /// If none runs.
    pub(super) fn unpause(&mut self, core: &mut Core) -> Result<(), Failure> {
        if self.running().is_none() {
            return Err(self.state_refusal("resume"));
        }
        self.resume(core);
        match self.running() {
            Some(running) if running.paused => Err(refusal(
                FailureKind::System,
                "resume: the control group cannot be thawed",
            )),
            _ => Ok(()),
        }
    }

    /// Thaws if frozen, and tells.
    pub(super) fn resume(&mut self, core: &mut Core) {
        if self.running().is_some_and(|running| running.paused) && self.thaw() {
            if let Some(running) = self.running() {
                running.paused = false;
            }
            self.write_status();
            core.broadcast(&Event::Resumed);
        }
    }

    /// Thaws the group; true if that worked.
    pub(super) fn thaw(&self) -> bool {
        match self.group().map(gamut_cgroup::Group::thaw) {
            Some(Err(error)) => {
                self.report(&format!("thaw: {error}"));
                false
            }
            _ => true,
        }
    }

    /// Changes limits (kept for restarts) and the restart policy.
    ///
    /// # Errors
    /// If the system refuses a limit; the restart policy is unchanged then.
    pub(super) fn update(
        &mut self,
        core: &mut Core,
        resources: Option<Resources>,
        restart: Option<RestartPolicy>,
    ) -> Result<(), Failure> {
        if let Some(resources) = resources {
            let (Some((_, group)), Some(cgroup)) = (&self.group, &mut self.launch.plan.cgroup)
            else {
                let text = "update: the container has no control group of its own to limit";
                return Err(refusal(FailureKind::Unsupported, text));
            };
            if matches!(self.phase, Phase::Removing { .. } | Phase::Exited) {
                return Err(self.state_refusal("update"));
            }
            let warnings = group
                .apply(&resources)
                .map_err(|error| group_failure(&error))?;
            merge(&mut cgroup.resources, resources);
            for warning in warnings {
                self.report(&warning);
            }
        }
        if let Some(restart) = restart {
            self.launch.restart = restart;
            if restart == RestartPolicy::Never && matches!(self.phase, Phase::Restarting { .. }) {
                self.end(core);
            }
        }
        // Anew, so that asking for no change at all brings back a status file that was lost.
        self.write_status();
        Ok(())
    }
}

/// Longer than any machine runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

fn check_signal(signal: i32) -> Result<(), Failure> {
    if (0..=MAX_SIGNAL).contains(&signal) {
        Ok(())
    } else {
        Err(refusal(
            FailureKind::Invalid,
            format!("signal {signal} does not exist"),
        ))
    }
}

/// Signals that say: stay down.
fn is_deadly(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGQUIT
    )
}

/// Takes over what is set in `new`.
fn merge(into: &mut Resources, new: Resources) {
    fn set<T>(into: &mut Option<T>, new: Option<T>) {
        if new.is_some() {
            *into = new;
        }
    }
    fn replace<T>(into: &mut Vec<T>, new: Vec<T>) {
        if !new.is_empty() {
            *into = new;
        }
    }
    let Resources {
        cpu,
        memory,
        pids_max,
        io,
        hugetlb,
        devices,
        unified,
        rdma,
        network_class,
        network_priorities,
    } = new;
    set(&mut into.cpu.shares, cpu.shares);
    set(&mut into.cpu.weight, cpu.weight);
    set(&mut into.cpu.quota_us, cpu.quota_us);
    set(&mut into.cpu.period_us, cpu.period_us);
    set(&mut into.cpu.burst_us, cpu.burst_us);
    set(&mut into.cpu.idle, cpu.idle);
    set(&mut into.cpu.realtime_runtime_us, cpu.realtime_runtime_us);
    set(&mut into.cpu.realtime_period_us, cpu.realtime_period_us);
    set(&mut into.cpu.cpuset_cpus, cpu.cpuset_cpus);
    set(&mut into.cpu.cpuset_mems, cpu.cpuset_mems);
    set(&mut into.memory.max_bytes, memory.max_bytes);
    set(&mut into.memory.reservation_bytes, memory.reservation_bytes);
    set(&mut into.memory.high_bytes, memory.high_bytes);
    set(&mut into.memory.swap_max_bytes, memory.swap_max_bytes);
    set(&mut into.memory.swappiness, memory.swappiness);
    into.memory.oom_kill_disable |= memory.oom_kill_disable;
    set(&mut into.pids_max, pids_max);
    set(&mut into.io.weight, io.weight);
    replace(&mut into.io.devices, io.devices);
    replace(&mut into.hugetlb, hugetlb);
    replace(&mut into.devices, devices);
    set(&mut into.memory.tcp_max_bytes, memory.tcp_max_bytes);
    replace(&mut into.unified, unified);
    replace(&mut into.rdma, rdma);
    set(&mut into.network_class, network_class);
    replace(&mut into.network_priorities, network_priorities);
}

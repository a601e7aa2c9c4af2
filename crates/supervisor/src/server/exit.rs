//! The end of the first process, and what follows.

use super::core::Core;
use super::launch::discard;
use super::sandbox::{Phase, Sandbox};
use crate::sys::clock::now_ns;
use crate::sys::process::{self, Reaped};
use gamut_abi::control::{Event, Reply};
use gamut_abi::plan::{NamespaceKind, NamespaceSource};
use gamut_abi::status::ExitStatus;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A container that was never started is given up this long after everybody has left.
pub(super) const ABANDONED: Duration = Duration::from_secs(10);

/// First pause before another attempt to remove a control group in which something still dies.
const REMOVAL_DELAY: Duration = Duration::from_millis(1);

/// A control group that cannot be removed for this long is left behind.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

impl Sandbox {
    /// The first process is gone: whatever it left running goes too, and what it wrote is read.
    pub(super) fn first_process_ended(&mut self, core: &mut Core, reaped: Reaped) {
        self.memory_ran_out(core);
        let exit = ExitStatus {
            code: reaped.code,
            signal: reaped.signal,
            out_of_memory: self.out_of_memory.killed_in_this_run(),
            finished_ns: now_ns(),
        };
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        running.exit = Some(exit);
        let was_paused = std::mem::take(&mut running.paused);
        // The end of a PID namespace's first process is the end of all others in it.
        if !self.has_own_pid_namespace() {
            self.kill_group();
        }
        if was_paused {
            self.thaw();
        }
        core.with_hub(self.hub, crate::hub::Hub::process_gone);
        if core.is_drained(self.hub) {
            self.run_ended(core);
        }
    }

    fn has_own_pid_namespace(&self) -> bool {
        self.launch.plan.namespaces.iter().any(|namespace| {
            namespace.kind == NamespaceKind::Pid && namespace.source == NamespaceSource::New
        })
    }

    /// The first process is gone and its output complete.
    pub(super) fn run_ended(&mut self, core: &mut Core) {
        let Phase::Running(running) = &self.phase else {
            return;
        };
        let Some(exit) = running.exit else { return };
        let ran = running.since.elapsed();
        core.with_hub(self.hub, crate::hub::Hub::close_clients);
        self.decide(core, exit, ran);
    }

    /// Starts again later, or not.
    pub(super) fn decide(&mut self, core: &mut Core, exit: ExitStatus, ran: Duration) {
        self.last_exit = Some(exit);
        let delay = match self.stopping {
            Some(_) => None,
            None => self.backoff.delay(self.launch.restart, exit.code, ran),
        };
        match delay {
            Some(delay) => {
                self.phase = Phase::Restarting {
                    at: Instant::now() + delay,
                };
                self.write_status();
                let restart_in_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
                core.broadcast(&Event::Exited {
                    exit,
                    restart_in_ms,
                });
            }
            None => self.end(core),
        }
    }

    /// Gone for good. The status file says so before anybody is told; the control group is
    /// removed before, too, so that whoever is told may use its path again.
    pub(super) fn end(&mut self, core: &mut Core) {
        let now = Instant::now();
        self.phase = Phase::Removing {
            retry_at: now,
            delay: REMOVAL_DELAY,
            until: now + REMOVAL_PATIENCE,
        };
        self.waiting.clear();
        self.write_status();
        self.remove_group(core);
    }

    /// Removes the control group, now or with another attempt later.
    pub(super) fn remove_group(&mut self, core: &mut Core) {
        let Phase::Removing {
            retry_at,
            delay,
            until,
        } = &mut self.phase
        else {
            return;
        };
        self.out_of_memory.close(&core.epoll);
        if let Some((_, group)) = &self.group
            && let Err(error) = group.remove()
        {
            let now = Instant::now();
            if now < *until {
                *retry_at = now + *delay;
                *delay = (*delay * 2).min(Duration::from_millis(100));
                // Something still runs or dies in it.
                let _ = group.kill();
                return;
            }
            self.report(&format!("leave the control group behind: {error}"));
        }
        self.phase = Phase::Exited;
        core.broadcast(&match self.last_exit {
            Some(exit) => Event::Exited {
                exit,
                restart_in_ms: None,
            },
            None => Event::Status(self.status()),
        });
        if let Some(stopping) = self.stopping.take() {
            for connection in stopping.waiters {
                core.reply(connection, &Reply::Done);
            }
        }
        self.abandon_sessions(core);
    }

    /// Kills every process of the control group.
    fn kill_group(&mut self) {
        if let Some((_, group)) = &self.group {
            self.group_killed = true;
            if let Err(error) = group.kill() {
                self.report(&format!("kill the control group: {error}"));
            }
        }
    }

    /// Kills every process of the sandbox.
    pub(super) fn kill_everything(&mut self, core: &mut Core) {
        self.kill_group();
        if let Some(running) = self.running() {
            // Gone already is as good.
            let _ = process::send_signal(running.pidfd.as_fd(), libc::SIGKILL);
        }
        self.resume(core);
    }

    /// Takes down what was never started.
    pub(super) fn give_up(&mut self, core: &mut Core, why: &str) {
        if let Phase::Created { created, .. } = std::mem::replace(&mut self.phase, Phase::Exited) {
            created.abort();
            self.error = why.to_owned();
            self.discard_unstarted(core);
        }
    }

    /// Removes everything of a process that has never run, and ends.
    pub(super) fn discard_unstarted(&mut self, core: &mut Core) {
        core.with_hub(self.hub, |hub, tools| {
            hub.process_gone(tools);
            hub.close_clients(tools);
        });
        self.out_of_memory.close(&core.epoll);
        if let Some((_, group)) = self.group.take() {
            discard(&group);
        }
        self.end(core);
    }
}

//! Further processes in the sandbox.

use super::core::Core;
use super::sandbox::{Sandbox, refusal, system};
use super::stdio::{self, Wanted};
use crate::hub::HubOptions;
use crate::sys::clock::now_ns;
use crate::sys::process::{self, Reaped};
use gamut_abi::control::{Attach, Event, Exec, Failure, FailureKind, Reply};
use gamut_abi::status::ExitStatus;
use gamut_container::Stdio;
use std::os::fd::{AsFd, OwnedFd};

/// One exec session.
pub(super) struct Session {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) hub: u32,
    /// How it ended, while its last output is awaited.
    exit: Option<ExitStatus>,
    /// How often the kernel had killed for want of memory when it began.
    kills_before: u64,
}

impl Sandbox {
    /// Runs a further process.
    ///
    /// # Errors
    /// Why it did not work; nothing is left of it then.
    pub(super) fn exec(
        &mut self,
        core: &mut Core,
        mut exec: Exec,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, Failure> {
        let stream = match (exec.attach, descriptors.len()) {
            (Some(_), 1) => descriptors.into_iter().next(),
            (None, 0) => None,
            (attach, count) => {
                let wanted = i32::from(attach.is_some());
                let text = format!("exec: {count} descriptors came along instead of {wanted}");
                return Err(refusal(FailureKind::Invalid, text));
            }
        };
        if self.sessions.contains_key(&exec.exec_id) {
            let text = format!("exec: session {} exists already", exec.exec_id);
            return Err(refusal(FailureKind::State, text));
        }
        exec.process.oom_score_adj =
            exec.process
                .oom_score_adj
                .or(self.launch.plan.process.oom_score_adj);
        let kills_before = self.out_of_memory.seen();
        let id = self.launch.plan.id.clone();
        let (plan, group) = (&self.launch.plan, self.group());
        let super::sandbox::Phase::Running(running) = &self.phase else {
            return Err(refusal(
                FailureKind::State,
                format!("exec: {id} is not running"),
            ));
        };
        if running.paused || running.exit.is_some() {
            let text = format!("exec: {id} is paused or has just exited; resume or start it first");
            return Err(refusal(FailureKind::State, text));
        }
        let terminal = exec.process.terminal.is_some();
        let attach = exec.attach.unwrap_or(Attach {
            stdin: false,
            stdout: false,
            stderr: false,
        });
        let (stdio, mut ends) = if terminal {
            (Stdio::Null, crate::hub::Ends::default())
        } else {
            let Attach {
                stdin,
                stdout,
                stderr,
            } = attach;
            stdio::make(Wanted {
                stdin,
                stdout,
                stderr,
            })
            .map_err(|error| system("make the pipes of the process", &error))?
        };
        let (init, init_pid) = (running.pidfd.as_fd(), running.pid);
        let mut made = core
            .make_process(|| {
                gamut_container::exec(init, init_pid, &exec.process, plan, stdio, group)
            })
            .map_err(Failure::from)?;
        let hub = match made.terminal.take() {
            Some(master) => stdio::terminal(master, attach.stdin).map(|made| ends = made),
            None => Ok(()),
        }
        .and_then(|()| {
            core.add_hub(
                ends,
                HubOptions {
                    terminal,
                    stdin_once: true,
                    logged: false,
                },
            )
        });
        let attached = hub.and_then(|hub| {
            let Some(stream) = stream else { return Ok(hub) };
            core.with_hub(hub, |hub, tools| {
                hub.attach(tools.epoll, stream, attach, tools.now)
            })
            .unwrap_or(Ok(()))
            .inspect_err(|_| core.close_hub(hub))
            .map(|()| hub)
        });
        let hub = match attached {
            Ok(hub) => hub,
            Err(error) => {
                // It is reaped like any orphan.
                let _ = process::send_signal(made.pidfd.as_fd(), libc::SIGKILL);
                return Err(system("exec: set up the streams of the process", &error));
            }
        };
        let pid = made.pid;
        let session = Session {
            pid,
            pidfd: made.pidfd,
            hub,
            exit: None,
            kills_before,
        };
        self.sessions.insert(exec.exec_id, session);
        Ok(Reply::ExecStarted {
            pid,
            warnings: made.warnings,
        })
    }

    /// A child other than the first process is gone: a session's, or somebody's orphan.
    pub(super) fn session_ended(&mut self, core: &mut Core, reaped: Reaped) {
        if !self
            .sessions
            .values()
            .any(|session| session.pid == reaped.pid)
        {
            return;
        }
        self.memory_ran_out(core);
        let kills = self.out_of_memory.seen();
        let ended = self
            .sessions
            .values_mut()
            .find(|session| session.pid == reaped.pid);
        let Some(session) = ended else { return };
        session.exit = Some(ExitStatus {
            code: reaped.code,
            signal: reaped.signal,
            out_of_memory: reaped.signal == libc::SIGKILL && kills > session.kills_before,
            finished_ns: now_ns(),
        });
        core.with_hub(session.hub, crate::hub::Hub::process_gone);
        self.end_drained_sessions(core);
    }

    /// Announces the end of sessions whose output is complete, then closes their streams.
    pub(super) fn end_drained_sessions(&mut self, core: &mut Core) {
        self.sessions.retain(|exec_id, session| {
            let Some(exit) = session.exit.filter(|_| core.is_drained(session.hub)) else {
                return true;
            };
            core.broadcast(&Event::ExecExited {
                exec_id: exec_id.clone(),
                exit,
            });
            core.with_hub(session.hub, crate::hub::Hub::close_clients);
            false
        });
    }

    /// The sandbox is gone, and every process in it: sessions end with it even if their end was
    /// not seen.
    pub(super) fn abandon_sessions(&mut self, core: &mut Core) {
        while let Some(reaped) = process::reap() {
            self.session_ended(core, reaped);
        }
        for session in self.sessions.values() {
            if session.exit.is_none() {
                core.with_hub(session.hub, |hub, tools| {
                    hub.process_gone(tools);
                    hub.close_clients(tools);
                });
            }
        }
    }
}

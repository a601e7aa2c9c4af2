//! Following what happens to running containers.

use super::live::Container;
use super::record::{ContainerRecord, ExitRecord, Phase};
use super::spec::RestartPolicy;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::health::HealthStatus;
use crate::store::Durability;
use gamut_abi::control::Event;
use gamut_abi::status::{ExitStatus, State, Status};
use gamut_abi::wire;
use gamut_isolation::Isolation;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// Runs remembered per container.
const HISTORY: usize = 16;
/// Before a container whose supervisor was killed is started again.
const RESURRECTION_DELAY: Duration = Duration::from_millis(100);

impl Engine {
    /// Follows a container's events until its supervisor is gone. Returns the number of the run.
    pub(crate) fn watch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        level: &dyn Isolation,
    ) -> Result<u64> {
        let context = Caller::engine("watch").context(None);
        let stream = level.watch(&context, &container.id)?.into_stream();
        stream
            .set_nonblocking(true)
            .map_err(|source| Error::system("watch a container", source))?;
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        let run = container.begin_run();
        let _guard = self.runtime.enter();
        let stream = UnixStream::from_std(stream)
            .map_err(|source| Error::system("watch a container", source))?;
        self.runtime.spawn(async move {
            let ended = follow(&engine, &container, run, stream).await;
            if let Err(error) = ended {
                tracing::error!(container = %container.id, %error, "lost a container's events");
            }
            let blocking =
                tokio::task::spawn_blocking(move || engine.supervisor_gone(&container, run));
            if blocking.await.is_err() {
                tracing::error!("a task that cleans up after a container panicked");
            }
        });
        Ok(run)
    }

    fn on_event(self: &Arc<Self>, container: &Arc<Container>, run: u64, event: Event) {
        if container.current_run() != run {
            return;
        }
        match event {
            Event::Status(status) => {
                self.on_status(container, &status);
                if status.state == State::Running {
                    self.look_after(container);
                }
            }
            Event::Started {
                pid,
                time_ns,
                restart_count,
            } => {
                self.on_started(container, pid, time_ns, restart_count);
                self.look_after(container);
            }
            Event::Exited {
                exit,
                restart_in_ms,
            } => {
                self.on_exited(container, exit, restart_in_ms.is_some());
            }
            Event::OutOfMemory { .. } => self.emit_container(container, "oom", BTreeMap::new()),
            Event::Paused => {
                container.end_monitor();
                self.on_phase(container, Phase::Paused, "pause");
            }
            Event::Resumed => {
                self.on_phase(container, Phase::Running, "unpause");
                self.look_after(container);
            }
            Event::ExecExited { exec_id, exit } => self.on_exec_exited(container, &exec_id, exit),
        }
    }

    /// How things stood when the watch began: news only for a daemon that was started again.
    fn on_status(&self, container: &Container, status: &Status) {
        match status.state {
            State::Running | State::Paused | State::Restarting => {
                let phase = match status.state {
                    State::Paused => Phase::Paused,
                    State::Restarting => Phase::Restarting,
                    _ => Phase::Running,
                };
                container.settle_run(&self.store, Durability::Process, |record| {
                    record.state.phase = phase;
                    record.state.pid = status.pid;
                    record.state.started_ns = status.started_ns;
                    record.state.restart_count = status.restart_count;
                    if let Some(exit) = status.exit {
                        record.state.exit = Some(exit.into());
                    }
                });
                container.announce(|life| life.live = true);
            }
            State::Created | State::Exited => {}
        }
    }

    fn on_started(&self, container: &Container, pid: u32, time_ns: u64, restart_count: u32) {
        container.settle_run(&self.store, Durability::Process, |record| {
            record.state.phase = Phase::Running;
            record.state.pid = pid;
            record.state.started_ns = time_ns;
            record.state.restart_count = restart_count;
            if has_health_check(record) {
                record.state.health.get_or_insert_default().begin();
            }
        });
        self.emit_container(container, "start", BTreeMap::new());
        let health = container.read(health_status);
        container.announce(|life| {
            life.starts += 1;
            life.live = true;
            life.error.clear();
            life.health = health;
        });
    }

    fn on_exited(&self, container: &Container, exit: ExitStatus, again: bool) {
        self.note_exit(
            container,
            exit.into(),
            if again {
                Phase::Restarting
            } else {
                Phase::Exited
            },
        );
    }

    /// Records an end: on disk, then in memory, then for all to know.
    pub(crate) fn note_exit(&self, container: &Container, exit: ExitRecord, phase: Phase) {
        let mut leases = Vec::new();
        let ended = phase == Phase::Exited;
        let durability = container.read(|record| self.run_durability(record));
        container.end_monitor();
        let moving = self.networking.moving();
        container.settle_run(
            &self.store,
            if ended {
                durability
            } else {
                Durability::Process
            },
            |record| {
                record.state.phase = phase;
                record.state.pid = 0;
                record.state.exit = Some(exit);
                if let Some(health) = &mut record.state.health {
                    health.end();
                }
                let run = (record.state.started_ns, exit.finished_ns);
                if record.state.history.last() != Some(&run) {
                    record.state.history.push(run);
                }
                if record.state.history.len() > HISTORY {
                    record.state.history.remove(0);
                }
                if ended {
                    // Whoever takes them off the record gives them back, and nobody else.
                    leases = std::mem::take(&mut record.leases);
                }
            },
        );
        if ended {
            self.networking.release(&container.id, &leases);
        }
        drop(moving);
        if ended {
            let record = container.record();
            self.let_go_of_volumes(&record, &container.id);
            self.connection_events("disconnect", &container.id, &leases);
            self.volumes_unmounted(&record);
        }
        let health = container.read(health_status);
        let started_ns = container.read(|record| record.state.started_ns);
        let seconds = exit.finished_ns.saturating_sub(started_ns) / 1_000_000_000;
        let attributes = BTreeMap::from([
            ("exitCode".to_owned(), exit.code.to_string()),
            ("execDuration".to_owned(), seconds.to_string()),
        ]);
        self.emit_container(container, "die", attributes);
        container.announce(|life| {
            life.exits += 1;
            life.exit_code = exit.code;
            life.live = !ended;
            life.health = health;
        });
        // Exec sessions went with it.
        self.exec_changes.send_modify(|count| *count += 1);
    }

    fn on_phase(&self, container: &Container, phase: Phase, action: &str) {
        if container.phase() != phase {
            container.settle_run(&self.store, Durability::Process, |record| {
                record.state.phase = phase;
                if phase == Phase::Paused
                    && let Some(health) = &mut record.state.health
                {
                    health.end();
                }
            });
            self.emit_container(container, action, BTreeMap::new());
            container.announce(|_| {});
        }
    }

    /// The supervisor is gone: what it left is cleared away, and what must go on goes on.
    pub(crate) fn supervisor_gone(self: &Arc<Self>, container: &Arc<Container>, run: u64) {
        let caller = Caller::engine("supervisor ended");
        let Ok(level) = self.level(container.read(|record| record.level)) else {
            return;
        };
        // In this order: a later run is announced before it counts as live.
        let died = container.phase().is_live();
        if container.current_run() != run {
            return;
        }
        let status = level.status(&container.id).ok().flatten();
        // A run of which no event came through is still on record in the status file.
        let unseen = status.as_ref().filter(|status| {
            status.started_ns > container.read(|record| record.state.started_ns)
                && status.state == State::Exited
        });
        if died || unseen.is_some() {
            if let Some(status) = unseen {
                self.on_started(container, 0, status.started_ns, status.restart_count);
            }
            // It had no last word (killed), or the daemon missed it.
            let exit = match &status {
                Some(Status {
                    exit: Some(exit),
                    state: State::Exited,
                    ..
                }) => (*exit).into(),
                _ => ExitRecord {
                    code: 137,
                    out_of_memory: false,
                    finished_ns: gamut_spec::time::now_ns(),
                },
            };
            self.note_exit(container, exit, Phase::Exited);
        }
        // One that died before it told of a start shall not be waited for.
        container.announce(|life| life.ended_run = life.ended_run.max(run));
        // After a verb that has its turn now; it may have started or removed it meanwhile.
        let turn = container.operate();
        if container.current_run() != run || container.life().borrow().removed {
            return;
        }
        if let Err(error) = level.delete(&caller.context(None), &container.id) {
            tracing::error!(container = %container.id, error = %error, "cannot clear away a sandbox");
        }
        let (auto_remove, should_run, policy) = container.read(|record| {
            (
                record.spec.auto_remove,
                record.should_run,
                record.spec.restart,
            )
        });
        if auto_remove {
            if let Err(error) = self.remove_now(&caller, container, true) {
                tracing::error!(container = %container.id, error = %error.full_message(), "cannot remove a container that ended");
            }
        } else if died && should_run && policy != RestartPolicy::No {
            drop(turn);
            self.start_again(container);
        }
    }

    /// Starts a container again whose supervisor was killed.
    fn start_again(self: &Arc<Self>, container: &Arc<Container>) {
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.runtime.spawn(async move {
            tokio::time::sleep(RESURRECTION_DELAY).await;
            let task = tokio::task::spawn_blocking(move || {
                let caller = Caller::engine("restart policy");
                match engine.start_container(&caller, &container.id) {
                    Err(error) if error.kind() != gamut_spec::error::ErrorKind::NotModified => {
                        tracing::error!(container = %container.id, error = %error.full_message(), "cannot start a container again");
                    }
                    _ => {}
                }
            });
            let _ = task.await;
        });
    }
}

fn health_status(record: &ContainerRecord) -> Option<HealthStatus> {
    record.state.health.as_ref().map(|health| health.status)
}

fn has_health_check(record: &ContainerRecord) -> bool {
    let check = record.spec.healthcheck.as_ref();
    check.is_some_and(|check| matches!(check.test(), Ok(Some(_))))
}

/// Reads frames of events until the supervisor closes the stream.
async fn follow(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    run: u64,
    mut stream: UnixStream,
) -> std::io::Result<()> {
    loop {
        let mut header = [0u8; wire::HEADER_BYTES];
        match stream.read_exact(&mut header).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let length = wire::body_length(&header).map_err(std::io::Error::other)?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let event: Event = wire::decode_body(&body).map_err(std::io::Error::other)?;
        let (engine, container) = (Arc::clone(engine), Arc::clone(container));
        tokio::task::spawn_blocking(move || engine.on_event(&container, run, event))
            .await
            .map_err(std::io::Error::other)?;
    }
}

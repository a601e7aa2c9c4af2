//! Connecting clients to containers, and further processes in them.

use super::exec::{ExecRecord, ExecRequest};
use super::live::Container;
use super::oci;
use super::record::Phase;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_abi::control::Attach;
use gamut_abi::plan::TerminalSize;
use gamut_abi::status::ExitStatus;
use gamut_isolation::contract::{AttachedStream, ExecSpec, Feature};
use gamut_spec::error::ErrorKind;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Finished exec sessions remembered.
const FINISHED_EXECS: usize = 1024;

fn stream_pair() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().map_err(|source| Error::system("make a stream for the client", source))
}

impl Engine {
    /// Connects to a container's stdio, before its start or while it runs. The stream carries
    /// Docker's multiplexed frames out (raw bytes with a terminal) and raw stdin in.
    ///
    /// # Errors
    /// `Conflict` if it is frozen.
    pub fn attach_container(
        &self,
        caller: &Caller,
        name_or_id: &str,
        attach: Attach,
    ) -> Result<UnixStream> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        let (ours, theirs) = stream_pair()?;
        match container.phase() {
            Phase::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    container.id
                )));
            }
            phase if phase.is_live() => {
                self.level_of(&container)?.attach(
                    &caller.context(None),
                    &container.id,
                    attach,
                    theirs.into(),
                )?;
            }
            _ => container.attach_at_start(AttachedStream {
                attach,
                stream: theirs.into(),
            }),
        }
        self.emit_container(&container, "attach", BTreeMap::new());
        Ok(ours)
    }

    /// Notes that a client has left a container that runs on.
    pub fn container_detached(&self, id: &str) {
        if let Ok(container) = self.index.find(id) {
            self.emit_container(&container, "detach", BTreeMap::new());
        }
    }

    /// Notes that a client has left an exec session that runs on.
    pub fn exec_detached(&self, exec_id: &str) {
        let Ok(exec) = self.exec(exec_id) else { return };
        if let Ok(container) = self.index.find(&exec.container_id) {
            let attributes = BTreeMap::from([("execID".to_owned(), exec_id.to_owned())]);
            self.emit_container(&container, "exec_detach", attributes);
        }
    }

    /// Connects a debugger, which speaks GDB's remote protocol, to a running container's machine.
    ///
    /// # Errors
    /// If it does not run, or its level has no machine.
    pub fn debug_container(&self, caller: &Caller, name_or_id: &str) -> Result<UnixStream> {
        let container = self.find_running(name_or_id)?;
        let level = self.level_of(&container)?;
        let stream = level.debug(&caller.context(None), &container.id)?;
        self.emit_container(&container, "debug", BTreeMap::new());
        Ok(stream)
    }

    fn find_running(&self, name_or_id: &str) -> Result<std::sync::Arc<Container>> {
        let container = self.index.find(name_or_id)?;
        match container.phase() {
            Phase::Running => Ok(container),
            Phase::Paused => Err(Error::conflict(format!(
                "Container {name_or_id} is paused, unpause the container before exec"
            ))),
            Phase::Restarting => Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            ))),
            _ => Err(Self::not_running(&container)),
        }
    }

    /// Makes an exec session.
    ///
    /// # Errors
    /// `Conflict` if the container does not run.
    pub fn create_exec(
        &self,
        _caller: &Caller,
        name_or_id: &str,
        request: ExecRequest,
    ) -> Result<String> {
        let container = self.find_running(name_or_id)?;
        self.level_of(&container)?.admit(&[Feature::Exec])?;
        if request.command.iter().all(String::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let id = gamut_spec::id::random().map_err(|source| Error::system("make an id", source))?;
        let command = request.command.join(" ");
        let record = ExecRecord {
            id: id.clone(),
            container_id: container.id.clone(),
            request,
            started: false,
            running: false,
            exit_code: None,
            ended: None,
            pid: 0,
        };
        let mut execs = self.lock_execs();
        if execs.len() >= FINISHED_EXECS {
            // That which ended first: whoever has just seen one end asks for its exit code.
            let finished = execs.values().filter(|exec| exec.ended.is_some());
            let oldest = finished.min_by_key(|exec| exec.ended);
            if let Some(key) = oldest.map(|exec| exec.id.clone()) {
                execs.remove(&key);
            }
        }
        execs.insert(id.clone(), record);
        drop(execs);
        let attributes = BTreeMap::from([("execID".to_owned(), id.clone())]);
        self.emit_container(&container, &format!("exec_create: {command}"), attributes);
        Ok(id)
    }

    /// Starts an exec session. Not detached, the stream is as that of an attached container.
    ///
    /// # Errors
    /// `Conflict` if it was started before or the container does not run; `InvalidArgument` if
    /// its program cannot be executed.
    pub fn start_exec(
        &self,
        caller: &Caller,
        exec_id: &str,
        detach: bool,
        console_size: Option<(u16, u16)>,
    ) -> Result<Option<UnixStream>> {
        let (container_id, mut request) = {
            let mut execs = self.lock_execs();
            let exec = execs
                .get_mut(exec_id)
                .ok_or_else(|| Self::no_exec(exec_id))?;
            if exec.started {
                return Err(Error::conflict(format!(
                    "exec {exec_id} has already been started"
                )));
            }
            exec.started = true;
            exec.running = true;
            (exec.container_id.clone(), exec.request.clone())
        };
        let started = (|| {
            let container = self.find_running(&container_id)?;
            if console_size.is_some() {
                request.console_size = console_size;
            }
            let record = container.record();
            // Those that are gone meanwhile have nothing to tell.
            let links = self.link_environment(&record).unwrap_or_default();
            let held = self.held_capabilities;
            let process = oci::exec_process(&record, &request, held, self.apparmor, &links)?;
            let (ours, theirs) = if detach {
                (None, None)
            } else {
                let (ours, theirs) = stream_pair()?;
                (Some(ours), Some(theirs.into()))
            };
            let user = if request.user.is_empty() {
                record.process.user.clone()
            } else {
                request.user
            };
            let (stdin, stdout, stderr) = request.attach;
            let spec = ExecSpec {
                id: exec_id.to_owned(),
                process,
                user: Some(user),
                attach: (!detach).then_some(Attach {
                    stdin,
                    stdout,
                    stderr,
                }),
            };
            let level = self.level_of(&container)?;
            let attributes = BTreeMap::from([("execID".to_owned(), exec_id.to_owned())]);
            let action = format!("exec_start: {}", request.command.join(" "));
            self.emit_container(&container, &action, attributes);
            let running = level.exec(&caller.context(None), &container_id, spec, theirs)?;
            Ok((ours, running.pid))
        })();
        let mut execs = self.lock_execs();
        let exec = execs.get_mut(exec_id);
        match started {
            Ok((stream, pid)) => {
                if let Some(exec) = exec {
                    exec.pid = pid;
                }
                Ok(stream)
            }
            Err(error) => {
                if let Some(exec) = exec {
                    exec.running = false;
                    exec.exit_code = Some(exec_failure_code(&error));
                    exec.ended = Some(Instant::now());
                }
                Err(error)
            }
        }
    }

    fn no_exec(exec_id: &str) -> Error {
        Error::not_found("exec instance", exec_id)
    }

    pub(crate) fn on_exec_exited(&self, container: &Container, exec_id: &str, exit: ExitStatus) {
        if self.probes.ended(exec_id, exit) {
            return;
        }
        if let Some(exec) = self.lock_execs().get_mut(exec_id) {
            exec.running = false;
            exec.exit_code = Some(exit.code);
            exec.ended = Some(Instant::now());
        }
        self.exec_changes.send_modify(|count| *count += 1);
        let attributes = BTreeMap::from([
            ("execID".to_owned(), exec_id.to_owned()),
            ("exitCode".to_owned(), exit.code.to_string()),
        ]);
        self.emit_container(container, "exec_die", attributes);
    }

    /// An exec session as it stands.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn exec(&self, exec_id: &str) -> Result<ExecRecord> {
        let mut record = self
            .lock_execs()
            .get(exec_id)
            .cloned()
            .ok_or_else(|| Self::no_exec(exec_id))?;
        let container_runs = self
            .index
            .find(&record.container_id)
            .is_ok_and(|container| container.phase().is_live());
        if record.running && !container_runs {
            // It went with its container.
            record.running = false;
            record.exit_code = record.exit_code.or(Some(137));
        }
        Ok(record)
    }

    /// Waits until the end of an exec session is on record, at most `within`. True if it is.
    pub async fn exec_finished(&self, exec_id: &str, within: Duration) -> bool {
        let mut changes = self.exec_changes.subscribe();
        let finished = async {
            while self.exec(exec_id).is_ok_and(|exec| exec.running) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(within, finished).await.is_ok()
    }

    /// Resizes the terminal of an exec session.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` if it does not run.
    pub fn resize_exec(
        &self,
        caller: &Caller,
        exec_id: &str,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        let exec = self.exec(exec_id)?;
        if !exec.running {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("exec {exec_id} is not running"),
            ));
        }
        let container = self.index.find(&exec.container_id)?;
        let size = TerminalSize { rows, columns };
        let level = self.level_of(&container)?;
        Ok(level.resize(&caller.context(None), &container.id, Some(exec_id), size)?)
    }
}

fn exec_failure_code(error: &Error) -> i32 {
    let message = error.full_message();
    if message.contains("executable file not found")
        || message.contains("no such file or directory")
    {
        127
    } else {
        126
    }
}

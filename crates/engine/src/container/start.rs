//! Starting a container.

use super::etc_files;
use super::live::Container;
use super::oci::{self, Surroundings};
use super::record::{ContainerRecord, MountKind, Phase};
use super::spec::{IpcMode, NamespaceMode, NetworkMode, RestartPolicy};
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::logging;
use crate::networking::Connection;
use crate::store::Durability;
use gamut_abi::control;
use gamut_isolation::Isolation;
use gamut_isolation::contract::{Endpoint, RootSource, SandboxSpec, WorkloadSpec};
use gamut_spec::error::ErrorKind;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a supervisor may take to tell of a start before something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    /// Starts a container.
    ///
    /// # Errors
    /// `NotModified` if it runs, `InvalidArgument` if its program cannot be executed (recorded
    /// with exit code 127 or 126).
    pub fn start_container(self: &Arc<Self>, caller: &Caller, name_or_id: &str) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        let _turn = container.operate();
        self.start_now(caller, &container)
    }

    /// Starts a container whose turn the caller holds.
    pub(crate) fn start_now(
        self: &Arc<Self>,
        caller: &Caller,
        container: &Arc<Container>,
    ) -> Result<()> {
        let record = container.record();
        if record.removing {
            return Err(Error::conflict(
                "container is marked for removal and cannot be started",
            ));
        }
        match record.state.phase {
            Phase::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            phase if phase.is_live() => {
                return Err(Error::new(
                    ErrorKind::NotModified,
                    "container is already running",
                ));
            }
            _ => {}
        }
        let level = Arc::clone(self.level(record.level)?);
        // A supervisor that still delivers the last run's output makes room now.
        level.delete(&caller.context(None), &container.id)?;
        let moving = self.networking.moving();
        let connection = self.connect(&record)?;
        let started = match self.ready(container, &record, &connection) {
            Ok(prepared) => {
                drop(moving);
                self.connection_events("connect", &container.id, &connection.leases);
                self.launch(
                    caller,
                    container,
                    &record,
                    (&*level, connection.endpoint),
                    prepared,
                )
            }
            // They never came on record, so nobody else gives them back.
            Err(error) => {
                self.networking.release(&container.id, &connection.leases);
                drop(moving);
                Err(error)
            }
        };
        if let Err(error) = started {
            let _ = level.delete(&Caller::engine("failed start").context(None), &container.id);
            drop(container.take_pending());
            self.note_failed_start(container, &error, record.should_run);
            if record.spec.auto_remove
                && let Err(error) = self.remove_now(caller, container, true)
            {
                tracing::error!(container = %container.id, error = %error.full_message(), "cannot remove a container that could not be started");
            }
            return Err(error);
        }
        Ok(())
    }

    fn connect(&self, record: &ContainerRecord) -> Result<Connection> {
        let joined = match &record.spec.network {
            NetworkMode::Container(other) => Some(self.running(other, "network")?.0),
            _ => None,
        };
        self.networking.connect(record, joined.as_deref())
    }

    /// Id and process id of a running container.
    fn running(&self, name_or_id: &str, what: &str) -> Result<(String, u32)> {
        let other = self.index.find(name_or_id)?;
        let pid = other.read(|record| record.state.pid);
        if !other.phase().is_live() || pid == 0 {
            return Err(Error::conflict(format!(
                "cannot join {what} of a non running container: {}",
                other.id
            )));
        }
        Ok((other.id.clone(), pid))
    }

    /// Readies what a container's supervisor is told, then puts on record that it runs.
    fn ready(
        &self,
        container: &Container,
        record: &ContainerRecord,
        connection: &Connection,
    ) -> Result<(RootSource, oci_spec::runtime::Spec)> {
        let id = &container.id;
        let directory = self.container_directory(id);
        let etc_directory = if matches!(record.spec.network, NetworkMode::Container(_)) {
            None
        } else {
            let mut connected = record.clone();
            connected.leases.clone_from(&connection.leases);
            let surroundings = self.etc_surroundings(&connected)?;
            etc_files::write(&directory, &connected, &surroundings)
                .map_err(|source| Error::system("write the files below /etc", source))?;
            if let Endpoint::Namespace(namespace) = &connection.endpoint {
                self.tell_resolver(&connected, Some(namespace.as_fd()))?;
            }
            Some(directory.as_path())
        };
        let layers = container.layers(|| self.find_layers(record))?;
        let root = self.root_source(container, layers)?;
        match &root {
            RootSource::Directory(copy) => self.ready_mounts(record, std::slice::from_ref(copy))?,
            RootSource::Layers { lower, .. } => self.ready_mounts(record, lower)?,
        }
        let config = self.runtime_config(record, etc_directory)?;
        // On disk before anything runs, so that a daemon that is killed now knows what to clean.
        container.change(&self.store, self.run_durability(record), |record| {
            record.leases.clone_from(&connection.leases);
            record.should_run = true;
            record.state.boot_id.clone_from(&self.boot_id);
            record.state.error.clear();
            record.state.restart_count = 0;
        })?;
        Ok((root, config))
    }

    fn launch(
        self: &Arc<Self>,
        caller: &Caller,
        container: &Arc<Container>,
        record: &ContainerRecord,
        (level, endpoint): (&dyn Isolation, Endpoint),
        (root, config): (RootSource, oci_spec::runtime::Spec),
    ) -> Result<()> {
        let id = &container.id;
        let context = caller.context(None);
        level.prepare(
            &context,
            SandboxSpec {
                id: id.clone(),
                endpoint,
            },
        )?;
        let workload = WorkloadSpec {
            id: id.clone(),
            sandbox_id: id.clone(),
            config,
            user: Some(record.process.user.clone()),
            additional_groups: record.spec.additional_groups.clone(),
            create_cwd: true,
            init: record.spec.init,
            root,
            log: self.log_of(record)?,
            restart: supervisor_policy(record.spec.restart),
            open_stdin: record.spec.open_stdin,
            stdin_once: record.spec.stdin_once,
            attached: container.take_pending(),
        };
        let created = level.create(&context, workload)?;
        for warning in &created.warnings {
            tracing::warn!(container = %id, warning);
        }
        let run = self.watch(container, level)?;
        let starts = container.life().borrow().starts;
        self.volumes_mounted(record);
        level.start(&context, id)?;
        let life = container.await_life(&self.runtime, ANSWER_LIMIT, |life| {
            life.starts > starts || life.ended_run >= run
        })?;
        if life.starts == starts {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "container {id}: its supervisor was killed before the program ran; start it again"
                ),
            ));
        }
        Ok(())
    }

    fn find_layers(&self, record: &ContainerRecord) -> Result<Vec<std::path::PathBuf>> {
        self.images
            .get(&record.image_id, None)
            .and_then(|image| self.images.layers(&image))
            .map_err(|error| {
                Error::new(
                    error.kind(),
                    format!(
                        "the image of the container: {}",
                        gamut_spec::error::chain(&error)
                    ),
                )
            })
    }

    /// A restart policy must survive a power cut to be of use.
    pub(crate) fn run_durability(&self, record: &ContainerRecord) -> Durability {
        match record.spec.restart {
            RestartPolicy::No => Durability::Process,
            _ => Durability::Disk,
        }
    }

    /// Where its output goes; `None` if nowhere.
    fn log_of(&self, record: &ContainerRecord) -> Result<Option<control::Log>> {
        let log = &record.spec.log;
        let sink = logging::sink_of(record, &self.hostname)?;
        let path = log.is_kept().then(|| {
            self.container_log_path(&record.id)
                .to_string_lossy()
                .into_owned()
        });
        if path.is_none() && sink.is_none() {
            return Ok(None);
        }
        Ok(Some(control::Log {
            path: path.unwrap_or_default(),
            max_file_bytes: log.max_file_bytes,
            max_files: log.max_files,
            sink,
        }))
    }

    fn runtime_config(
        &self,
        record: &ContainerRecord,
        etc_directory: Option<&Path>,
    ) -> Result<oci_spec::runtime::Spec> {
        let pid_of = |mode: &NamespaceMode, what: &str| match mode {
            NamespaceMode::Container(other) => self.running(other, what).map(|(_, pid)| Some(pid)),
            _ => Ok(None),
        };
        let ipc_donor = match &record.spec.ipc_mode {
            IpcMode::Container(other) => {
                super::create::check_shareable(&*self.index.find(other)?)?;
                Some(self.running(other, "IPC namespace")?.1)
            }
            _ => None,
        };
        let link_environment = self.link_environment(record)?;
        let surroundings = Surroundings {
            held_capabilities: self.held_capabilities,
            cgroup_path: self.cgroup_path(record),
            etc_directory,
            shared_pids: (pid_of(&record.spec.pid_mode, "PID namespace")?, ipc_donor),
            has_terminal_group: self.groups.contains(oci::TERMINAL_GROUP),
            apparmor: self.apparmor,
            hostname: &self.hostname,
            link_environment: &link_environment,
        };
        oci::runtime_spec(record, &surroundings)
    }

    /// Path of a container's control group below the root of every hierarchy.
    #[must_use]
    pub fn cgroup_path(&self, record: &ContainerRecord) -> String {
        let parent = if record.spec.cgroup_parent.is_empty() {
            &self.options.cgroup_parent
        } else {
            &record.spec.cgroup_parent
        };
        format!("/{}/{}", parent.trim_matches('/'), record.id)
    }

    /// Makes missing sources of bind mounts, mounts volumes that are mounts, and fills fresh ones.
    fn ready_mounts(&self, record: &ContainerRecord, layers: &[std::path::PathBuf]) -> Result<()> {
        for mount in &record.mounts {
            if mount.kind == MountKind::Bind && !Path::new(&mount.source).exists() {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(&mount.source)
                    .map_err(|source| {
                        Error::system(
                            format!("make the bind mount's source {}", mount.source),
                            source,
                        )
                    })?;
            }
        }
        self.hold_volumes(record, &record.id)?;
        self.fill_volumes(record, layers)
    }

    /// `was_wanted`: it was to run before, so that the engine tries again when it is opened next.
    fn note_failed_start(&self, container: &Container, error: &Error, was_wanted: bool) {
        self.let_go_of_volumes(&container.record(), &container.id);
        let message = error.full_message();
        let code = exit_code_of_failed_start(&message);
        let mut leases = Vec::new();
        let moving = self.networking.moving();
        container.settle_run(&self.store, Durability::Process, |record| {
            // Whoever takes them off the record gives them back: an end that was noted meanwhile
            // has done so, and they may be somebody else's by now.
            leases = std::mem::take(&mut record.leases);
            record.should_run = was_wanted;
            record.state.error.clone_from(&message);
            record.state.exit = Some(super::record::ExitRecord {
                code,
                out_of_memory: false,
                finished_ns: gamut_spec::time::now_ns(),
            });
        });
        self.networking.release(&container.id, &leases);
        drop(moving);
        self.connection_events("disconnect", &container.id, &leases);
        container.announce(|life| {
            life.exits += 1;
            life.exit_code = code;
            life.live = false;
            life.error = message;
        });
    }
}

/// The exit code by which shells and Docker tell why a program could not be executed.
fn exit_code_of_failed_start(message: &str) -> i32 {
    if message.contains("executable file not found")
        || message.contains("no such file or directory")
    {
        127
    } else if message.contains("permission denied") || message.contains("exec format error") {
        126
    } else {
        128
    }
}

pub(crate) fn supervisor_policy(policy: RestartPolicy) -> control::RestartPolicy {
    match policy {
        RestartPolicy::No => control::RestartPolicy::Never,
        RestartPolicy::OnFailure(maximum_retries) => {
            control::RestartPolicy::OnFailure { maximum_retries }
        }
        RestartPolicy::Always | RestartPolicy::UnlessStopped => control::RestartPolicy::Always,
    }
}

//! Diff, export and commit of containers, running or not.

use super::archive::prepare_writable;
use super::changes::{Change, Trees, changes, pack_changes};
use super::node::Node;
use super::pack::pack_tree;
use super::view::View;
use crate::container::live::{Container, Life};
use crate::container::record::{ContainerRecord, Phase};
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::health::Healthcheck;
use crate::snapshotter::copied_root;
use gamut_image::{CommitOptions, ExecutionConfig};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a commit was asked for.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// The new image's name, if any.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// Why.
    pub message: String,
    /// Edits of its configuration as Dockerfile instructions.
    pub changes: Vec<String>,
    /// A configuration that goes before the container's own: what it leaves empty is filled from
    /// there.
    pub config: Option<ExecutionConfig>,
    /// Freeze a running container meanwhile.
    pub pause: bool,
}

/// File that marks a container as frozen for a commit.
const FROZEN: &str = "frozen-for-commit";
/// How long after its process a container's end may take to be known.
const ENDING: Duration = Duration::from_secs(2);

fn forget(mark: &Path) {
    if let Err(error) = std::fs::remove_file(mark) {
        tracing::warn!(path = %mark.display(), %error, "cannot be removed");
    }
}

/// The two sides of a container's files, put together.
pub(super) struct Sides {
    merged: View,
    lower: View,
    upper: File,
    /// Overlayfs' marks can be seen in `lower`: it is a layer itself, or an overlay that does not
    /// know them (those of users, before Linux 6.7).
    has_lower_marks: bool,
}

impl Sides {
    /// All files as the container sees them.
    pub(super) fn merged(&self) -> BorrowedFd<'_> {
        self.merged.root()
    }

    pub(super) fn changes(&self) -> std::io::Result<Vec<Change>> {
        changes(&Trees {
            upper: self.upper.as_fd(),
            merged: self.merged.root(),
            lower: self.lower.root(),
            has_lower_marks: self.has_lower_marks,
        })
    }
}

impl Engine {
    /// What a container has changed of its image's files, parents before what is in them. Mounts
    /// are not looked into.
    ///
    /// # Errors
    /// `NotFound`, or if the files cannot be read.
    pub fn container_changes(&self, name_or_id: &str) -> Result<Vec<Change>> {
        let container = self.index.find(name_or_id)?;
        self.with_sides(&container, |sides| {
            sides.changes().map_err(|source| {
                Error::system(
                    format!("compare the files of container {name_or_id}"),
                    source,
                )
            })
        })
    }

    /// Writes all files of a container as a tar archive, without what is mounted.
    ///
    /// # Errors
    /// `NotFound`. Once something is written, an error means that the archive is cut short.
    pub fn export_container(&self, name_or_id: &str, output: &mut dyn Write) -> Result<()> {
        let container = self.index.find(name_or_id)?;
        self.with_sides(&container, |sides| {
            pack_tree(sides.merged.root(), output).map_err(|source| {
                Error::system(
                    format!("export the files of container {name_or_id}"),
                    source,
                )
            })
        })?;
        self.emit_container(&container, "export", BTreeMap::new());
        Ok(())
    }

    /// Makes an image of a container: its image and a layer of what it has changed. Returns the
    /// image's id.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a wrong change. Nothing is kept then.
    pub fn commit_container(
        &self,
        caller: &Caller,
        name_or_id: &str,
        request: &CommitRequest,
    ) -> Result<String> {
        let container = self.index.find(name_or_id)?;
        let frozen = if request.pause && container.phase() == Phase::Running {
            match self.freeze_for_commit(caller, &container) {
                Ok(mark) => Some(mark),
                Err(error) if error.kind() == ErrorKind::Conflict && self.ends(&container) => None,
                Err(error) => return Err(error),
            }
        } else {
            None
        };
        let committed = self.commit_as_it_is(&container, request);
        if let Some(mark) = frozen {
            self.thaw(caller, &container, &mark)?;
        }
        let id = committed?;
        let mut attributes = BTreeMap::from([("imageID".to_owned(), id.clone())]);
        if let Some(reference) = &request.reference {
            attributes.insert("imageRef".to_owned(), reference.familiar());
        }
        attributes.insert("comment".to_owned(), request.message.clone());
        self.emit_container(&container, "commit", attributes);
        Ok(id)
    }

    /// Whether a container that could not be frozen was about to end, and has ended.
    fn ends(&self, container: &Container) -> bool {
        let ended = |life: &Life| !life.live;
        container.phase() != Phase::Paused
            && container.await_life(&self.runtime, ENDING, ended).is_ok()
    }

    /// Freezes a container, and leaves a mark: a daemon that dies meanwhile must not leave it so.
    fn freeze_for_commit(&self, caller: &Caller, container: &Container) -> Result<PathBuf> {
        let mark = self.container_directory(&container.id).join(FROZEN);
        File::create(&mark)
            .map_err(|source| Error::system(format!("write {}", mark.display()), source))?;
        self.pause_container(caller, &container.id)
            .inspect_err(|_| forget(&mark))?;
        Ok(mark)
    }

    fn thaw(&self, caller: &Caller, container: &Container, mark: &Path) -> Result<()> {
        let thawed = self.unpause_container(caller, &container.id);
        // It may have ended, or somebody else was faster.
        if thawed.is_err() && container.phase() == Phase::Paused {
            return thawed;
        }
        forget(mark);
        Ok(())
    }

    /// Thaws what a daemon that died had frozen for a commit.
    pub(crate) fn thaw_after_commits(&self) {
        let caller = Caller::engine("thaw after a commit that was cut short");
        for container in self.index.all() {
            let mark = self.container_directory(&container.id).join(FROZEN);
            if !mark.exists() {
                continue;
            }
            // Whether it is frozen is not known yet: its supervisor has just been found again.
            let thawed = if container.phase().is_live() {
                self.level_of(&container)
                    .and_then(|level| Ok(level.resume(&caller.context(None), &container.id)?))
            } else {
                Ok(())
            };
            forget(&mark);
            if let Err(error) = thawed {
                tracing::error!(container = %container.id, error = %error.full_message(), "cannot be thawed; `gamut unpause` it");
            }
        }
    }

    fn commit_as_it_is(&self, container: &Container, request: &CommitRequest) -> Result<String> {
        let record = container.record();
        let base = self.image(&record.image_id)?;
        let mut config = configuration(&record);
        config.shell.clone_from(&base.config.config.shell);
        let options = CommitOptions {
            config: match &request.config {
                Some(given) => filled(given.clone(), config),
                None => config,
            },
            changes: request.changes.clone(),
            author: request.author.clone(),
            message: request.message.clone(),
            created_by: record.process.args.join(" "),
        };
        self.with_sides(container, |sides| {
            let mut write_layer = |output: &mut dyn Write| {
                pack_changes(sides.merged.root(), &sides.changes()?, output)
            };
            let reference = request.reference.as_ref();
            self.images
                .commit(&base, reference, &options, &mut write_layer)
                .map_err(|error| Error::new(error.kind(), gamut_spec::error::chain(&error)))
        })
    }

    /// Does something with both sides of a container's files. One that does not run can neither
    /// be started nor removed meanwhile; one that runs may go on changing them.
    pub(super) fn with_sides<T>(
        &self,
        container: &Container,
        work: impl FnOnce(&Sides) -> Result<T>,
    ) -> Result<T> {
        let turn = container.operate();
        if container.life().borrow().removed {
            return Err(Error::not_found("container", &container.id));
        }
        let sides = self.sides(container)?;
        if container.phase().is_live() {
            // A stop must not wait for a long export.
            drop(turn);
            return work(&sides);
        }
        let done = work(&sides);
        drop(sides);
        drop(turn);
        done
    }

    fn sides(&self, container: &Container) -> Result<Sides> {
        let directory = self.container_directory(&container.id);
        let failed = |source| {
            Error::system(
                format!("mount the files of container {}", container.id),
                source,
            )
        };
        let layers = self.image_layers(container)?;
        // One that runs has what it was started with.
        let copy = if container.phase().is_live() {
            copied_root(&directory)
        } else {
            self.copied(&directory, layers)?
        };
        if let Some(copy) = copy {
            // What is mounted in it is so in the container's mount namespace alone. It says of no
            // file whether it was changed, so everything is compared.
            let open = || -> std::io::Result<Sides> {
                Ok(Sides {
                    merged: View::of_layers(std::slice::from_ref(&copy))?,
                    lower: View::of_layers(layers)?,
                    upper: File::open(&copy)?,
                    has_lower_marks: true,
                })
            };
            return open().map_err(failed);
        }
        prepare_writable(&directory, layers).map_err(failed)?;
        let upper = directory.join("upper");
        let merged = match self.running_root(container) {
            Some(view) => view,
            None => {
                // As a further read-only layer: nothing can be written through it.
                let all: Vec<PathBuf> = std::iter::once(&upper).chain(layers).cloned().collect();
                View::of_layers(&all).map_err(failed)?
            }
        };
        let lower = View::of_layers(layers).map_err(failed)?;
        Ok(Sides {
            merged,
            has_lower_marks: lower.is_bare(),
            lower,
            upper: File::open(&upper).map_err(failed)?,
        })
    }
}

impl Engine {
    /// What a running container's processes see as their root, without what is mounted there: its
    /// layers must not be mounted a second time while they are written to.
    fn running_root(&self, container: &Container) -> Option<View> {
        if !container.phase().is_live() {
            return None;
        }
        let pid = container.read(|record| record.state.pid);
        let look = || -> std::io::Result<View> {
            let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
            let caller = Caller::engine("look at the files of a container");
            let root = self
                .live_root(&caller, container)
                .map_err(std::io::Error::other)?;
            View::of_namespace(&namespace, &Node::from_fd(root)?)
        };
        look()
            .inspect_err(|error| tracing::debug!(container = %container.id, %error, "its root cannot be copied"))
            .ok()
    }
}

/// A container's configuration as an image has it.
fn configuration(record: &ContainerRecord) -> ExecutionConfig {
    let (spec, process) = (&record.spec, &record.process);
    let (entrypoint, command) = process
        .args
        .split_at_checked(process.entrypoint_length)
        .unwrap_or((&[], &process.args));
    let list = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    ExecutionConfig {
        user: process.user.clone(),
        exposed_ports: spec
            .exposed_ports
            .iter()
            .map(|port| {
                (
                    format!("{}/{}", port.number, port.protocol.as_str()),
                    json!({}),
                )
            })
            .collect(),
        env: process.environment.clone(),
        entrypoint: list(entrypoint),
        cmd: list(command),
        volumes: spec
            .anonymous_volumes
            .iter()
            .map(|path| (path.clone(), json!({})))
            .collect(),
        working_dir: process.working_directory.clone(),
        labels: spec.labels.clone(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout_seconds,
        // The image's own is part of it already.
        healthcheck: spec.healthcheck.as_ref().map(|check| {
            json!(Healthcheck {
                shell: Vec::new(),
                ..check.clone()
            })
        }),
        ..ExecutionConfig::default()
    }
}

/// Fills what `config` leaves empty from `own`, and adds to its lists what is missing there.
fn filled(mut config: ExecutionConfig, own: ExecutionConfig) -> ExecutionConfig {
    for (text, own) in [
        (&mut config.user, own.user),
        (&mut config.working_dir, own.working_dir),
        (&mut config.stop_signal, own.stop_signal),
    ] {
        if text.is_empty() {
            *text = own;
        }
    }
    let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in own.env {
        if !config
            .env
            .iter()
            .any(|have| name_of(have) == name_of(&entry))
        {
            config.env.push(entry);
        }
    }
    for (map, own) in [
        (&mut config.exposed_ports, own.exposed_ports),
        (&mut config.volumes, own.volumes),
    ] {
        for (key, value) in own {
            map.entry(key).or_insert(value);
        }
    }
    for (key, value) in own.labels {
        config.labels.entry(key).or_insert(value);
    }
    // A command belongs to its entry point.
    let has_no_entrypoint = config.entrypoint.as_ref().is_none_or(Vec::is_empty);
    if has_no_entrypoint && config.cmd.as_ref().is_none_or(Vec::is_empty) {
        config.cmd = own.cmd;
    }
    if has_no_entrypoint {
        config.entrypoint = own.entrypoint;
    }
    config.stop_timeout = config.stop_timeout.or(own.stop_timeout);
    config.healthcheck = config.healthcheck.or(own.healthcheck);
    config.shell = config.shell.or(own.shell);
    // Facts of a container, which no image has.
    config.other.clear();
    config
}

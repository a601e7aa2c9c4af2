//! What users of the machine other than root may do, where the engine is told to tell them apart
//! ([`Options::owners_only`](crate::Options)): whatever they like with containers, volumes and
//! networks that they have made, as long as those reach nothing of the machine or of others.

use crate::container::spec::{ContainerSpec, IpcMode, MountSource, NamespaceMode, NetworkMode};
use crate::container::user_namespace::UserNamespaceMode;
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use gamut_spec::error::ErrorKind;

impl Engine {
    /// Whether a caller may do everything: root, the engine's own user, and everybody where users
    /// are not told apart.
    #[must_use]
    pub fn is_trusted(&self, caller: &Caller) -> bool {
        let own = self.options.rootless.as_ref().map(|rootless| rootless.uid);
        !self.options.owners_only || caller.peer_uid == 0 || Some(caller.peer_uid) == own
    }

    /// Whether a caller may see and use what this user has made.
    #[must_use]
    pub fn may_use(&self, caller: &Caller, owner_uid: u32) -> bool {
        self.is_trusted(caller) || caller.peer_uid == owner_uid
    }

    /// The refusal of something that is root's alone.
    #[must_use]
    pub fn denied(caller: &Caller, what: &str) -> Error {
        Error::new(
            ErrorKind::Forbidden,
            format!(
                "authorization denied: {what} is for root only on this engine (gamut daemon --authorization owner), and you are user {}",
                caller.peer_uid
            ),
        )
    }

    /// Checks that a container stays within bounds, before it is made.
    ///
    /// # Errors
    /// `Forbidden`, naming what would reach out; `NotFound` for what is others'.
    pub(crate) fn authorize_container(&self, caller: &Caller, spec: &ContainerSpec) -> Result<()> {
        if self.is_trusted(caller) {
            return Ok(());
        }
        if let Some((_, what)) = reaching_out(spec).into_iter().find(|(reaches, _)| *reaches) {
            return Err(Self::denied(caller, what));
        }
        if spec.log.is_remote() && spec.log.driver != self.options.log.driver {
            return Err(Self::denied(
                caller,
                "a log driver that sends lines elsewhere",
            ));
        }
        for mount in &spec.mounts {
            match &mount.source {
                MountSource::Bind { path, .. } => {
                    return Err(Self::denied(
                        caller,
                        &format!("mounting {path} of the host"),
                    ));
                }
                MountSource::Volume { name, options, .. } => {
                    self.authorize_volume(caller, name)?;
                    if !options.is_empty() {
                        return Err(Self::denied(caller, "a volume with options"));
                    }
                }
                MountSource::Tmpfs { .. } => {}
            }
        }
        let from = spec.volumes_from.iter();
        let from = from.map(|text| text.split_once(':').map_or(text.as_str(), |(name, _)| name));
        let links = spec.links.iter();
        let links = links.map(|text| text.split_once(':').map_or(text.as_str(), |(name, _)| name));
        for name in shared(spec).into_iter().chain(from).chain(links) {
            self.authorize_use(caller, name)?;
        }
        let networks = spec.endpoints.iter().map(|endpoint| &endpoint.network);
        let own = match &spec.network {
            NetworkMode::Network(name) => Some(name),
            _ => None,
        };
        for name in networks.chain(own) {
            self.authorize_network(caller, name)?;
        }
        Ok(())
    }

    /// Checks that a container is the caller's; others' are as if they were not there.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn authorize_use(&self, caller: &Caller, name_or_id: &str) -> Result<()> {
        if self.is_trusted(caller) {
            return Ok(());
        }
        let owner = self
            .index
            .find(name_or_id)?
            .read(|record| record.provenance.uid);
        if self.may_use(caller, owner) {
            return Ok(());
        }
        Err(Error::not_found("container", name_or_id))
    }

    /// Checks that a volume is the caller's, or not there yet.
    ///
    /// # Errors
    /// `Forbidden`: the name is taken.
    pub fn authorize_volume(&self, caller: &Caller, name: &str) -> Result<()> {
        match self.volumes.get(name) {
            Ok(record) if !self.may_use(caller, record.provenance.uid) => Err(Self::denied(
                caller,
                &format!("the volume {name}, which is another user's,"),
            )),
            _ => Ok(()),
        }
    }

    /// Checks that a network is the caller's, or one of those that are always there.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn authorize_network(&self, caller: &Caller, name: &str) -> Result<()> {
        match self.network(name) {
            Ok(record)
                if !record.is_predefined() && !self.may_use(caller, record.provenance.uid) =>
            {
                Err(Self::denied(
                    caller,
                    &format!("the network {name}, which is another user's,"),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// What leads out of a container, and how it is called.
fn reaching_out(spec: &ContainerSpec) -> [(bool, &'static str); 13] {
    let is_harmless = |option: &String| option.starts_with("no-new-privileges");
    [
        (spec.privileged, "--privileged"),
        (!spec.capabilities_add.is_empty(), "--cap-add"),
        (!spec.devices.is_empty(), "--device"),
        (!spec.device_cgroup_rules.is_empty(), "--device-cgroup-rule"),
        (
            !spec.security_options.iter().all(is_harmless),
            "--security-opt",
        ),
        (spec.network == NetworkMode::Host, "--network host"),
        (spec.pid_mode == NamespaceMode::Host, "--pid host"),
        (spec.ipc_mode == IpcMode::Host, "--ipc host"),
        (spec.uts_mode == NamespaceMode::Host, "--uts host"),
        (
            spec.cgroup_namespace_mode == NamespaceMode::Host,
            "--cgroupns host",
        ),
        (
            spec.user_namespace == UserNamespaceMode::Host,
            "--userns host",
        ),
        (!spec.cgroup_parent.is_empty(), "--cgroup-parent"),
        (
            spec.masked_paths.is_some() || spec.readonly_paths.is_some(),
            "another list of masked or read-only paths",
        ),
    ]
}

/// Containers whose namespaces it is to share.
fn shared(spec: &ContainerSpec) -> Vec<&str> {
    let mut names = Vec::new();
    if let NetworkMode::Container(name) = &spec.network {
        names.push(name.as_str());
    }
    for mode in [&spec.pid_mode, &spec.uts_mode] {
        if let NamespaceMode::Container(name) = mode {
            names.push(name.as_str());
        }
    }
    if let IpcMode::Container(name) = &spec.ipc_mode {
        names.push(name.as_str());
    }
    if let UserNamespaceMode::Container(name) = &spec.user_namespace {
        names.push(name.as_str());
    }
    names
}

//! What a container is to have that not every level of isolation gives, and who lends what.

use super::security::SecurityOptions;
use super::spec::{ContainerSpec, IpcMode, MountSource, NamespaceMode, NetworkMode};
use crate::engine::Engine;
use crate::error::Result;
use crate::health::Test;
use gamut_isolation::contract::{Feature, Loan};

/// What a container is to have, as told to its level before anything is made.
///
/// # Errors
/// If its security options or its health check make no sense.
pub(super) fn wanted(
    spec: &ContainerSpec,
    user: &str,
    working_directory: &str,
    has_own_ids: bool,
) -> Result<Vec<Feature>> {
    let shares = |mode: &NamespaceMode| *mode != NamespaceMode::Private;
    let own_ipc = matches!(
        spec.ipc_mode,
        IpcMode::Private | IpcMode::Shareable | IpcMode::None
    );
    let runs_command = match &spec.healthcheck {
        Some(check) => matches!(check.test()?, Some(Test::Command(_))),
        None => false,
    };
    let confined = !spec.capabilities_add.is_empty()
        || !spec.capabilities_drop.is_empty()
        || SecurityOptions::parse(&spec.security_options)? != SecurityOptions::default();
    let is_tmpfs = |source: &MountSource| matches!(source, MountSource::Tmpfs { .. });
    let wanted = [
        (spec.terminal, Feature::Terminal),
        (spec.open_stdin, Feature::Stdin),
        (spec.network == NetworkMode::Host, Feature::HostNetwork),
        (
            matches!(spec.network, NetworkMode::Container(_)),
            Feature::SharedNetwork,
        ),
        (
            matches!(spec.network, NetworkMode::Network(_)),
            Feature::Names,
        ),
        (shares(&spec.pid_mode) || !own_ipc, Feature::SharedProcesses),
        (has_own_ids, Feature::UserNamespace),
        (spec.privileged, Feature::Privileged),
        (confined, Feature::Confinement),
        (
            !spec.devices.is_empty() || !spec.device_cgroup_rules.is_empty(),
            Feature::Devices,
        ),
        (!spec.sysctls.is_empty(), Feature::Sysctls),
        (!spec.ulimits.is_empty(), Feature::Ulimits),
        (
            spec.mounts.iter().any(|mount| is_tmpfs(&mount.source)),
            Feature::Tmpfs,
        ),
        (
            !user.is_empty() || !spec.additional_groups.is_empty(),
            Feature::User,
        ),
        (
            !matches!(working_directory, "" | "/"),
            Feature::WorkingDirectory,
        ),
        (spec.init, Feature::Init),
        (runs_command, Feature::HealthCommand),
    ];
    Ok(wanted
        .into_iter()
        .filter_map(|(is_wanted, feature)| is_wanted.then_some(feature))
        .collect())
}

impl Engine {
    /// Whether other containers can lend what this one is to share with them.
    ///
    /// # Errors
    /// `NotFound` without such a container, `Unsupported` if its level lends nothing of the kind.
    pub(super) fn check_loans(&self, spec: &ContainerSpec) -> Result<()> {
        let mut loans: Vec<(&str, Loan)> = Vec::new();
        if let NetworkMode::Container(other) = &spec.network {
            loans.push((other, Loan::Network));
        }
        if let NamespaceMode::Container(other) = &spec.pid_mode {
            loans.push((other, Loan::Processes));
        }
        if let IpcMode::Container(other) = &spec.ipc_mode {
            loans.push((other, Loan::Ipc));
        }
        for (other, loan) in loans {
            let other = self.index.find(other)?;
            self.level_of(&other)?.lend(loan)?;
        }
        Ok(())
    }
}

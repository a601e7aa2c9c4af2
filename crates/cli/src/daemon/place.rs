//! Where the daemon keeps its things, and for an ordinary user, the way into his namespaces.

use crate::commands::daemon::DaemonArguments;
use crate::error::Error;
use gamut_engine::{Options, Rootless, find_groups};
use gamut_rootless::{Account, Directories};
use std::path::{Path, PathBuf};

/// The answers to where.
pub(super) struct Place {
    pub data_root: PathBuf,
    pub run_root: PathBuf,
    pub cgroup_parent: String,
    /// Why there are no control groups.
    pub without_groups: Option<String>,
    /// Controllers that control groups can have, if not all.
    pub controllers: Option<Vec<String>>,
    /// Set for an ordinary user.
    pub rootless: Option<Rootless>,
    /// Files with the settings of registries, of which the first that is there counts.
    pub registries: Vec<PathBuf>,
}

impl Place {
    /// Takes what the arguments say and fills in the rest. For an ordinary user this process,
    /// which has one thread, is in his engine's namespaces afterwards.
    ///
    /// # Errors
    /// If the namespaces cannot be had; the message says what to change.
    pub fn choose(arguments: &DaemonArguments) -> Result<Self, Error> {
        let defaults = Options::default();
        if !gamut_rootless::is_ordinary_user() {
            return Ok(Self {
                data_root: absolute(arguments.data_root.as_deref(), defaults.data_root)?,
                run_root: absolute(arguments.run_root.as_deref(), defaults.run_root)?,
                cgroup_parent: arguments
                    .cgroup_parent
                    .clone()
                    .unwrap_or(defaults.cgroup_parent),
                without_groups: None,
                controllers: None,
                rootless: None,
                registries: registries(arguments, None, defaults.registries),
            });
        }
        let directories = Directories::of(&Account::current());
        if let (Some(note), None) = (&directories.note, &arguments.run_root) {
            tracing::warn!("{note}");
        }
        let own = directories.config.as_deref();
        let registries = registries(arguments, own, defaults.registries);
        let data_root = absolute(arguments.data_root.as_deref(), directories.data)?;
        let run_root = absolute(arguments.run_root.as_deref(), directories.run)?;
        let entered = gamut_rootless::enter(&run_root).map_err(|error| {
            Error::Message(format!(
                "set up the engine for an ordinary user: {}",
                gamut_spec::error::chain(&error)
            ))
        })?;
        for warning in &entered.state.warnings {
            tracing::warn!("{warning}");
        }
        let groups = match &arguments.cgroup_parent {
            Some(parent) => Ok((parent.clone(), None)),
            None => find_groups().map(|groups| (groups.parent, Some(groups.controllers))),
        };
        if let Err(reason) = &groups {
            tracing::warn!("limits are not applied: {reason}");
        }
        let without_groups = groups.as_ref().err().cloned();
        let (cgroup_parent, controllers) = groups.unwrap_or((defaults.cgroup_parent, None));
        Ok(Self {
            data_root,
            run_root,
            without_groups,
            cgroup_parent,
            controllers,
            rootless: Some(Rootless {
                uid: entered.uid,
                is_new: entered.is_new,
                warnings: entered.state.warnings,
            }),
            registries,
        })
    }
}

/// The file that was named; else the user's own, before those of the machine.
fn registries(
    arguments: &DaemonArguments,
    own: Option<&Path>,
    of_the_machine: Vec<PathBuf>,
) -> Vec<PathBuf> {
    match &arguments.registries {
        Some(named) => vec![named.clone()],
        None => own
            .map(|directory| directory.join("registries.json"))
            .into_iter()
            .chain(of_the_machine)
            .collect(),
    }
}

fn absolute(named: Option<&Path>, default: PathBuf) -> Result<PathBuf, Error> {
    named.map_or(Ok(default), |path| {
        std::path::absolute(path).map_err(Error::io(format!("find {}", path.display())))
    })
}

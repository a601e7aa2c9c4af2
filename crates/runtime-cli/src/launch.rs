//! `create` and `run`: from a bundle to the program that makes the container.

use crate::arguments::Launch;
use crate::bundle::Bundle;
use crate::error::Error;
use crate::hand_over::{Program, callers, check_terminal, listen_fds, preserved, text};
use crate::log::Logger;
use crate::state::{self, Record, Root};
use crate::unikernel::{self, Prepared};
use gamut_abi::oci::{OciLaunch, OciRequest, OciVerb};
use gamut_abi::plan::{NamespaceKind, NamespaceSource, Plan};
use gamut_spec::isolation::IsolationLevel;
use std::os::fd::AsFd;
use std::path::Path;

/// Makes a container that waits for its start. Returns only on failure.
///
/// # Errors
/// Why it did not get to the program that makes it; nothing is left then.
pub fn create(root: &Root<'_>, launch: (&str, &Launch), logger: &Logger<'_>) -> Result<(), Error> {
    execute(root, launch, logger, OciVerb::Create)
}

/// Makes a container and runs it, to its end unless it is to be left. Returns only on failure.
///
/// # Errors
/// As [`create`].
pub fn run(root: &Root<'_>, launch: (&str, &Launch), logger: &Logger<'_>) -> Result<(), Error> {
    let verb = if launch.1.detach {
        OciVerb::RunDetached
    } else {
        OciVerb::Run
    };
    execute(root, launch, logger, verb)
}

fn execute(
    root: &Root<'_>,
    (name, launch): (&str, &Launch),
    logger: &Logger<'_>,
    verb: OciVerb,
) -> Result<(), Error> {
    // First of all: their numbers are as good as any for what is opened next.
    let listening = listen_fds();
    let files = preserved(3, listening.saturating_add(launch.preserve_fds))?;
    let callers = callers(&launch.callers, logger)?;
    let bundle = Bundle::read(launch.bundle.as_deref(), logger)?;
    logger.debug(|| format!("bundle {} is read", bundle.path.display()));
    let rootfs = bundle.root()?;
    let jail = match unikernel::find(name, &bundle, &rootfs)? {
        Some(unikernel) => Some(unikernel.prepare(&bundle, &root.absolute()?.join(&launch.id))?),
        None => None,
    };
    let jailed = jail
        .as_ref()
        .map(|jail| (jail.bundle(&bundle), jail.root()));
    let (started, started_root) = match &jailed {
        Some((bundle, root)) => (bundle, root),
        None => (&bundle, &rootfs),
    };
    let mut compiled = started.compile(
        &launch.id,
        started_root,
        launch.no_new_keyring,
        root.systemd_cgroup(),
    )?;
    check_terminal(
        compiled.plan.process.terminal.is_some(),
        verb != OciVerb::Run,
        &launch.callers,
    )?;
    let left_out = jail.as_ref().map(Prepared::warnings).unwrap_or_default();
    for warning in left_out.iter().chain(&compiled.warnings) {
        logger.warning(warning);
    }
    if listening > 0 {
        let env = &mut compiled.plan.process.env;
        env.extend([format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()]);
    }
    let program = Program::find()?;
    let level = match jail {
        Some(_) => IsolationLevel::Unikernel,
        None => IsolationLevel::Container,
    };
    let record = record(&launch.id, &bundle, &rootfs, &compiled.plan, level);
    let directory = root.make(&record, &bundle.text)?;
    if let Some(Err(error)) = jail.as_ref().map(Prepared::make) {
        state::forget(&directory);
        return Err(error);
    }
    logger.debug(|| {
        format!(
            "container {} is made by the supervisor's program",
            launch.id
        )
    });
    let request = OciRequest::Launch(OciLaunch {
        verb,
        plan: compiled.plan,
        state_directory: text(&directory)?,
        keep: launch.keep,
        subreaper: !launch.no_subreaper,
        extra_files: u32::try_from(files.len()).unwrap_or(u32::MAX),
        callers,
    });
    // Relative paths, and hooks, are the bundle's.
    let error = match std::env::set_current_dir(&bundle.path) {
        Ok(()) => {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            program.execute(&launch.id, &request, &files)
        }
        Err(error) => Error::file("enter bundle", &bundle.path)(error),
    };
    state::forget(&directory);
    Err(error)
}

fn record(id: &str, bundle: &Bundle, rootfs: &Path, plan: &Plan, level: IsolationLevel) -> Record {
    Record {
        id: id.to_owned(),
        bundle: bundle.path.clone(),
        cgroup_path: plan.cgroup.as_ref().map(|group| group.path.clone()),
        systemd_cgroup: plan.cgroup.as_ref().is_some_and(|group| group.systemd),
        created_ns: gamut_spec::time::now_ns(),
        annotations: bundle.annotations(),
        rootfs: rootfs.to_owned(),
        own_pid_namespace: plan.namespaces.iter().any(|namespace| {
            namespace.kind == NamespaceKind::Pid && namespace.source == NamespaceSource::New
        }),
        hooks: plan.hooks.clone(),
        level,
    }
}

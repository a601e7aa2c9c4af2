//! From a prepared sandbox to a workload just before its first instruction.

use super::call::Call;
use super::directory::{Record, write_record};
use super::pid::{self, PinnedProcess, is_own_network};
use super::{Busy, ContainerLevel};
use crate::compile::{self, CompileOptions, Compiled, Network, ProcessOptions};
use crate::contract::{Context, Endpoint, RootSource, Started, WorkloadSpec};
use crate::error::Error;
use gamut_abi::control::Launch;
use gamut_abi::plan::{NamespaceKind, NamespaceSource, Plan};
use gamut_abi::status::State;
use gamut_supervisor::read_status;
use oci_spec::runtime::{LinuxIdMapping, Spec};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

impl ContainerLevel {
    pub(super) fn create_workload(
        &self,
        context: &Context,
        mut workload: WorkloadSpec,
    ) -> Result<Started, Error> {
        let id = workload.id.clone();
        let call = Call::begin(context, "create", &id)?;
        super::check_id(&id)?;
        let _turn = self.turns.take(&id);
        if let Some(started) = self.created_already(&call, &workload)? {
            return Ok(started);
        }
        let network = self.network(&call, &workload.sandbox_id)?;
        prepare_writable(&workload.root, &workload.config).map_err(|error| call.system(error))?;
        let attached = std::mem::take(&mut workload.attached);
        let compiled =
            compile::compile(&workload.config, self.compile_options(&workload, network))?;
        let Compiled {
            mut plan,
            mut descriptors,
            mut warnings,
        } = compiled;
        warnings.extend(self.without_groups(&mut plan));
        join_owner(&mut plan, &mut descriptors).map_err(|error| call.system(error))?;
        let record = Record {
            cgroup_path: plan
                .cgroup
                .as_ref()
                .map(|group| group.path.clone())
                .unwrap_or_default(),
            seccomp: plan.process.seccomp.clone(),
            seccomp_listener: compile::seccomp_listener(&workload.config, &id, None, "running")?,
        };
        let mut attach = Vec::with_capacity(attached.len());
        for client in attached {
            attach.push(client.attach);
            descriptors.push(client.stream);
        }
        let _busy = Busy::new(&self.creating, &id);
        let directory = self
            .run_root
            .make(&id)
            .map_err(|error| call.system(error))?;
        let launch = Launch {
            plan,
            run_directory: self.directory_text(&call, &directory)?,
            log: workload.log,
            restart: workload.restart,
            open_stdin: workload.open_stdin,
            stdin_once: workload.stdin_once,
            attach,
            start: false,
        };
        let launched = write_record(&directory, &record)
            .map_err(|error| call.system(error))
            .and_then(|()| self.launch(&call, &launch, descriptors))
            .and_then(|more| {
                warnings.extend(more);
                // A caller that has gone meanwhile will never start or delete it.
                call.check()?;
                read_status(&directory).map_err(|error| call.system(error))
            });
        match launched {
            Ok(status) => {
                self.forget_sandbox(&workload.sandbox_id);
                Ok(Started {
                    pid: status.map_or(0, |status| status.pid),
                    warnings,
                })
            }
            Err(error) => {
                self.undo(&id);
                Err(error)
            }
        }
    }

    /// Removes what a failed create has made, however little time its caller has left.
    fn undo(&self, id: &str) {
        let context = Context::default();
        let undone =
            Call::begin(&context, "undo the creation of", id).and_then(|call| self.clean_up(&call));
        if let Err(error) = undone {
            let error = gamut_spec::error::chain(&error);
            tracing::warn!(id, error, "a failed create left something behind");
        }
    }

    /// Answers a repeated create. What is left of a dead attempt is cleaned up.
    fn created_already(
        &self,
        call: &Call<'_>,
        workload: &WorkloadSpec,
    ) -> Result<Option<Started>, Error> {
        let directory = self.run_root.of(call.id);
        if !directory.exists() {
            return Ok(None);
        }
        let status = read_status(&directory).map_err(|error| call.system(error))?;
        match status {
            Some(status)
                if status.state == State::Created
                    && workload.attached.is_empty()
                    && gamut_supervisor::is_alive(&directory).unwrap_or(false) =>
            {
                Ok(Some(Started {
                    pid: status.pid,
                    warnings: Vec::new(),
                }))
            }
            Some(_) => Err(call.state("it exists already; delete it first")),
            None => {
                self.clean_up(call)?;
                Ok(None)
            }
        }
    }

    fn launch(
        &self,
        call: &Call<'_>,
        launch: &Launch,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Vec<String>, Error> {
        call.check()?;
        let (client, warnings) = gamut_supervisor::launch(
            &self.executable,
            &call.client_context(),
            launch,
            descriptors,
            Some(call.time_left()),
        )
        .map_err(|error| call.failed(error))?;
        // A supervisor whose last connection closes before the start takes it for abandoned.
        self.lock_pending().insert(call.id.to_owned(), client);
        Ok(warnings)
    }

    fn compile_options(&self, workload: &WorkloadSpec, network: Network) -> CompileOptions {
        let configured = workload
            .config
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_ref())
            .is_some_and(|path| !path.as_os_str().is_empty());
        CompileOptions {
            id: workload.id.clone(),
            root: workload.root.clone(),
            mount_point: self.run_root.mount_point.clone(),
            bundle: None,
            exact_bind_flags: false,
            network,
            cgroup_path: (!configured).then(|| self.default_group(&workload.id)),
            process: ProcessOptions {
                user: workload.user.clone(),
                additional_groups: workload.additional_groups.clone(),
                create_cwd: workload.create_cwd,
                init: workload.init,
                seccomp: None,
                seccomp_listener: None,
                inherit_keyring: false,
            },
            is_host_network: compile::is_host_network,
        }
    }

    fn directory_text(&self, call: &Call<'_>, directory: &Path) -> Result<String, Error> {
        match directory.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => {
                let text = format!("{} is not valid UTF-8", directory.display());
                self.run_root
                    .remove(call.id)
                    .map_err(|error| call.system(error))?;
                Err(Error::Invalid {
                    field: "run root".to_owned(),
                    problem: text,
                })
            }
        }
    }

    /// The network of a sandbox: as prepared, or that of the workload which made it.
    fn network(&self, call: &Call<'_>, sandbox_id: &str) -> Result<Network, Error> {
        let owner = {
            let sandboxes = self.lock_sandboxes();
            match sandboxes.get(sandbox_id) {
                Some(Endpoint::Host) => return Ok(Network::Host),
                Some(Endpoint::Namespace(namespace)) => {
                    let copy = namespace.try_clone().map_err(|error| call.system(error))?;
                    return own_or_host(copy).map_err(|error| call.system(error));
                }
                Some(Endpoint::Workload(owner)) => owner.clone(),
                None if sandbox_id != call.id => sandbox_id.to_owned(),
                None => {
                    let id = sandbox_id.to_owned();
                    return Err(Error::NotFound {
                        object: "sandbox",
                        id,
                    });
                }
            }
        };
        self.network_of(call, &owner)
    }

    fn network_of(&self, call: &Call<'_>, owner: &str) -> Result<Network, Error> {
        let Some(status) = self.read(call.operation, owner)? else {
            return Err(Error::NotFound {
                object: "workload",
                id: owner.to_owned(),
            });
        };
        let not_running =
            || call.state(format!("the network of {owner} is gone: it is not running"));
        if status.pid == 0 {
            return Err(not_running());
        }
        let namespace = PinnedProcess::open_child(status.pid, status.supervisor_pid)
            .and_then(|process| process.open_file("ns/net", libc::O_RDONLY));
        match namespace {
            Ok(namespace) => own_or_host(namespace).map_err(|error| call.system(error)),
            Err(error) if is_gone(&error) => Err(not_running()),
            Err(error) => Err(call.system(error)),
        }
    }
}

/// A process that ended while it was looked at.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// A namespace that is the host's own counts as such: kernel parameters of the network must not
/// be set in it.
fn own_or_host(namespace: OwnedFd) -> io::Result<Network> {
    Ok(if is_own_network(&namespace)? {
        Network::Host
    } else {
        Network::Descriptor(namespace)
    })
}

/// A network namespace that was made in a user namespace is for the container that is to have this
/// one: it joins it, instead of making one with the same mappings.
fn join_owner(plan: &mut Plan, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    let position = |kind| {
        let mut list = plan.namespaces.iter();
        list.position(|namespace| namespace.kind == kind)
    };
    let (Some(user), Some(network)) = (
        position(NamespaceKind::User),
        position(NamespaceKind::Network),
    ) else {
        return Ok(());
    };
    let NamespaceSource::Descriptor(index) = plan.namespaces[network].source else {
        return Ok(());
    };
    let given = usize::try_from(index)
        .ok()
        .and_then(|index| descriptors.get(index));
    let (NamespaceSource::New, Some(given)) = (&plan.namespaces[user].source, given) else {
        return Ok(());
    };
    let owner = pid::owner(given)?;
    if pid::is_own_user(&owner)? {
        return Ok(());
    }
    plan.namespaces[user].source =
        NamespaceSource::Descriptor(u32::try_from(descriptors.len()).unwrap_or(u32::MAX));
    plan.uid_mappings.clear();
    plan.gid_mappings.clear();
    descriptors.push(owner);
    Ok(())
}

/// Makes the directories of the writable layer where they are missing. The top directory of an
/// overlay shows the owner and mode of the writable one, so that it takes them from the image. An
/// overlay with a user namespace of the container's own is mounted over mapped layers, the writable
/// one included, so that files on disk have the ids of the inside; but where this process is in a
/// user namespace itself, only the layers of the image are mapped.
fn prepare_writable(root: &RootSource, config: &Spec) -> io::Result<()> {
    let RootSource::Layers {
        lower, writable, ..
    } = root
    else {
        return Ok(());
    };
    let linux = config.linux().as_ref();
    let linux = linux.filter(|_| crate::user_namespace::is_nested());
    let uids = linux.and_then(|linux| linux.uid_mappings().as_deref());
    let gids = linux.and_then(|linux| linux.gid_mappings().as_deref());
    let work = writable.join("work");
    if make_directory(&work, 0o700)? && (uids.is_some() || gids.is_some()) {
        std::os::unix::fs::chown(&work, Some(mapped(uids, 0)), Some(mapped(gids, 0)))?;
    }
    let upper = writable.join("upper");
    if make_directory(&upper, 0o755)?
        && let Some(top) = lower.first()
    {
        let like = fs::metadata(top)?;
        let (uid, gid) = (mapped(uids, like.uid()), mapped(gids, like.gid()));
        std::os::unix::fs::chown(&upper, Some(uid), Some(gid))?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))?;
    }
    Ok(())
}

/// An id of the image as it is on the host: mapped, or itself where there is no mapping for it.
fn mapped(mappings: Option<&[LinuxIdMapping]>, id: u32) -> u32 {
    mappings
        .unwrap_or_default()
        .iter()
        .find_map(|mapping| {
            let offset = id.checked_sub(mapping.container_id())?;
            (offset < mapping.size()).then(|| mapping.host_id().saturating_add(offset))
        })
        .unwrap_or(id)
}

/// Makes a directory; false if it was there.
fn make_directory(path: &Path, mode: u32) -> io::Result<bool> {
    match DirBuilder::new().recursive(false).mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            let text = format!("make {}: {error}", path.display());
            Err(io::Error::new(error.kind(), text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn ids_of_the_image_are_mapped() {
        let mapping = |container: u32, host: u32, size: u32| {
            LinuxIdMappingBuilder::default()
                .container_id(container)
                .host_id(host)
                .size(size)
                .build()
                .unwrap()
        };
        let list = [mapping(0, 100_000, 10), mapping(1000, 7, 1)];
        for (id, host) in [(0, 100_000), (9, 100_009), (10, 10), (1000, 7)] {
            assert_eq!(mapped(Some(&list), id), host);
        }
        assert_eq!(mapped(None, 5), 5);
    }
}

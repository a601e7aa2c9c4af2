//! Making a container: everything decided and on disk, nothing started.

use super::live::Container;
use super::record::{ContainerRecord, Provenance, RecordedState, ResolvedProcess};
use super::spec::{
    ContainerSpec, EndpointSpec, IpcMode, MountSource, NamespaceMode, NetworkMode, RestartPolicy,
};
use super::user_namespace::{IdRange, Wanted};
use super::{features, health, name, oci, security, systemd, user_namespace};
use crate::engine::{Caller, Engine};
use crate::error::{Error, Result};
use crate::store::Durability;
use gamut_image::Image;
use gamut_isolation::Isolation;
use gamut_spec::error::ErrorKind;
use gamut_spec::form::ImageForm;
use gamut_spec::isolation::IsolationLevel;
use gamut_spec::{id, signal, time};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::str::FromStr;
use std::sync::{Arc, MutexGuard, PoisonError};

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container. On disk before it is acknowledged, unless it removes itself.
    ///
    /// # Errors
    /// `NotFound` without the image, `Conflict` for a name in use, `InvalidArgument` for what
    /// makes no sense, `Unsupported` for a level this engine does not offer.
    pub fn create_container(
        &self,
        caller: &Caller,
        name: Option<&str>,
        mut spec: ContainerSpec,
    ) -> Result<Created> {
        let (level, image) = self.find_image(&spec)?;
        adopt_image_defaults(&mut spec, &image);
        crate::logging::resolve(&mut spec.log, &self.options.log)?;
        self.authorize_container(caller, &spec)?;
        let endpoints = self.resolve_endpoints(&mut spec)?;
        let mut warnings = self.check(&spec)?;
        warnings.extend(health::resolve(&mut spec, &image.config.config)?);
        let process = resolve_process(&spec, &image)?;
        let wanted = features::wanted(
            &spec,
            &process.user,
            &process.working_directory,
            user_namespace::wanted(&spec, &self.options)? != Wanted::Host,
        )?;
        warnings.extend(level.admit(&wanted)?);
        self.check_loans(&spec)?;
        let id = id::random().map_err(|source| Error::system("make an id", source))?;
        let name = self.reserve_name(name, &id)?;
        let made = self.lease_ids(&spec).and_then(|ids| {
            let made = (spec, endpoints, level.level(), process, ids);
            self.make(caller, (&id, &name), &image, made)
        });
        let leased = made.as_ref().ok().and_then(|one| one.read(|one| one.ids));
        match made {
            Ok(container) => {
                let attributes = self.container_attributes(&container);
                self.index.insert(container);
                self.lock_leasing().retain(|range| Some(*range) != leased);
                self.events.emit("container", "create", &id, attributes);
                Ok(Created { id, warnings })
            }
            Err(error) => {
                self.index.release(&name, &id);
                Err(error)
            }
        }
    }

    /// The level that a container is to have, and the image in the form which that level takes.
    fn find_image(&self, spec: &ContainerSpec) -> Result<(&Arc<dyn Isolation>, Image)> {
        if let Some(level) = spec.level {
            let level = self.level(level)?;
            let image = self.find_form(spec, Some(level.image_form()))?;
            return Ok((level, image));
        }
        let image = self.find_form(spec, None)?;
        let mut levels = self.levels.iter();
        match levels.find(|level| level.image_form() == image.form()) {
            Some(level) => Ok((level, image)),
            None => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "image {} is a {}, for which this engine has no level of isolation",
                    with_tag(&spec.image),
                    image.form()
                ),
            )),
        }
    }

    fn find_form(&self, spec: &ContainerSpec, form: Option<ImageForm>) -> Result<Image> {
        let platform = spec
            .platform
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(gamut_image::Platform::from_str)
            .transpose()
            .map_err(|error| Error::invalid(gamut_spec::error::chain(&error)))?;
        let find = || match form {
            Some(form) => self.images.get_form(&spec.image, platform.as_ref(), form),
            None => self.images.get(&spec.image, platform.as_ref()),
        };
        let mut found = find();
        if found
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
            && self.images.ensure_builtin(&spec.image).unwrap_or(false)
        {
            found = find();
        }
        found.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                error.kind(),
                format!("No such image: {}", with_tag(&spec.image)),
            ),
            kind => Error::new(kind, gamut_spec::error::chain(&error)),
        })
    }

    fn lock_leasing(&self) -> MutexGuard<'_, Vec<IdRange>> {
        self.leasing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of a container that is to have its own.
    fn lease_ids(&self, spec: &ContainerSpec) -> Result<Option<IdRange>> {
        let count = match user_namespace::wanted(spec, &self.options)? {
            Wanted::Host => return Ok(None),
            Wanted::Share(name) => {
                let other = self.index.find(&name)?;
                let ids = other.read(|record| record.ids);
                return ids.map(Some).ok_or_else(|| {
                    Error::conflict(format!(
                        "container {name} has no user ids of its own to be shared: make it with --userns auto"
                    ))
                });
            }
            Wanted::Lease(count) => count,
        };
        let mut leasing = self.lock_leasing();
        let all = self.index.all();
        let mut taken: Vec<IdRange> = all
            .iter()
            .filter_map(|one| one.read(|record| record.ids))
            .collect();
        taken.extend(user_namespace::subordinate_ranges());
        taken.extend(leasing.iter().copied());
        let range = user_namespace::lease(count, taken)?;
        leasing.push(range);
        Ok(Some(range))
    }

    fn reserve_name(&self, name: Option<&str>, id: &str) -> Result<String> {
        if let Some(name) = name.map(|name| name.strip_prefix('/').unwrap_or(name))
            && !name.is_empty()
        {
            check_name(name)?;
            self.index.reserve(name, id)?;
            return Ok(name.to_owned());
        }
        let mut attempt = 0;
        loop {
            let name = name::generate(id, attempt);
            match self.index.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if attempt >= 20 => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn make(
        &self,
        caller: &Caller,
        (id, name): (&str, &str),
        image: &Image,
        (spec, endpoints, level, process, ids): (
            ContainerSpec,
            Vec<EndpointSpec>,
            IsolationLevel,
            ResolvedProcess,
            Option<IdRange>,
        ),
    ) -> Result<Arc<Container>> {
        let provenance = Provenance {
            uid: caller.peer_uid,
            client: caller.client.clone(),
            purpose: spec
                .labels
                .get("gamut.purpose")
                .cloned()
                .unwrap_or_default(),
        };
        let mut made = Vec::new();
        let mounts = self.resolve_mounts(id, &spec, &provenance, &mut made);
        let mounts = mounts.inspect_err(|_| self.discard_volumes(&made))?;
        let durability = if spec.auto_remove {
            Durability::Process
        } else {
            Durability::Disk
        };
        let record = ContainerRecord {
            id: id.to_owned(),
            name: name.to_owned(),
            created_ns: time::now_ns(),
            provenance,
            image_id: image.id.clone(),
            level,
            process,
            mounts,
            should_run: false,
            removing: false,
            removing_volumes: false,
            ids,
            endpoints: Some(endpoints),
            leases: Vec::new(),
            state: RecordedState {
                boot_id: self.boot_id.clone(),
                ..RecordedState::default()
            },
            spec,
        };
        let directory = self.container_directory(id);
        let written = DirBuilder::new()
            .mode(0o710)
            .create(&directory)
            .map_err(|source| {
                Error::system(
                    format!("make the directory {}", directory.display()),
                    source,
                )
            })
            .and_then(|()| self.store.put(id, &record, durability));
        if let Err(error) = written {
            let _ = fs::remove_dir(&directory);
            self.discard_volumes(&made);
            return Err(error);
        }
        self.volumes_made(&made);
        Ok(Arc::new(Container::new(record)))
    }

    /// Removes the volumes that a failed creation has made; one that somebody else has taken up
    /// meanwhile stays.
    fn discard_volumes(&self, made: &[String]) {
        for volume in made {
            if self.volume_users(volume).is_empty() {
                let _ = self.volumes.remove(volume);
            }
        }
    }

    /// Checks what can be checked before anything is made.
    fn check(&self, spec: &ContainerSpec) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let security = security::SecurityOptions::parse(&spec.security_options)?;
        self.apparmor.check(&security.apparmor)?;
        super::capabilities::resolve(
            &spec.capabilities_add,
            &spec.capabilities_drop,
            spec.privileged,
            self.held_capabilities,
        )?;
        super::etc_files::check(spec)?;
        oci::resource_limits(&spec.resources)?;
        systemd::check_host(spec)?;
        if let Some(nano_cpus) = spec.resources.nano_cpus {
            let online = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let available = u64::try_from(online).unwrap_or(1) * 1_000_000_000;
            if nano_cpus > available || nano_cpus < 10_000_000 {
                return Err(Error::invalid(format!(
                    "range of CPUs is from 0.01 to {online}.00, as there are only {online} CPUs available"
                )));
            }
        }
        if spec.auto_remove && spec.restart != RestartPolicy::No {
            return Err(Error::invalid(
                "can't create 'AutoRemove' container with restart policy",
            ));
        }
        if let NetworkMode::Container(other) = &spec.network {
            self.index.find(other)?;
            if !spec.published_ports.is_empty() || spec.publish_all {
                return Err(Error::invalid(
                    "conflicting options: port publishing and the container type network mode",
                ));
            }
            if !spec.hostname.is_empty() {
                return Err(Error::invalid(
                    "conflicting options: hostname and the network mode",
                ));
            }
        }
        if let NamespaceMode::Container(other) = &spec.pid_mode {
            self.index.find(other)?;
        }
        if let IpcMode::Container(other) = &spec.ipc_mode {
            check_shareable(&*self.index.find(other)?)?;
        }
        if matches!(spec.network, NetworkMode::Host | NetworkMode::None)
            && (!spec.published_ports.is_empty() || spec.publish_all)
        {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        if !spec.stop_signal.is_empty() && signal::parse(&spec.stop_signal).is_none() {
            return Err(Error::invalid(format!(
                "invalid signal: {}",
                spec.stop_signal
            )));
        }
        if let Some(adjustment) = spec.oom_score_adj
            && !(-1000..=1000).contains(&adjustment)
        {
            return Err(Error::invalid(format!(
                "Invalid value {adjustment}, range for oom score adj is [-1000, 1000]"
            )));
        }
        let wanted = user_namespace::wanted(spec, &self.options)?;
        if let Some(mount) = spec.mounts.iter().find(|mount| mount.idmap) {
            if matches!(mount.source, MountSource::Tmpfs { .. }) {
                return Err(Error::invalid(
                    "idmap is for volumes and binds, not for a tmpfs",
                ));
            }
            if wanted == Wanted::Host {
                return Err(Error::invalid(format!(
                    "idmap of {}: the container has no user ids of its own to map to; use --userns auto",
                    mount.destination
                )));
            }
        }
        if wanted != Wanted::Host {
            self.check_own_ids()?;
        }
        warnings.extend(super::rootless::warnings(spec, &self.options));
        Ok(warnings)
    }
}

/// Checks the name of a container.
///
/// # Errors
/// In Docker's words.
pub fn check_name(name: &str) -> Result<()> {
    if id::is_object_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

fn with_tag(image: &str) -> String {
    gamut_spec::reference::Reference::parse(image)
        .map_or_else(|_| image.to_owned(), |reference| reference.familiar())
}

/// What the image says and the user did not.
fn adopt_image_defaults(spec: &mut ContainerSpec, image: &Image) {
    let config = &image.config.config;
    for port in config.exposed_ports.keys() {
        if let Some(port) = parse_port(port) {
            spec.exposed_ports.insert(port);
        }
    }
    for published in &spec.published_ports {
        spec.exposed_ports.insert(published.container);
    }
    for path in config.volumes.keys() {
        spec.anonymous_volumes.insert(path.clone());
    }
    for (key, value) in &config.labels {
        spec.labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    if spec.stop_signal.is_empty() {
        spec.stop_signal.clone_from(&config.stop_signal);
    }
    if spec.stop_timeout_seconds.is_none() {
        spec.stop_timeout_seconds = config.stop_timeout;
    }
}

/// A container may lend its IPC namespace only if it was made for that.
pub(super) fn check_shareable(donor: &Container) -> Result<()> {
    donor.read(|record| match record.spec.ipc_mode {
        IpcMode::Shareable | IpcMode::Host => Ok(()),
        IpcMode::Private | IpcMode::None | IpcMode::Container(_) => Err(Error::conflict(format!(
            "cannot join IPC of container {}: non-shareable IPC (hint: use --ipc shareable for the donor container)",
            record.name
        ))),
    })
}

/// `80`, `80/tcp`.
fn parse_port(text: &str) -> Option<super::spec::Port> {
    use super::spec::{Port, Protocol};
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some(Port {
        number: number.parse().ok()?,
        protocol,
    })
}

fn resolve_process(spec: &ContainerSpec, image: &Image) -> Result<ResolvedProcess> {
    let config = &image.config.config;
    // An entry point of one's own takes the image's command out of force.
    let (entrypoint, default_command) = match &spec.entrypoint {
        Some(own) => (own.clone(), None),
        None => (
            config.entrypoint.clone().unwrap_or_default(),
            config.cmd.clone(),
        ),
    };
    let command = spec
        .command
        .clone()
        .filter(|words| !words.is_empty())
        .or(default_command);
    let mut args: Vec<String> = entrypoint
        .iter()
        .filter(|word| !word.is_empty())
        .cloned()
        .collect();
    let entrypoint_length = args.len();
    args.extend(command.unwrap_or_default());
    if args.is_empty() {
        return Err(Error::invalid("No command specified"));
    }
    let mut environment = config.env.clone();
    oci::merge_environment(&mut environment, &spec.environment);
    let own_or = |own: &str, image: &str| if own.is_empty() { image } else { own }.to_owned();
    let working_directory = own_or(&spec.working_directory, &config.working_dir);
    if !working_directory.is_empty() && !working_directory.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{working_directory}' is invalid, it needs to be an absolute path"
        )));
    }
    let default_stop_signal = if systemd::is_wanted(spec, &args)? {
        systemd::STOP_SIGNAL
    } else {
        signal::TERM
    };
    Ok(ResolvedProcess {
        args,
        entrypoint_length,
        environment,
        working_directory,
        user: own_or(&spec.user, &config.user),
        stop_signal: signal::parse(&spec.stop_signal).unwrap_or(default_stop_signal),
    })
}

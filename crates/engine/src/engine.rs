//! The engine itself: what it holds, and how it is opened.

use crate::container::apparmor::AppArmor;
use crate::container::capabilities;
use crate::container::exec::ExecRecord;
use crate::container::index::Index;
use crate::container::record::{ContainerRecord, RECORD_VERSION};
use crate::container::security::SecurityOptions;
use crate::container::user_namespace::IdRange;
use crate::error::{Error, Result};
use crate::events::EventLog;
use crate::networking::Networking;
use crate::options::Options;
use crate::snapshotter::Snapshotter;
use crate::store::{self, Collection, Damaged};
use crate::volume::Volumes;
use gamut_image::ImageStore;
use gamut_isolation::container::{ContainerLevel, ContainerOptions};
use gamut_isolation::{Context, Isolation, Levels, UnikernelLevel};
use gamut_spec::id_map::IdMap;
use gamut_spec::isolation::IsolationLevel;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::runtime::Handle;

/// On whose behalf a call is made.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Id of the API request, for logs.
    pub request_id: String,
    /// User id of the API's peer.
    pub peer_uid: u32,
    /// The client's own name (User-Agent).
    pub client: String,
    /// Set when the caller has hung up.
    pub cancelled: Arc<AtomicBool>,
}

impl Caller {
    /// The engine acting for itself.
    #[must_use]
    pub fn engine(reason: &str) -> Self {
        Self {
            request_id: reason.to_owned(),
            client: "gamut daemon".to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn context(&self, deadline: Option<Instant>) -> Context {
        Context {
            request_id: self.request_id.clone(),
            peer_uid: self.peer_uid,
            deadline,
            cancelled: Arc::clone(&self.cancelled),
        }
    }
}

/// The engine. All methods are thread-safe and, unless async, may block.
pub struct Engine {
    pub(crate) options: Options,
    pub(crate) runtime: Handle,
    pub(crate) index: Index,
    pub(crate) store: Collection,
    pub(crate) volumes: Volumes,
    pub(crate) volume_holders: crate::volume_mount::Holders,
    pub(crate) images: ImageStore,
    pub(crate) networking: Networking,
    pub(crate) events: EventLog,
    pub(crate) levels: Levels,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) execs: Mutex<BTreeMap<String, ExecRecord>>,
    pub(crate) probes: crate::health::Probes,
    pub(crate) exec_changes: tokio::sync::watch::Sender<u64>,
    pub(crate) held_capabilities: u64,
    pub(crate) apparmor: AppArmor,
    pub(crate) boot_id: String,
    pub(crate) hostname: String,
    /// Ranges of ids on their way into a record.
    pub(crate) leasing: Mutex<Vec<IdRange>>,
    /// The groups that exist for this process.
    pub(crate) groups: IdMap,
    pub(crate) id: String,
    pub(crate) started_ns: u64,
    /// Records found damaged when the engine was opened.
    pub(crate) damaged: Mutex<Vec<Damaged>>,
    /// Held for life: one engine per data root.
    _lock: File,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens the engine: takes the lock, reads the records, joins them with what runs, and starts
    /// again what should run.
    ///
    /// # Errors
    /// If another engine has the data root, or the system does not allow what is needed; each
    /// message says what to do.
    pub fn open(options: Options, runtime: Handle) -> Result<Arc<Self>> {
        options.log.check()?;
        let data_root = &options.data_root;
        for (directory, mode) in [
            (data_root.clone(), 0o710),
            (data_root.join("containers"), 0o710),
            (data_root.join("state"), 0o700),
            (options.run_root.clone(), 0o711),
        ] {
            make_directory(&directory, mode)?;
        }
        let lock = store::lock(data_root)?;
        let state_root = data_root.join("state");
        let (volumes, mut damaged) = Volumes::open(data_root, &state_root)?;
        let store = Collection::open(&state_root, "container", RECORD_VERSION)?;
        store.sweep()?;
        let (records, damaged_containers) = store.load::<ContainerRecord>()?;
        damaged.extend(damaged_containers);
        for Damaged { path, problem } in &damaged {
            tracing::error!(path = %path.display(), problem, "a record cannot be read; see `gamut system fsck`");
        }
        let snapshotter = match options.storage_driver {
            Some(chosen) => chosen,
            None => Snapshotter::detect(data_root)?,
        };
        gamut_image::RegistrySettings::load(&options.registries)
            .map_err(|error| crate::image_use::failed(&error))?;
        let images = ImageStore::open(&data_root.join("images"))
            .map_err(|source| Error::system("open the image store", source))?;
        let id = engine_id(data_root)?;
        let (networking, damaged_networks) = Networking::open(&options, &state_root, &id)?;
        for Damaged { path, problem } in &damaged_networks {
            tracing::error!(path = %path.display(), problem, "a network's record cannot be read; see `gamut system fsck`");
        }
        damaged.extend(damaged_networks);
        let container_level = Arc::new(ContainerLevel::new(ContainerOptions {
            run_root: options.run_root.clone(),
            supervisor: options.supervisor.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            without_groups: options.without_groups.clone(),
        })?);
        let mut levels = Levels::new();
        if let Some(monitor) = &options.monitor {
            let containers = Arc::clone(&container_level);
            let level = UnikernelLevel::new(containers, &options.run_root, monitor.clone())?;
            levels.insert(Arc::new(level));
        }
        levels.insert(container_level);
        let engine = Arc::new(Self {
            id,
            runtime,
            index: Index::default(),
            store,
            volumes,
            volume_holders: crate::volume_mount::Holders::default(),
            images,
            networking,
            events: EventLog::default(),
            levels,
            snapshotter,
            execs: Mutex::default(),
            probes: crate::health::Probes::default(),
            exec_changes: tokio::sync::watch::Sender::new(0),
            held_capabilities: capabilities::held()
                .map_err(|source| Error::system("read the engine's capabilities", source))?,
            apparmor: AppArmor::set_up(options.rootless.is_some()),
            boot_id: read_word("/proc/sys/kernel/random/boot_id"),
            hostname: read_word("/proc/sys/kernel/hostname"),
            leasing: Mutex::default(),
            groups: IdMap::parse(&read_word("/proc/self/gid_map")),
            started_ns: gamut_spec::time::now_ns(),
            damaged: Mutex::new(damaged),
            options,
            _lock: lock,
        });
        engine.reconcile(records)?;
        engine.watch_firewall();
        engine.thaw_after_commits();
        Ok(engine)
    }

    /// How the engine was set up.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Number of containers that run.
    #[must_use]
    pub fn live_count(&self) -> usize {
        let all = self.index.all();
        all.iter().filter(|one| one.phase().is_live()).count()
    }

    /// The user id outside of one that the kernel reports to this process: in a user namespace
    /// these differ.
    #[must_use]
    pub fn outside_uid(&self, uid: u32) -> u32 {
        match &self.options.rootless {
            Some(rootless) if uid == 0 => rootless.uid,
            _ => uid,
        }
    }

    /// The engine's own id, made once per data root.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When this daemon started, in nanoseconds since the epoch.
    #[must_use]
    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// The image store, for reading. Changes go through the engine's own methods.
    #[must_use]
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// The networks with their addresses and ports.
    #[must_use]
    pub fn networking(&self) -> &Networking {
        &self.networking
    }

    /// What happened, and what happens.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// The AppArmor profile that a container's program runs under; empty if there is none.
    #[must_use]
    pub fn apparmor_profile(&self, record: &ContainerRecord) -> String {
        SecurityOptions::parse(&record.spec.security_options)
            .ok()
            .and_then(|options| {
                let profile = self
                    .apparmor
                    .profile(&options.apparmor, record.spec.privileged);
                profile.map(str::to_owned)
            })
            .unwrap_or_default()
    }

    /// The levels of isolation that this engine offers.
    #[must_use]
    pub fn levels(&self) -> Vec<IsolationLevel> {
        self.levels.iter().map(|level| level.level()).collect()
    }

    pub(crate) fn level(&self, level: IsolationLevel) -> Result<&Arc<dyn Isolation>> {
        Ok(self.levels.get(level)?)
    }

    /// Directory with a container's writable layer, log and generated files.
    #[must_use]
    pub fn container_directory(&self, id: &str) -> PathBuf {
        self.options.data_root.join("containers").join(id)
    }

    /// Path of a container's newest log file.
    #[must_use]
    pub fn container_log_path(&self, id: &str) -> PathBuf {
        self.container_directory(id).join("log")
    }

    pub(crate) fn lock_execs(&self) -> MutexGuard<'_, BTreeMap<String, ExecRecord>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_damaged(&self) -> MutexGuard<'_, Vec<Damaged>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|source| Error::system(format!("make the directory {}", path.display()), source))
}

fn read_word(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn engine_id(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    let known = read_word(&path.to_string_lossy());
    if gamut_spec::id::is_id(&known) {
        return Ok(known);
    }
    let id =
        gamut_spec::id::random().map_err(|source| Error::system("make the engine's id", source))?;
    fs::write(&path, format!("{id}\n"))
        .map_err(|source| Error::system(format!("write {}", path.display()), source))?;
    Ok(id)
}

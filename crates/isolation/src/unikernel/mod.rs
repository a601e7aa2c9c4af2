//! The level `unikernel`: a program linked with its operating system, on a machine of its own.
//!
//! Each machine belongs to a monitor in a jail, and **the jail is a container whose only process
//! is the monitor** ([`jail`]). So this level is a translation in front of [`ContainerLevel`]: log,
//! exit status, restarts, signals, freezing, limits, statistics, events and what happens after a
//! kill are the same code, not a second one.

mod addresses;
mod blocks;
mod directory;
mod find;
mod jail;
mod refusals;
mod resolver;
#[cfg(test)]
mod tests;

pub use blocks::{BLOCK_FILE, DEFAULT_BLOCK_BYTES, Directory as BlockDirectory};
pub use directory::{Directory as JailDirectory, Record as JailRecord};
pub use jail::{
    ACCELERATOR_ANNOTATION, DEFAULT_MEMORY_BYTES, Host, Jail, KVM_ALLOWANCE_BYTES, Places,
    TCG_ALLOWANCE_BYTES, jail,
};

use crate::container::ContainerLevel;
use crate::contract::{
    Context, Endpoint, Events, ExecSpec, Feature, Isolation, Loan, RootSource, SandboxSpec,
    Started, WorkloadSpec,
};
use crate::error::{Error, Refusal};
use directory::{Directories, Record};
use gamut_abi::control::{Attach, RestartPolicy};
use gamut_abi::guest::elf::unikernel_note;
use gamut_abi::guest::note::Note;
use gamut_abi::guest::solo5;
use gamut_abi::monitor::Accelerator;
use gamut_abi::plan::TerminalSize;
use gamut_abi::resources::{Limit, Memory, Resources};
use gamut_abi::status::Status;
use gamut_cgroup::Stats;
use gamut_spec::form::ImageForm;
use gamut_spec::isolation::IsolationLevel;
pub use refusals::{EXEC, MEMORY_UPDATE, TOP};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the name of a program's read-only file system has behind the program's: `/unikernel.rofs`
/// belongs to `/unikernel`.
const FILES_SUFFIX: &str = ".rofs";

/// Largest ELF file that is read for its note, in bytes.
const MAX_PROGRAM_BYTES: u64 = 256 << 20;

/// How much of a program is read to tell what it is, in bytes. Linkers put notes first.
const GLANCE_BYTES: u64 = 64 << 10;

/// How long a connection may take whose caller sets no deadline.
const DIAL_LIMIT: Duration = Duration::from_secs(60);

/// Unikernels.
#[derive(Debug)]
pub struct UnikernelLevel {
    containers: Arc<ContainerLevel>,
    directories: Directories,
    monitor: PathBuf,
    host: Host,
    /// Addresses of prepared sandboxes in which nothing has been created yet.
    addresses: Mutex<HashMap<String, Vec<IpAddr>>>,
}

/// Whether a program of a root is a unikernel. Of most others only the beginning is read: this is
/// asked before every start by whoever knows nothing of levels.
#[must_use]
pub fn is_unikernel(root: &RootSource, program: &str) -> bool {
    let mut bytes = Vec::new();
    let Ok(mut file) = find::program(root, program).and_then(File::open) else {
        return false;
    };
    let read = (&mut file).take(GLANCE_BYTES).read_to_end(&mut bytes);
    if read.is_err() {
        return false;
    }
    // Images of Solo5 have their notes behind their code.
    if solo5::is_beginning(&bytes) {
        return true;
    }
    match unikernel_note(&bytes) {
        Ok(_) => true,
        // It has notes, but farther on.
        Err(error) if error.field == "p_offset" => {
            let read = file.take(MAX_PROGRAM_BYTES).read_to_end(&mut bytes);
            read.is_ok() && unikernel_note(&bytes).is_ok()
        }
        Err(_) => false,
    }
}

/// A unikernel in a root.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its ELF file on the host.
    pub image: PathBuf,
    /// The image of its read-only file system on the host, if it has one.
    pub files: Option<PathBuf>,
    /// What it says of itself.
    pub note: Note,
}

/// Finds a unikernel in a root.
///
/// # Errors
/// [`Error::ExecutableNotFound`] and [`Error::ExecutableDenied`], as for any other program;
/// [`Error::System`] if its files cannot be read.
pub fn find_program(root: &RootSource, program: &str) -> Result<Program, Error> {
    let path = find::program(root, program).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::ExecutableNotFound(format!("exec: {program:?}: no such file or directory"))
        }
        _ => Error::ExecutableDenied(format!("exec: {program:?}: permission denied: {error}")),
    })?;
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_PROGRAM_BYTES).read_to_end(&mut bytes))
        .map_err(|error| Error::System {
            operation: "read the unikernel",
            id: path.display().to_string(),
            source: error.into(),
        })?;
    match unikernel_note(&bytes) {
        Ok(note) => Ok(Program {
            image: path,
            files: find_files(root, program)?,
            note,
        }),
        Err(error) => Err(Error::ExecutableDenied(format!(
            "exec: {program:?}: exec format error: it is no unikernel: {error}"
        ))),
    }
}

/// The image of a unikernel's read-only file system in a root, if there is one.
fn find_files(root: &RootSource, program: &str) -> Result<Option<PathBuf>, Error> {
    match find::file(root, &format!("{program}{FILES_SUFFIX}")) {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::System {
            operation: "find the files of the unikernel",
            id: format!("{program}{FILES_SUFFIX}"),
            source: error.into(),
        }),
    }
}

impl Host {
    /// Looks at this host.
    #[must_use]
    pub fn read() -> Self {
        let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        // Something else may have been put there to hide it.
        let is_kvm = |file: File| {
            let numbers = file.metadata().map(|metadata| metadata.rdev());
            numbers.is_ok_and(|device| (libc::major(device), libc::minor(device)) == (10, 232))
        };
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse().unwrap_or(0));
        Self {
            has_kvm: opened.is_ok_and(is_kvm),
            has_tun: Path::new("/dev/net/tun").exists(),
            kernel: (
                numbers.next().unwrap_or_default(),
                numbers.next().unwrap_or_default(),
            ),
        }
    }
}

impl UnikernelLevel {
    /// What a unikernel cannot do or have.
    pub const REFUSALS: &[Refusal] = refusals::REFUSALS;

    /// Puts the level in front of one of containers; `run_root` is that one's.
    ///
    /// # Errors
    /// If the monitor's program is not there or the run root cannot be made.
    pub fn new(
        containers: Arc<ContainerLevel>,
        run_root: &Path,
        monitor: PathBuf,
    ) -> Result<Self, Error> {
        let fail = |operation: &'static str, object: &Path, error: io::Error| Error::System {
            operation,
            id: object.display().to_string(),
            source: error.into(),
        };
        fs::metadata(&monitor).map_err(|error| fail("find the monitor", &monitor, error))?;
        let directories = Directories::open(run_root)
            .map_err(|error| fail("make the run root", run_root, error))?;
        Ok(Self {
            containers,
            directories,
            monitor,
            host: Host::read(),
            addresses: Mutex::default(),
        })
    }

    fn lock_addresses(&self) -> MutexGuard<'_, HashMap<String, Vec<IpAddr>>> {
        // Whoever panicked while holding it: every entry is whole at all times.
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn create_jail(
        &self,
        context: &Context,
        workload: WorkloadSpec,
        directory: &directory::Directory,
    ) -> Result<Started, Error> {
        if workload.open_stdin {
            return Err(Error::Refused(refusals::STDIN));
        }
        let process = workload.config.process().as_ref();
        let program = process
            .and_then(|process| process.args().as_ref()?.first())
            .ok_or_else(|| Error::Invalid {
                field: "process.args".to_owned(),
                problem: "is empty; there is nothing to run".to_owned(),
            })?;
        let program = find_program(&workload.root, program)?;
        let places = Places {
            monitor: &self.monitor,
            image: &program.image,
            files: program.files.as_deref(),
            config: &directory.config(),
            status: &directory.status(),
            debug: &directory.debug(),
            resolv_conf: &directory.resolv_conf(),
        };
        let Jail {
            config,
            monitor,
            block_directories,
            resolv_conf,
            mut warnings,
        } = jail(&workload.config, &program.note, &places, self.host)?;
        for directory in &block_directories {
            directory.ready()?;
        }
        let addresses = self.lock_addresses().get(&workload.sandbox_id).cloned();
        let record = Record {
            addresses: addresses.unwrap_or_default(),
        };
        directory
            .make(&monitor, &record, resolv_conf.as_deref())
            .map_err(|error| Error::System {
                operation: "make the jail of",
                id: workload.id.clone(),
                source: error.into(),
            })?;
        let mut started = self.containers.create(
            context,
            WorkloadSpec {
                config,
                root: RootSource::Directory(directory.root()),
                user: None,
                additional_groups: Vec::new(),
                create_cwd: false,
                init: false,
                ..workload
            },
        )?;
        warnings.append(&mut started.warnings);
        Ok(Started {
            warnings,
            ..started
        })
    }

    fn forget(&self, id: &str) -> Result<(), Error> {
        self.lock_addresses().remove(id);
        self.directories
            .of(id)
            .remove()
            .map_err(|error| Error::System {
                operation: "remove the jail of",
                id: id.to_owned(),
                source: error.into(),
            })
    }
}

/// The signal of the monitor by which a signal's wish is granted.
///
/// # Errors
/// [`Error::Refused`] for signals that ask for nothing a unikernel can do.
pub fn signal_for_monitor(signal: i32) -> Result<i32, Error> {
    match signal {
        libc::SIGKILL => Ok(libc::SIGKILL),
        libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => Ok(libc::SIGTERM),
        _ => Err(Error::Refused(refusals::SIGNALS)),
    }
}

impl Isolation for UnikernelLevel {
    fn level(&self) -> IsolationLevel {
        IsolationLevel::Unikernel
    }

    fn refusals(&self) -> &'static [Refusal] {
        Self::REFUSALS
    }

    fn image_form(&self) -> ImageForm {
        ImageForm::Unikernel
    }

    fn admit(&self, wanted: &[Feature]) -> Result<Vec<String>, Error> {
        refusals::admit(wanted)
    }

    fn lend(&self, loan: Loan) -> Result<(), Error> {
        refusals::lend(loan)
    }

    fn describe(&self, id: &str) -> Result<BTreeMap<String, String>, Error> {
        let mut described = BTreeMap::new();
        if self
            .containers
            .status(id)?
            .is_some_and(|status| status.pid != 0)
            && let Some(machine) = self.directories.of(id).machine()
        {
            let accelerator = match machine.accelerator {
                Accelerator::Kvm => "kvm",
                Accelerator::Tcg => "tcg",
                Accelerator::Auto => "auto",
            };
            described.insert("Accelerator".to_owned(), accelerator.to_owned());
        }
        Ok(described)
    }

    fn prepare(&self, context: &Context, sandbox: SandboxSpec) -> Result<(), Error> {
        let addresses = match &sandbox.endpoint {
            Endpoint::Host => return Err(Error::Refused(refusals::HOST_NETWORK)),
            Endpoint::Workload(_) => return Err(Error::Refused(refusals::SHARED_NETWORK)),
            Endpoint::Namespace(namespace) => {
                addresses::of(namespace).map_err(|error| Error::System {
                    operation: "read the addresses of",
                    id: sandbox.id.clone(),
                    source: error.into(),
                })?
            }
        };
        let id = sandbox.id.clone();
        self.containers.prepare(context, sandbox)?;
        self.lock_addresses().insert(id, addresses);
        Ok(())
    }

    fn create(&self, context: &Context, workload: WorkloadSpec) -> Result<Started, Error> {
        // An id that cannot be the name of a directory is refused by this.
        if self.containers.status(&workload.id)?.is_some() || !crate::container::is_id(&workload.id)
        {
            return self.containers.create(context, workload);
        }
        let directory = self.directories.of(&workload.id);
        let sandbox_id = workload.sandbox_id.clone();
        let created = self.create_jail(context, workload, &directory);
        match &created {
            Ok(_) => {
                self.lock_addresses().remove(&sandbox_id);
            }
            Err(_) => {
                if let Err(error) = directory.remove() {
                    tracing::warn!(%error, "a failed create left something behind");
                }
            }
        }
        created
    }

    fn start(&self, context: &Context, id: &str) -> Result<Started, Error> {
        self.containers.start(context, id)
    }

    fn exec(
        &self,
        _: &Context,
        _: &str,
        _: ExecSpec,
        _: Option<OwnedFd>,
    ) -> Result<Started, Error> {
        Err(Error::Refused(EXEC))
    }

    fn signal(
        &self,
        context: &Context,
        id: &str,
        exec_id: Option<&str>,
        signal: i32,
        all: bool,
    ) -> Result<(), Error> {
        if exec_id.is_some() {
            return Err(Error::Refused(EXEC));
        }
        let signal = signal_for_monitor(signal)?;
        self.containers.signal(context, id, None, signal, all)
    }

    fn stop(
        &self,
        context: &Context,
        id: &str,
        signal: i32,
        timeout_ms: Option<u64>,
    ) -> Result<(), Error> {
        // Whatever asks a program on Linux to end asks this one as well.
        let signal = signal_for_monitor(signal).unwrap_or(libc::SIGTERM);
        self.containers.stop(context, id, signal, timeout_ms)
    }

    fn resize(&self, _: &Context, _: &str, _: Option<&str>, _: TerminalSize) -> Result<(), Error> {
        Err(Error::Refused(refusals::TERMINAL))
    }

    fn pause(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.containers.pause(context, id)
    }

    fn resume(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.containers.resume(context, id)
    }

    fn update(
        &self,
        context: &Context,
        id: &str,
        resources: Option<Resources>,
        restart: Option<RestartPolicy>,
    ) -> Result<(), Error> {
        let resources = match resources {
            Some(mut resources) => {
                let limit = resources.memory.max_bytes.take();
                let memory_bytes = self.directories.of(id).memory_bytes();
                if limit.is_some_and(|limit| Some(limit) != memory_bytes.map(Limit::Value)) {
                    return Err(Error::Refused(MEMORY_UPDATE));
                }
                // The rest of what is told about memory, and tasks, is the monitor's.
                resources.memory = Memory::default();
                resources.pids_max = None;
                Some(resources)
            }
            None => None,
        };
        self.containers.update(context, id, resources, restart)
    }

    fn attach(
        &self,
        context: &Context,
        id: &str,
        attach: Attach,
        stream: OwnedFd,
    ) -> Result<(), Error> {
        self.containers.attach(context, id, attach, stream)
    }

    fn dial(&self, context: &Context, id: &str, port: u16) -> Result<TcpStream, Error> {
        let not_found = || Error::NotFound {
            object: "workload",
            id: id.to_owned(),
        };
        let status = self.status(id)?.ok_or_else(not_found)?;
        if status.pid == 0 {
            return Err(Error::State {
                operation: "connect to",
                id: id.to_owned(),
                reason: "it is not running".to_owned(),
            });
        }
        let within = context.deadline.map_or(DIAL_LIMIT, |due| {
            due.saturating_duration_since(Instant::now())
        });
        // The kernel's own stack in there has given its addresses to the guest: from outside then.
        self.directories
            .of(id)
            .read()
            .and_then(|record| {
                let addresses = record.unwrap_or_default().addresses;
                let is_there = || matches!(self.status(id), Ok(Some(status)) if status.pid != 0);
                addresses::dial(&addresses, port, within, is_there)
            })
            .map_err(|error| Error::System {
                operation: "connect to",
                id: id.to_owned(),
                source: error.into(),
            })
    }

    fn debug(&self, _: &Context, id: &str) -> Result<UnixStream, Error> {
        let status = self.status(id)?.ok_or_else(|| Error::NotFound {
            object: "workload",
            id: id.to_owned(),
        })?;
        if status.pid == 0 {
            return Err(Error::State {
                operation: "debug",
                id: id.to_owned(),
                reason: "it is not running".to_owned(),
            });
        }
        let connected = self.directories.of(id).connect_debugger();
        connected.map_err(|error| match error.kind() {
            // On QEMU's translator there is none.
            io::ErrorKind::NotFound => Error::Refused(refusals::DEBUG),
            _ => Error::System {
                operation: "connect a debugger to",
                id: id.to_owned(),
                source: error.into(),
            },
        })
    }

    fn stats(&self, context: &Context, id: &str) -> Result<Stats, Error> {
        self.containers.stats(context, id)
    }

    fn processes(&self, _: &Context, _: &str) -> Result<Vec<u32>, Error> {
        Err(Error::Refused(TOP))
    }

    fn root(&self, _: &Context, _: &str) -> Result<OwnedFd, Error> {
        Err(Error::Refused(refusals::COPY))
    }

    fn checkpoint(&self, _: &Context, _: &str, _: &Path) -> Result<(), Error> {
        Err(Error::Refused(refusals::CHECKPOINT))
    }

    fn status(&self, id: &str) -> Result<Option<Status>, Error> {
        self.containers.status(id)
    }

    fn watch(&self, context: &Context, id: &str) -> Result<Box<dyn Events>, Error> {
        self.containers.watch(context, id)
    }

    fn list(&self) -> Result<Vec<String>, Error> {
        // Their sandboxes are listed by the level of containers, which removes them as well.
        self.directories.list().map_err(|error| Error::System {
            operation: "list",
            id: "unikernels".to_owned(),
            source: error.into(),
        })
    }

    fn delete(&self, context: &Context, id: &str) -> Result<(), Error> {
        self.containers.delete(context, id)?;
        if crate::container::is_id(id) {
            self.forget(id)?;
        }
        Ok(())
    }
}

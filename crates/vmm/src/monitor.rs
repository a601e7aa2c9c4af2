//! The monitor as a process: from its configuration to the exit code of its guest.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use gamut_abi::guest::EXIT_MACHINE;
use gamut_abi::guest::solo5::Manifest;
use gamut_abi::monitor::{Accelerator, MONITOR_CONFIG_VERSION, MachineStatus, MonitorConfig};

use crate::block::FileDisk;
use crate::config_text::{self, NameFiles};
use crate::control::{self, Control};
use crate::debug::{Attended, Debugging};
use crate::device::{Devices, Disk, Nic};
use crate::ending::{Ending, Fault};
use crate::error::{Error, ImageError, Result};
use crate::kvm::KvmMachine;
use crate::machine::{Guest, Own};
use crate::memory::{FileView, map_file_for_reading};
use crate::net::question::RESOLVER;
use crate::net::{self, Tap};
use crate::prepare::{Image, prepare};
use crate::report::{RIP, Scene, report};
use crate::solo5::{self, Attached};
use crate::wait::Poller;
use crate::{jail, signals, tcg};

/// Largest image whose symbols are read for a report.
const MAX_SYMBOL_FILE_BYTES: u64 = 256 << 20;

/// Whose messages and exit codes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Our own.
    Gamut,
    /// Those of Solo5's monitor.
    Solo5,
}

impl Manners {
    fn name(self) -> &'static str {
        match self {
            Self::Gamut => "gamut-monitor",
            Self::Solo5 => "solo5-hvt",
        }
    }

    /// Exit code of a failure that is not the guest's.
    fn failure(self) -> i32 {
        match self {
            Self::Gamut => i32::try_from(EXIT_MACHINE).unwrap_or(1),
            Self::Solo5 => 1,
        }
    }

    fn exit_code(self, ending: &Ending) -> i32 {
        match (self, ending) {
            (Self::Gamut, _) | (_, Ending::Exited(_)) => ending.exit_code(),
            (Self::Solo5, _) => self.failure(),
        }
    }

    /// Exit code of a guest that a signal has ended.
    fn killed(self) -> i32 {
        match self {
            Self::Gamut => 128 + libc::SIGTERM,
            Self::Solo5 => self.failure(),
        }
    }
}

/// Runs the machine that a configuration file describes; ends with the guest's exit code.
#[must_use]
pub fn main(config_path: &str) -> i32 {
    run_assembled(Manners::Gamut, |control| assemble(config_path, control))
}

/// Makes a machine and runs it; ends with the guest's exit code.
pub(crate) fn run_assembled(
    manners: Manners,
    assemble: impl FnOnce(&Arc<Control>) -> Result<Assembly>,
) -> i32 {
    match start(manners, assemble) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("{}: {error}\n", manners.name()));
            manners.failure()
        }
    }
}

/// Says something on standard error. Nobody may listen any more.
pub(crate) fn tell(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn read_config(path: &str) -> Result<MonitorConfig> {
    let failed = |problem| Error::Config {
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read(path).map_err(|error| failed(format!("read: {error}")))?;
    let config: MonitorConfig =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    if config.version != MONITOR_CONFIG_VERSION {
        return Err(failed(format!(
            "version {}; this monitor knows {MONITOR_CONFIG_VERSION}: daemon and monitor are of \
             different releases",
            config.version
        )));
    }
    Ok(config)
}

/// The text of an optional file.
fn read_optional(path: Option<&String>) -> Result<String> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    let bytes =
        std::fs::read(path).map_err(|error| Error::system(format!("read {path}"), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn open(path: &str) -> Result<File> {
    File::open(path).map_err(|error| Error::system(format!("open {path}"), error))
}

/// Standard output, without a buffer: what the guest has said is said.
fn console() -> Result<File> {
    std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(|error| Error::system("open the console", error))
}

/// The file in which the monitor tells what the machine was made with.
struct StatusFile(Option<(String, File)>);

impl StatusFile {
    fn open(path: Option<String>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| Error::system(format!("open {path}"), error))?;
        Ok(Self(Some((path, file))))
    }

    fn write(self, accelerator: Accelerator) -> Result<()> {
        let Some((path, mut file)) = self.0 else {
            return Ok(());
        };
        serde_json::to_vec(&MachineStatus { accelerator })
            .map_err(std::io::Error::from)
            .and_then(|text| file.write_all(&text))
            .map_err(|error| Error::system(format!("write the machine's status to {path}"), error))
    }
}

/// Whether the translator is to be used.
fn is_translated(accelerator: Accelerator) -> bool {
    match accelerator {
        Accelerator::Kvm => false,
        Accelerator::Tcg => true,
        Accelerator::Auto => OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err(),
    }
}

/// A guest for which everything is done that takes privileges.
enum Ready {
    Own(Box<Own<KvmMachine>>),
    Translated(tcg::Setup),
}

/// All that is made before the privileges are given up.
pub(crate) struct Assembly {
    ready: Ready,
    status: StatusFile,
    image_file: File,
    /// The guest cannot be asked to stop: a signal ends it.
    is_deaf: bool,
    debugging: Option<Debugging>,
    /// Where the state of a guest goes that has aborted.
    core_file: Option<File>,
}

impl Assembly {
    /// The same, whose guest leaves a core file when it aborts.
    pub(crate) fn with_core_file(self, core_file: Option<File>) -> Self {
        Self { core_file, ..self }
    }
}

/// An image's file, opened and mapped.
pub(crate) struct ImageFile {
    file: File,
    /// What it holds.
    pub view: FileView,
}

/// Opens the file of an image.
pub(crate) fn open_image(path: &str) -> Result<ImageFile> {
    let file = open(path)?;
    let size = file
        .metadata()
        .map_err(|error| Error::system(format!("look at {path}"), error))?
        .len();
    let view = map_file_for_reading(&file, usize::try_from(size).unwrap_or(0))?;
    Ok(ImageFile { file, view })
}

/// The manifest of an image, if it is one of Solo5.
pub(crate) fn solo5_manifest(path: &str, file: &[u8]) -> Result<Option<Manifest>> {
    gamut_abi::guest::solo5::manifest(file).map_err(|error| Error::Image {
        path: path.to_owned(),
        problem: error,
    })
}

/// The machine of an image of Solo5.
pub(crate) fn assemble_solo5(
    path: &str,
    image: ImageFile,
    attached: Attached,
    command_line: &str,
    memory_bytes: Option<u64>,
    control: &Arc<Control>,
) -> Result<Assembly> {
    let Attached {
        manifest,
        taps,
        disks,
    } = attached;
    let file = image.view.bytes();
    let prepared = solo5::prepare(path, file, &manifest, command_line, memory_bytes)?;
    let guest = solo5::Guest::new(&manifest);
    let machine = KvmMachine::start_solo5(prepared, guest, Arc::clone(control))?;
    Ok(Assembly {
        ready: Ready::Own(Box::new(Own {
            devices: devices(&machine, taps, disks, control)?,
            machine,
        })),
        status: StatusFile(None),
        image_file: image.file,
        is_deaf: true,
        debugging: None,
        core_file: None,
    })
}

fn devices(
    machine: &KvmMachine,
    taps: Vec<Tap>,
    disks: Vec<FileDisk>,
    control: &Arc<Control>,
) -> Result<Devices> {
    let mut poller = Poller::new(Arc::clone(control), taps.iter().map(Tap::descriptor));
    for (index, tap) in taps.iter().enumerate() {
        poller = poller.with_more(index, tap.answer_descriptors());
    }
    Ok(Devices {
        clock: Box::new(machine.clock(None)?),
        waiter: Box::new(poller),
        nics: taps
            .into_iter()
            .map(|tap| Box::new(tap) as Box<dyn Nic>)
            .collect(),
        disks: disks
            .into_iter()
            .map(|disk| Box::new(disk) as Box<dyn Disk>)
            .collect(),
        console: Box::new(console()?),
        next_nic: 0,
    })
}

fn assemble(config_path: &str, control: &Arc<Control>) -> Result<Assembly> {
    let config = read_config(config_path)?;
    let path = &config.image_path;
    let image_file = open_image(path)?;
    let debug_path = config.debug_socket_path.as_deref();
    let debugging = debug_path.map(Debugging::open).transpose()?;
    let status = StatusFile::open(config.status_path.clone())?;
    let names = NameFiles {
        resolv_conf: read_optional(config.resolv_conf_path.as_ref())?,
        hosts: read_optional(config.hosts_path.as_ref())?,
    };
    let asks_resolver = names.names_server(RESOLVER.into());
    if let Some(manifest) = solo5_manifest(path, image_file.view.bytes())? {
        if is_translated(config.accelerator) {
            return Err(Error::Image {
                path: path.clone(),
                problem: ImageError::new(
                    "note",
                    "an image of Solo5 needs /dev/kvm, which cannot be opened here: it has no \
                     PVH entry for QEMU",
                ),
            });
        }
        if config.rofs_path.is_some() {
            return Err(Error::Image {
                path: path.clone(),
                problem: ImageError::new(
                    "read-only file system",
                    "images of Solo5 have none; take its file out of the image",
                ),
            });
        }
        let taps = net::open_all(asks_resolver)?;
        let attached = solo5::attach_by_config(path, manifest, taps, &config.blocks)?;
        let arguments = config.args.get(1..).unwrap_or_default().join(" ");
        let bytes = config.memory_bytes;
        let assembly = assemble_solo5(path, image_file, attached, &arguments, bytes, control)?;
        return Ok(Assembly {
            status,
            debugging,
            ..assembly
        });
    }
    let view = &image_file.view;
    let refused = |problem| Error::Image {
        path: path.clone(),
        problem,
    };
    let image = Image::parse(view.bytes()).map_err(refused)?;
    let disks = config
        .blocks
        .iter()
        .map(FileDisk::open)
        .collect::<Result<Vec<_>>>()?;
    let taps = net::open_all(asks_resolver)?;
    image
        .check_devices(taps.len(), disks.len())
        .map_err(refused)?;
    let nics: Vec<_> = taps.iter().map(|tap| tap.config.clone()).collect();
    let disk_bytes: Vec<u64> = disks.iter().map(Disk::bytes).collect();
    let text = config_text::build(&config, &nics, &disk_bytes, &names).map_err(|problem| {
        Error::Config {
            path: config_path.to_owned(),
            problem,
        }
    })?;
    let rofs = config.rofs_path.as_deref().map(open).transpose()?;
    let ready = if is_translated(config.accelerator) {
        let scratch = config
            .scratch_path
            .as_deref()
            .ok_or_else(|| Error::Config {
                path: config_path.to_owned(),
                problem: "scratchPath: is missing; without /dev/kvm the guest runs in QEMU, which \
                      needs a directory for what it reads"
                    .to_owned(),
            })?;
        let wanted = tcg::Wanted {
            path,
            file: view.bytes(),
            image: &image,
            config_text: &text,
            memory_bytes: config.memory_bytes,
            rofs,
            scratch: Path::new(scratch),
        };
        Ready::Translated(tcg::Setup::prepare(wanted, taps, disks)?)
    } else {
        let prepared = prepare(
            path,
            view.bytes(),
            &image,
            &text,
            config.memory_bytes,
            rofs.as_ref(),
        )?;
        let machine = KvmMachine::start(prepared, Arc::clone(control))?;
        Ready::Own(Box::new(Own {
            devices: devices(&machine, taps, disks, control)?,
            machine,
        }))
    };
    Ok(Assembly {
        ready,
        status,
        image_file: image_file.file,
        is_deaf: false,
        debugging,
        core_file: None,
    })
}

fn start(
    manners: Manners,
    assemble: impl FnOnce(&Arc<Control>) -> Result<Assembly>,
) -> Result<i32> {
    let control = Arc::new(Control::new()?);
    control::install_kick_handler()?;
    let signals = signals::block()?;
    let Assembly {
        ready,
        status,
        image_file,
        is_deaf,
        debugging,
        core_file,
    } = assemble(&control)?;
    let mut guest: Box<dyn Guest> = match ready {
        Ready::Own(own) => {
            let link = debugging.as_ref().map(Debugging::link);
            let symbols = image_file
                .try_clone()
                .map_err(|error| Error::system("duplicate the image's descriptor", error))?;
            let attended = Attended::new(*own, Arc::clone(&control), link, symbols);
            Box::new(attended.with_core_file(core_file))
        }
        // What it is not to have is given up before there is another process.
        Ready::Translated(setup) => {
            jail::enter_with_qemu()?;
            Box::new(setup.start(Arc::clone(&control))?)
        }
    };
    status.write(guest.accelerator())?;
    match guest.accelerator() {
        Accelerator::Tcg => jail::enter_beside_qemu()?,
        // A debugger at a time, and one that is about to go.
        Accelerator::Auto | Accelerator::Kvm => {
            jail::enter_but_for_descriptors(if debugging.is_some() { 2 } else { 0 })?;
        }
    }
    let processor = std::thread::Builder::new()
        .name("vcpu".to_owned())
        .spawn(move || {
            let confined = match guest.accelerator() {
                Accelerator::Tcg => jail::confine_translator_thread(),
                Accelerator::Auto | Accelerator::Kvm => jail::confine_processor_thread(),
            };
            let code = match confined {
                Ok(()) => run(guest.as_mut(), &image_file, manners),
                Err(error) => {
                    tell(&format!("{}: {error}\n", manners.name()));
                    manners.failure()
                }
            };
            std::process::exit(code);
        })
        .map_err(|error| Error::system("start the processor's thread", error))?;
    drop(processor);
    if let Some(debugging) = debugging {
        watch_debuggers(debugging, Arc::clone(&control))?;
    }
    jail::confine_main_thread()?;
    loop {
        signals.wait();
        if is_deaf {
            tell(&format!("{}: ended by a signal\n", manners.name()));
            std::process::exit(manners.killed());
        }
        control.stop();
    }
}

fn watch_debuggers(debugging: Debugging, control: Arc<Control>) -> Result<()> {
    std::thread::Builder::new()
        .name("debugger".to_owned())
        .spawn(move || match jail::confine_debugger_thread() {
            Ok(()) => debugging.watch(&control),
            Err(error) => tell(&format!("gamut-monitor: no debugging: {error}\n")),
        })
        .map(drop)
        .map_err(|error| Error::system("start the debugger's thread", error))
}

/// Runs the guest to its end: its exit code.
fn run(guest: &mut dyn Guest, image_file: &File, manners: Manners) -> i32 {
    let ending = guest.run();
    if !matches!(ending, Ending::Exited(_)) {
        if manners == Manners::Solo5 && is_translation_fault(&ending) {
            let rip = guest.registers().get(RIP);
            tell(&format!(
                "solo5-hvt: host/guest translation fault: rip={rip:#x}\n"
            ));
        }
        let image = read_symbols(image_file).unwrap_or_default();
        let scene = Scene {
            registers: guest.registers(),
            frames: guest.frames(),
            layout: guest.layout(),
            image: &image,
        };
        if let Some(text) = report(&ending, &scene) {
            tell(&text);
        }
    }
    manners.exit_code(&ending)
}

/// An access to memory that is there, but not for this: what Solo5's monitor, whose pages of the
/// host have these rights, cannot go on with.
fn is_translation_fault(ending: &Ending) -> bool {
    matches!(
        ending,
        Ending::Fault(Fault::Exception { vector: 14, error_code, .. }) if error_code & 1 == 1
    )
}

/// The image again, for its symbols: it was opened before, and mapping it is forbidden by now.
fn read_symbols(file: &File) -> Option<Vec<u8>> {
    let bytes = file.metadata().ok()?.len();
    let mut image = vec![0; usize::try_from(bytes.min(MAX_SYMBOL_FILE_BYTES)).ok()?];
    file.read_exact_at(&mut image, 0).ok()?;
    Some(image)
}

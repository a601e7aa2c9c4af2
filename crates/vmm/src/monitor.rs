//! The monitor as a process: from its configuration to the exit code of its guest.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use gamut_abi::guest::EXIT_MACHINE;
use gamut_abi::monitor::{Accelerator, MONITOR_CONFIG_VERSION, MachineStatus, MonitorConfig};

use crate::block::FileDisk;
use crate::config_text::{self, NameFiles};
use crate::control::{self, Control};
use crate::device::{Devices, Disk, Nic};
use crate::ending::Ending;
use crate::error::{Error, Result};
use crate::kvm::KvmMachine;
use crate::machine::{Guest, Own};
use crate::memory::map_file_for_reading;
use crate::net::{self, Tap};
use crate::prepare::{Image, Prepared, prepare};
use crate::report::{Scene, report};
use crate::wait::Poller;
use crate::{jail, signals, tcg};

/// Largest image whose symbols are read for a report.
const MAX_SYMBOL_FILE_BYTES: u64 = 256 << 20;

/// Runs the machine that a configuration file describes; ends with the guest's exit code.
#[must_use]
pub fn main(config_path: &str) -> i32 {
    match start(config_path) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("gamut-monitor: {error}\n"));
            i32::try_from(EXIT_MACHINE).unwrap_or(1)
        }
    }
}

/// Says something on standard error. Nobody may listen any more.
fn tell(text: &str) {
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
    if config.debug_socket_path.is_some() {
        return Err(failed(
            "debugSocketPath: debugging is not supported yet".to_owned(),
        ));
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

/// A guest for which everything is done that takes privileges.
enum Ready {
    Own(Own<KvmMachine>),
    Translated(tcg::Setup),
}

impl Ready {
    /// Makes what runs, if need be after giving up what it is not to have.
    fn start(self, control: &Arc<Control>) -> Result<Box<dyn Guest>> {
        match self {
            Self::Own(guest) => Ok(Box::new(guest)),
            Self::Translated(setup) => {
                jail::enter_with_qemu()?;
                Ok(Box::new(setup.start(Arc::clone(control))?))
            }
        }
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

/// All that is made before the privileges are given up.
struct Assembly {
    ready: Ready,
    status: StatusFile,
    image_file: File,
}

fn assemble(config_path: &str, control: &Arc<Control>) -> Result<Assembly> {
    let config = read_config(config_path)?;
    let path = &config.image_path;
    let image_file = open(path)?;
    let size = image_file
        .metadata()
        .map_err(|error| Error::system(format!("look at {path}"), error))?
        .len();
    let view = map_file_for_reading(&image_file, usize::try_from(size).unwrap_or(0))?;
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
    let taps = net::open_all()?;
    image
        .check_devices(taps.len(), disks.len())
        .map_err(refused)?;
    let names = NameFiles {
        resolv_conf: read_optional(config.resolv_conf_path.as_ref())?,
        hosts: read_optional(config.hosts_path.as_ref())?,
    };
    let nics: Vec<_> = taps.iter().map(|tap| tap.config.clone()).collect();
    let disk_bytes: Vec<u64> = disks.iter().map(Disk::bytes).collect();
    let text = config_text::build(&config, &nics, &disk_bytes, &names).map_err(|problem| {
        Error::Config {
            path: config_path.to_owned(),
            problem,
        }
    })?;
    let rofs = config.rofs_path.as_deref().map(open).transpose()?;
    let status = StatusFile::open(config.status_path.clone())?;
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
        Ready::Own(own(prepared, taps, disks, control)?)
    };
    Ok(Assembly {
        ready,
        status,
        image_file,
    })
}

/// A guest on KVM, with devices of the monitor's.
fn own(
    prepared: Prepared,
    taps: Vec<Tap>,
    disks: Vec<FileDisk>,
    control: &Arc<Control>,
) -> Result<Own<KvmMachine>> {
    let machine = KvmMachine::start(prepared, Arc::clone(control))?;
    let devices = Devices {
        clock: Box::new(machine.clock(None)?),
        waiter: Box::new(Poller::new(
            Arc::clone(control),
            taps.iter().map(Tap::descriptor),
        )),
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
    };
    Ok(Own { machine, devices })
}

fn start(config_path: &str) -> Result<i32> {
    let control = Arc::new(Control::new()?);
    control::install_kick_handler()?;
    let signals = signals::block()?;
    let Assembly {
        ready,
        status,
        image_file,
    } = assemble(config_path, &control)?;
    let mut guest = ready.start(&control)?;
    status.write(guest.accelerator())?;
    match guest.accelerator() {
        Accelerator::Tcg => jail::enter_beside_qemu()?,
        Accelerator::Auto | Accelerator::Kvm => jail::enter()?,
    }
    let processor = std::thread::Builder::new()
        .name("vcpu".to_owned())
        .spawn(move || {
            let confined = match guest.accelerator() {
                Accelerator::Tcg => jail::confine_translator_thread(),
                Accelerator::Auto | Accelerator::Kvm => jail::confine_processor_thread(),
            };
            let code = match confined {
                Ok(()) => run(guest.as_mut(), &image_file),
                Err(error) => {
                    tell(&format!("gamut-monitor: {error}\n"));
                    i32::try_from(EXIT_MACHINE).unwrap_or(1)
                }
            };
            std::process::exit(code);
        })
        .map_err(|error| Error::system("start the processor's thread", error))?;
    drop(processor);
    jail::confine_main_thread()?;
    loop {
        signals.wait();
        control.stop();
    }
}

/// Runs the guest to its end: its exit code.
fn run(guest: &mut dyn Guest, image_file: &File) -> i32 {
    let ending = guest.run();
    if !matches!(ending, Ending::Exited(_)) {
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
    ending.exit_code()
}

/// The image again, for its symbols: it was opened before, and mapping it is forbidden by now.
fn read_symbols(file: &File) -> Option<Vec<u8>> {
    let bytes = file.metadata().ok()?.len();
    let mut image = vec![0; usize::try_from(bytes.min(MAX_SYMBOL_FILE_BYTES)).ok()?];
    file.read_exact_at(&mut image, 0).ok()?;
    Some(image)
}

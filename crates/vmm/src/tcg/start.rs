//! Starting QEMU.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use gamut_abi::guest::elf::description;
use gamut_abi::guest::note::NOTE_TYPE_PVH_ENTRY;

use super::command::{self, Disk, MAX_DEVICES, Nic, Parts};
use super::relay::Relay;
use super::{TcgMachine, file, files};
use crate::block::FileDisk;
use crate::control::Control;
use crate::device::Disk as _;
use crate::error::{Error, ImageError, Result};
use crate::jail;
use crate::layout::{Layout, page_ceiling};
use crate::net::Tap;
use crate::prepare::Image;
use crate::report::Registers;

/// Most memory: what the image's PVH entry maps.
const MAX_MEMORY_BYTES: u64 = 3 << 30;

/// A machine to be: everything that takes privileges is done.
#[derive(Debug)]
pub struct Setup {
    program: &'static Path,
    arguments: Vec<String>,
    line: [UnixStream; 2],
    taps: Vec<Tap>,
    relays: Vec<(Relay, OwnedFd)>,
    disks: Vec<File>,
    layout: Layout,
}

/// What a machine is made of.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The image's file name, for messages, content, and headers.
    pub path: &'a str,
    /// Content of the file.
    pub file: &'a [u8],
    /// Its headers.
    pub image: &'a Image,
    /// The configuration text.
    pub config_text: &'a [u8],
    /// Memory, if the user has said so.
    pub memory_bytes: Option<u64>,
    /// Image of a read-only file system.
    pub rofs: Option<File>,
    /// Directory for files that QEMU reads.
    pub scratch: &'a Path,
}

fn system(operation: &str) -> impl FnOnce(io::Error) -> Error {
    let operation = operation.to_owned();
    move |error| Error::system(operation, error)
}

impl Setup {
    /// Writes QEMU's files and command line. Takes the privileges that the directory takes.
    ///
    /// # Errors
    /// If QEMU is not installed, or the image cannot be run by it.
    pub fn prepare(wanted: Wanted<'_>, taps: Vec<Tap>, disks: Vec<FileDisk>) -> Result<Self> {
        let program = command::program().ok_or_else(|| {
            Error::system(
                "find qemu-system-x86_64, which runs guests where there is no /dev/kvm",
                io::Error::from(io::ErrorKind::NotFound),
            )
            .with_advice(
                "install it (package qemu-system-x86), or enable virtualization and load \
                 kvm_intel or kvm_amd",
            )
        })?;
        let refused = |problem| Error::Image {
            path: wanted.path.to_owned(),
            problem,
        };
        check(&wanted, taps.len() + disks.len()).map_err(refused)?;
        let layout = Layout::plan(
            &wanted.image.elf,
            &wanted.image.note,
            wanted.memory_bytes,
            None,
        )
        .map_err(refused)?;
        let files = files::write(wanted.scratch, wanted.file, wanted.config_text, wanted.rofs)?;
        // The guest's own memory is what the user has said; the module comes on top.
        let memory_bytes = page_ceiling(files.module_bytes)
            .and_then(|bytes| bytes.checked_add(layout.memory_bytes))
            .filter(|bytes| *bytes <= MAX_MEMORY_BYTES)
            .ok_or_else(|| {
                refused(ImageError::new(
                    "memory",
                    format!("more than {MAX_MEMORY_BYTES} bytes cannot be had without /dev/kvm"),
                ))
            })?;
        let (ours, theirs) =
            UnixStream::pair().map_err(system("make the control line of the guest"))?;
        let mut relays = Vec::new();
        let mut nics = Vec::new();
        for (index, tap) in taps.iter().enumerate() {
            let mut nic = Nic {
                descriptor: tap.descriptor(),
                is_socket: false,
                mac: tap.config.mac,
            };
            if !tap.answer_descriptors().is_empty() {
                let (relay, theirs) = Relay::new(index)?;
                (nic.descriptor, nic.is_socket) = (theirs.as_raw_fd(), true);
                relays.push((relay, theirs));
            }
            nics.push(nic);
        }
        let (parts, disks): (Vec<Disk>, Vec<File>) = disks
            .into_iter()
            .map(disk)
            .collect::<io::Result<Vec<_>>>()
            .map_err(system("look at a block device"))?
            .into_iter()
            .unzip();
        let arguments = command::arguments(&Parts {
            memory_bytes,
            kernel: &files.kernel,
            module: &files.module,
            control_line: theirs.as_raw_fd(),
            nics: &nics,
            disks: &parts,
        });
        Ok(Self {
            program,
            arguments,
            line: [ours, theirs],
            taps,
            relays,
            disks,
            layout,
        })
    }

    /// Starts QEMU, with the rights that this process has left.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(self, control: Arc<Control>) -> Result<TcgMachine> {
        let filter = jail::translator_filter()?;
        let [line, theirs] = self.line;
        let kept: Vec<RawFd> = std::iter::once(theirs.as_raw_fd())
            .chain(self.taps.iter().map(Tap::descriptor))
            .chain(self.relays.iter().map(|(_, theirs)| theirs.as_raw_fd()))
            .chain(self.disks.iter().map(AsRawFd::as_raw_fd))
            .collect();
        // SAFETY: no arguments.
        let parent = unsafe { libc::getpid() };
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: system calls only, on memory that was there before.
        unsafe {
            command.pre_exec(move || {
                become_qemu(parent, &kept)?;
                seccompiler::apply_filter(&filter)
                    .map_err(|_| io::Error::from(io::ErrorKind::PermissionDenied))
            });
        }
        let mut child = command
            .spawn()
            .map_err(system(&format!("start {}", self.program.display())))?;
        let stream = |stream: Option<OwnedFd>| stream.map(file);
        Ok(TcgMachine {
            process: libc::pid_t::try_from(child.id()).unwrap_or(libc::pid_t::MAX),
            line: Some(file(line)),
            console: stream(child.stdout.take().map(OwnedFd::from)),
            messages: stream(child.stderr.take().map(OwnedFd::from)),
            control,
            layout: self.layout,
            taps: self.taps,
            relays: self.relays.into_iter().map(|(relay, _)| relay).collect(),
            output: Box::new(io::stdout()),
            reader: super::Reader::default(),
            said: std::collections::VecDeque::default(),
            frames: Vec::new(),
            registers: Registers::default(),
            is_listening: false,
            is_told_to_stop: false,
            ending: None,
        })
    }
}

/// What is to be known before QEMU is.
fn check(wanted: &Wanted<'_>, devices: usize) -> std::result::Result<(), ImageError> {
    let has_entry = description(wanted.file, b"Xen\0", NOTE_TYPE_PVH_ENTRY)?.is_some();
    if !has_entry {
        return Err(ImageError::new(
            "PVH note",
            "there is none, and without /dev/kvm it is the way in; build the image with libos' \
             feature pvh",
        ));
    }
    if devices > MAX_DEVICES {
        return Err(ImageError::new(
            "devices",
            format!(
                "{devices} network and block devices; at most {MAX_DEVICES} can be had without \
                 /dev/kvm"
            ),
        ));
    }
    Ok(())
}

fn disk(disk: FileDisk) -> io::Result<(Disk, File)> {
    let (bytes, is_read_only) = (disk.bytes(), disk.is_read_only());
    let file = disk.into_file();
    let part = Disk {
        descriptor: file.as_raw_fd(),
        bytes,
        is_device: file.metadata()?.file_type().is_block_device(),
        is_read_only,
    };
    Ok((part, file))
}

/// In the child: dies with the monitor, hears none of its terminal's signals, and keeps what it is
/// given.
fn become_qemu(parent: libc::pid_t, kept: &[RawFd]) -> io::Result<()> {
    // SAFETY: plain numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have died before that.
        if libc::getppid() != parent {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        libc::setsid();
    }
    for descriptor in kept {
        // SAFETY: an open descriptor.
        if unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

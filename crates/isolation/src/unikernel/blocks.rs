//! Mounts of a configuration, as a unikernel can have them: block devices, and the resolver's
//! files.
//!
//! A volume or directory that is mounted becomes a block device of that name: a sparse file in it.
//! The monitor opens that file itself, from within its jail, in which only the directory is shown:
//! whoever else writes to the volume may put a link there, which leads nowhere then.

use crate::error::Error;
use gamut_abi::monitor::BlockConfig;
use oci_spec::runtime::Mount;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the file in a volume that is a unikernel's block device.
pub const BLOCK_FILE: &str = "unikernel.img";

/// Size of a block device that is made, in bytes. The file is sparse.
pub const DEFAULT_BLOCK_BYTES: u64 = 1 << 30;

/// What is mounted there belongs to a Linux system, and is of no use to a unikernel.
const OF_LINUX: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    index: usize,
    name: String,
    source: PathBuf,
    read_only: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A directory with the file in it.
    Directory,
    /// The file itself.
    File,
    /// A block device of the host: major and minor number.
    Device(i64, i64),
}

/// A directory in which a block device is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
    read_only: bool,
}

/// What mounts are for.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) blocks: Vec<Block>,
    pub(super) resolv_conf: Option<PathBuf>,
    pub(super) hosts: Option<PathBuf>,
}

/// Tells what each mount is for.
///
/// # Errors
/// [`Error::Invalid`] if the source of a mount cannot be a block device.
pub(super) fn sort(mounts: &[Mount], warnings: &mut Vec<String>) -> Result<Sorted, Error> {
    let mut sorted = Sorted::default();
    for (index, mount) in mounts.iter().enumerate() {
        let destination = mount.destination();
        let options = mount.options().as_deref().unwrap_or_default();
        let is_bind = mount.typ().as_deref() == Some("bind")
            || options.iter().any(|word| word == "bind" || word == "rbind");
        let of_linux = OF_LINUX.iter().any(|place| destination.starts_with(place));
        let source = mount.source().clone().unwrap_or_default();
        match destination.to_str() {
            Some("/etc/resolv.conf") if is_bind => sorted.resolv_conf = Some(source),
            Some("/etc/hosts") if is_bind => sorted.hosts = Some(source),
            Some("/etc/hostname") => {}
            _ if of_linux => {}
            Some(_) if is_bind && options.iter().any(|word| is_subpath(word)) => {
                return Err(Error::Invalid {
                    field: format!("mounts[{index}].options"),
                    problem: "a part of a volume cannot be a unikernel's block device; leave volume-subpath out".to_owned(),
                });
            }
            Some(name) if is_bind => {
                let read_only = options.iter().any(|word| word == "ro");
                let block = block(sorted.blocks.len(), name, source, read_only);
                sorted.blocks.push(block.map_err(|problem| Error::Invalid {
                    field: format!("mounts[{index}].source"),
                    problem,
                })?);
            }
            _ => warnings.push(format!(
                "the {} on {}: of no use to a unikernel, left out",
                mount.typ().as_deref().unwrap_or("mount"),
                destination.display()
            )),
        }
    }
    Ok(sorted)
}

/// Whether a word of the options asks for a part of the source only.
fn is_subpath(word: &str) -> bool {
    word.strip_prefix(crate::SUBPATH_OPTION)
        .is_some_and(|rest| rest.starts_with('='))
}

fn block(index: usize, name: &str, source: PathBuf, read_only: bool) -> Result<Block, String> {
    let metadata = fs::metadata(&source)
        .map_err(|error| format!("{}: {error}; name what is there", source.display()))?;
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::File
    } else if kind.is_block_device() {
        let device = metadata.rdev();
        Kind::Device(libc::major(device).into(), libc::minor(device).into())
    } else {
        return Err(format!(
            "{} is none of directory, file and block device, which alone can be a unikernel's block device",
            source.display()
        ));
    };
    Ok(Block {
        index,
        name: name.to_owned(),
        source,
        read_only,
        kind,
    })
}

impl Block {
    /// Where it is shown in the jail.
    fn place(&self) -> String {
        format!("/block/{}", self.index)
    }

    /// As the monitor is told of it.
    pub(super) fn config(&self) -> BlockConfig {
        let place = self.place();
        BlockConfig {
            name: self.name.clone(),
            path: match self.kind {
                Kind::Directory => format!("{place}/{BLOCK_FILE}"),
                Kind::File | Kind::Device(..) => place,
            },
            read_only: self.read_only,
        }
    }

    /// The mount by which the jail shows it.
    pub(super) fn mount(&self) -> Value {
        let access = if self.read_only { "ro" } else { "rw" };
        let mut options = vec!["bind", "rprivate", "nosuid", "noexec", access];
        if !matches!(self.kind, Kind::Device(..)) {
            options.push("nodev");
        }
        json!({
            "destination": self.place(), "type": "bind", "source": self.source,
            "options": options,
        })
    }

    /// The directory in which its file has to be.
    pub(super) fn directory(&self) -> Option<Directory> {
        (self.kind == Kind::Directory).then(|| Directory {
            path: self.source.clone(),
            read_only: self.read_only,
        })
    }

    /// Numbers of the host's device, and whether it is only to be read.
    pub(super) fn device(&self) -> Option<(i64, i64, bool)> {
        match self.kind {
            Kind::Device(major, minor) => Some((major, minor, self.read_only)),
            Kind::Directory | Kind::File => None,
        }
    }
}

impl Directory {
    /// Makes the file of the block device if it is not there. Links are not followed.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is something else, or nothing to be read; [`Error::System`].
    pub fn ready(&self) -> Result<(), Error> {
        let path = self.path.join(BLOCK_FILE);
        let invalid = |problem: &str| Error::Invalid {
            field: path.display().to_string(),
            problem: problem.to_owned(),
        };
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Err(invalid(
                "is no regular file; a unikernel's block device has to be there",
            )),
            Ok(metadata) if metadata.len() > 0 => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ if self.read_only => Err(invalid(
                "is not there, and nothing can be made on a read-only mount; start the unikernel once without :ro",
            )),
            _ => self.make().map_err(|error| failed(&path, error)),
        }
    }

    /// Makes the file, or gives one its size that an earlier attempt has left.
    fn make(&self) -> io::Result<()> {
        let directory = File::open(&self.path)?;
        // By its descriptor: what the path leads to may change.
        let path = format!("/proc/self/fd/{}/{BLOCK_FILE}", directory.as_raw_fd());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.len() == 0 {
            file.set_len(DEFAULT_BLOCK_BYTES)?;
            file.sync_all()?;
            directory.sync_all()?;
        }
        Ok(())
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::System {
        operation: "make the block device",
        id: path.display().to_string(),
        source: error.into(),
    }
}

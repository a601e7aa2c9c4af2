//! What the level keeps about each unikernel beside its sandbox: `unikernels/ID` below the run
//! root, with the root of the jail and what is shown in it.

use gamut_abi::monitor::{MachineStatus, MonitorConfig};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Longest status of a machine that is read, in bytes: the monitor may be in its guest's hands.
const MAX_STATUS_BYTES: u64 = 4096;

/// Name of the monitor's socket for debuggers.
pub(super) const DEBUG_SOCKET: &str = "gdb.sock";

/// What has to be known later, whichever daemon asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Addresses of the guest.
    pub addresses: Vec<IpAddr>,
}

/// The directories of all unikernels.
#[derive(Debug)]
pub(super) struct Directories(PathBuf);

/// The directory of one unikernel.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directories {
    /// Makes what is missing, for root's eyes only.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub(super) fn open(run_root: &Path) -> io::Result<Self> {
        let path = run_root.join("unikernels");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// That of one unikernel. `id` is one that can be a name.
    pub(super) fn of(&self, id: &str) -> Directory {
        Directory(self.0.join(id))
    }

    /// Ids of all unikernels that have one, sorted.
    ///
    /// # Errors
    /// Those of readdir(3).
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            ids.extend(entry?.file_name().into_string());
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

impl Directory {
    /// The directory with this path.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The root of the jail: empty but for the places of what is shown in it.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.0.join("jail")
    }

    /// What the monitor is told.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("monitor.json")
    }

    /// What the monitor tells.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.0.join("machine.json")
    }

    /// Where the monitor listens for debuggers.
    #[must_use]
    pub fn debug(&self) -> PathBuf {
        self.0.join("debug")
    }

    /// Connects to the monitor's socket for debuggers.
    ///
    /// # Errors
    /// Those of open(2) and connect(2).
    pub(super) fn connect_debugger(&self) -> io::Result<UnixStream> {
        let directory = File::open(self.debug())?;
        // Names of sockets are short, and the run root's may not be.
        let path = format!("/proc/self/fd/{}/{DEBUG_SOCKET}", directory.as_raw_fd());
        UnixStream::connect(path)
    }

    fn record(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// Makes the directory with all that is in it; what an earlier attempt has left goes.
    ///
    /// # Errors
    /// Those of mkdir(2), open(2) and write(2).
    pub fn make(&self, monitor: &MonitorConfig, record: &Record) -> io::Result<()> {
        self.remove()?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700).create(&self.0)?;
        builder.mode(0o755).create(self.root())?;
        builder.mode(0o700).create(self.debug())?;
        write(&self.config(), &serde_json::to_vec(monitor)?)?;
        write(&self.status(), b"")?;
        write(&self.record(), &serde_json::to_vec(record)?)
    }

    /// What has been written down; `None` if there is nothing.
    ///
    /// # Errors
    /// Those of read(2), and `InvalidData` if it is damaged.
    pub(super) fn read(&self) -> io::Result<Option<Record>> {
        match fs::read(self.record()) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Memory of the guest, as the monitor was told.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let text = fs::read(self.config()).ok()?;
        let config: MonitorConfig = serde_json::from_slice(&text).ok()?;
        config.memory_bytes
    }

    /// What the monitor has told of the machine, if it has told anything that makes sense.
    pub(super) fn machine(&self) -> Option<MachineStatus> {
        let mut text = Vec::new();
        File::open(self.status())
            .and_then(|file| file.take(MAX_STATUS_BYTES).read_to_end(&mut text))
            .ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Removes it. That it is gone already is no error.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}

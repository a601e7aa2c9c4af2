//! The daemon's side.

use crate::error::{Error, Result};
use crate::record::{Record, VERSION};
use crate::worker::Request;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the helper may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is started, should it end just when it is needed.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The names of containers, as the daemon tells them.
#[derive(Debug)]
pub struct Resolver {
    run_root: PathBuf,
    program: PathBuf,
    /// Containers that the helper knows.
    known: Mutex<BTreeSet<String>>,
}

impl Resolver {
    /// The resolver of the engine with this run directory; `program` is one that becomes the
    /// helper by its arguments. Containers of an earlier daemon are known as they were.
    ///
    /// # Errors
    /// If its directory cannot be made.
    pub fn open(run_root: &Path, program: &Path) -> Result<Self> {
        let directory = crate::directory(run_root);
        let failed = |source| Error::system(format!("make {}", directory.display()), source);
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        // There from the start, so that it is nobody's leftover.
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("lock"))
            .map_err(failed)?;
        let mut known = BTreeSet::new();
        for entry in fs::read_dir(&directory).map_err(failed)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".json") {
                known.insert(id.to_owned());
            } else if name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self {
            run_root: run_root.to_owned(),
            program: program.to_owned(),
            known: Mutex::new(known),
        })
    }

    fn path(&self, id: &str) -> PathBuf {
        crate::directory(&self.run_root).join(format!("{id}.json"))
    }

    /// Containers that are known.
    #[must_use]
    pub fn known(&self) -> BTreeSet<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a container, and with `namespace` serves it there. When this returns, its names
    /// are known to its neighbours and it can ask.
    ///
    /// # Errors
    /// If the helper cannot be had or cannot serve the namespace.
    pub fn publish(&self, record: &Record, namespace: Option<BorrowedFd<'_>>) -> Result<()> {
        let path = self.path(&record.id);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, record.encode())
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| Error::system(format!("write {}", path.display()), source))?;
        self.lock().insert(record.id.clone());
        // The helper opens it by way of this process, which holds it until the helper has answered.
        let namespace = namespace.map(|descriptor| {
            PathBuf::from(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                descriptor.as_raw_fd()
            ))
        });
        self.tell(&record.id, namespace, true)
    }

    /// Forgets a container. Returns whether it was known.
    ///
    /// # Errors
    /// If its file cannot be removed. A helper that does not answer notices by itself.
    pub fn withdraw(&self, id: &str) -> Result<bool> {
        if !self.lock().remove(id) {
            return Ok(false);
        }
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::system(format!("remove {}", path.display()), error));
            }
            _ => {}
        }
        if let Err(error) = self.tell(id, None, false) {
            tracing::debug!(error = %gamut_spec::error::chain(&error), "the resolver was not told that a container is gone");
        }
        Ok(true)
    }

    /// Sees to it that there is a helper if one is needed: it may have been killed with its keeper
    /// while no daemon looked.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn ensure(&self) -> Result<()> {
        if self.lock().is_empty() || UnixStream::connect(crate::socket_path(&self.run_root)).is_ok()
        {
            return Ok(());
        }
        self.start()
    }

    fn tell(&self, id: &str, namespace: Option<PathBuf>, is_needed: bool) -> Result<()> {
        let request = Request {
            version: VERSION,
            id: id.to_owned(),
            namespace,
        };
        let mut attempt = 0;
        loop {
            match self.ask(&request) {
                Ok(answer) if answer == "ok" => return Ok(()),
                Ok(answer) if !answer.is_empty() => return Err(Error::Helper(answer)),
                outcome => {
                    attempt += 1;
                    if !is_needed || attempt > ATTEMPTS {
                        return match outcome {
                            Err(source) => {
                                Err(Error::system("talk to the resolver's helper", source))
                            }
                            Ok(_) => Err(Error::Helper("it ended".to_owned())),
                        };
                    }
                    if attempt > 1 {
                        std::thread::sleep(PAUSE);
                    }
                    self.start()?;
                }
            }
        }
    }

    fn ask(&self, request: &Request) -> io::Result<String> {
        let mut stream = UnixStream::connect(crate::socket_path(&self.run_root))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    fn start(&self) -> Result<()> {
        let status = Command::new(&self.program)
            // For those who look at processes; it is the program itself.
            .arg0("gamut")
            .arg(crate::HELPER)
            .arg(&self.run_root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|source| Error::system(format!("start {}", self.program.display()), source))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Helper(format!("it does not start ({status})")))
        }
    }
}

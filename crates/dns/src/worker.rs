//! The process that serves: it knows what the files say and what it is told since.

use crate::book::Book;
use crate::error::{Error, Result};
use crate::record::{Record, VERSION};
use crate::server::{Server, SharedBook};
use gamut_network::NetworkNamespace;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// How long it stays without a container.
const LINGER: Duration = Duration::from_secs(1);
/// How often a supervisor is looked for that does not run yet, and how long.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 300;
/// The longest request.
const MAX_REQUEST_BYTES: u64 = 4096;

/// What the daemon says, one per connection and line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Version of this conversation.
    pub version: u32,
    /// The container whose file was written or removed.
    pub id: String,
    /// Path of its network namespace, if it is new.
    pub namespace: Option<PathBuf>,
}

/// Why a worker ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// No container is left.
    Idle,
    /// Its keeper was killed.
    Orphaned,
}

struct Worker {
    run_root: PathBuf,
    book: SharedBook,
    servers: Mutex<HashMap<String, (u64, Server)>>,
    /// Number of the next server.
    next: Mutex<u64>,
    /// Told whenever a container comes or goes.
    changed: tokio::sync::Notify,
}

/// Serves until it ends by itself.
pub(crate) fn run(run_root: &Path, listener: &StdListener, keeper: OwnedFd) -> Result<End> {
    crate::confine::confine()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .map_err(|source| Error::system("start the resolver", source))?;
    let failed = |source| Error::system("listen at the resolver's socket", source);
    let listener = listener.try_clone().map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let keeper = ended(keeper).map_err(failed)?;
        let worker = Arc::new(Worker {
            run_root: run_root.to_owned(),
            book: Arc::new(Mutex::new(Book::default())),
            servers: Mutex::default(),
            next: Mutex::new(0),
            changed: tokio::sync::Notify::new(),
        });
        worker.read_all();
        loop {
            let linger = tokio::time::sleep(LINGER);
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // One after the other: it is one daemon that asks.
                        if let Err(error) = worker.converse(stream).await {
                            tracing::debug!(%error, "a conversation with the daemon broke off");
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept the daemon's connection");
                        tokio::time::sleep(LOOK).await;
                    }
                },
                _ = keeper.readable() => return Ok(End::Orphaned),
                () = worker.changed.notified() => {}
                () = linger, if worker.is_empty() => return Ok(End::Idle),
            }
        }
    })
}

impl Worker {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, Server)>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.book().is_empty()
    }

    /// Takes up the containers of an earlier worker that still run.
    fn read_all(self: &Arc<Self>) {
        let entries = std::fs::read_dir(crate::directory(&self.run_root));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(id) = name
                .to_string_lossy()
                .strip_suffix(".json")
                .map(str::to_owned)
            else {
                continue;
            };
            let Some(pid) = self
                .status(&id)
                .map(|status| status.pid)
                .filter(|pid| *pid > 0)
            else {
                continue;
            };
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            if let Err(error) = self.update(&id, Some(&path)) {
                tracing::warn!(container = id, error = %gamut_spec::error::chain(&error), "the names of a running container cannot be served again");
            }
        }
    }

    async fn converse(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        use tokio::io::AsyncReadExt;
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(read.take(MAX_REQUEST_BYTES));
        tokio::time::timeout(Duration::from_secs(2), reader.read_line(&mut line))
            .await
            .map_err(io::Error::other)??;
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(request) if request.version == VERSION => self
                .update(&request.id, request.namespace.as_deref())
                .map_or_else(
                    |error| gamut_spec::error::chain(&error),
                    |()| "ok".to_owned(),
                ),
            Ok(request) => format!(
                "it speaks version {VERSION}, and the daemon version {}",
                request.version
            ),
            Err(error) => format!("it does not understand the daemon: {error}"),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await
    }

    /// Does what a container's file says: serves it in a namespace, knows it anew, or forgets it.
    fn update(self: &Arc<Self>, id: &str, namespace: Option<&Path>) -> Result<()> {
        if !gamut_spec::id::is_id(id) {
            return Err(Error::Helper(format!("{id:?} is no id of a container")));
        }
        let path = crate::directory(&self.run_root).join(format!("{id}.json"));
        let record = match std::fs::read(&path) {
            Ok(bytes) => Record::parse(&bytes)
                .filter(|record| record.id == id)
                .ok_or_else(|| {
                    Error::Helper(format!("{} is no record of its version", path.display()))
                })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(id, None);
                return Ok(());
            }
            Err(source) => return Err(Error::system(format!("read {}", path.display()), source)),
        };
        self.book().insert(record);
        self.changed.notify_one();
        let Some(namespace) = namespace else {
            return Ok(());
        };
        let file = File::open(namespace)
            .map_err(|source| Error::system(format!("open {}", namespace.display()), source))?;
        let namespace = NetworkNamespace::from(OwnedFd::from(file));
        if namespace.is_same(&NetworkNamespace::current()?)? {
            return Err(Error::Helper(format!(
                "container {id} has no network of its own"
            )));
        }
        let served = |(_, server): &(u64, Server)| server.is_in(&namespace);
        if self.servers().get(id).is_some_and(served) {
            return Ok(());
        }
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let server = Server::start(id, namespace, &self.book)?;
        self.servers().insert(id.to_owned(), (number, server));
        tokio::spawn(Arc::clone(self).follow(id.to_owned(), number));
        Ok(())
    }

    /// Strikes a container out; with `number`, only if it is still that server's.
    fn forget(&self, id: &str, number: Option<u64>) {
        let mut servers = self.servers();
        let current = servers.get(id).map(|(current, _)| *current);
        if number.is_some() && number != current {
            return;
        }
        servers.remove(id);
        drop(servers);
        self.book().remove(id);
        self.changed.notify_one();
    }

    fn status(&self, id: &str) -> Option<gamut_abi::status::Status> {
        let path = self.run_root.join("sandboxes").join(id).join("status");
        gamut_abi::wire::decode(&std::fs::read(path).ok()?).ok()
    }

    /// Forgets a container when its supervisor ends, daemon or not: otherwise its namespace would
    /// live as long as its resolver.
    async fn follow(self: Arc<Self>, id: String, number: u64) {
        for _ in 0..LOOKS {
            let pid = self.status(&id).map_or(0, |status| status.supervisor_pid);
            if pid > 0
                && let Some(supervisor) = open_process(pid)
                && let Ok(supervisor) = ended(supervisor)
            {
                let _ = supervisor.readable().await;
                self.forget(&id, Some(number));
                return;
            }
            tokio::time::sleep(LOOK).await;
            if self
                .servers()
                .get(&id)
                .is_none_or(|(current, _)| *current != number)
            {
                return;
            }
        }
    }
}

/// Waits for the end of the process behind a descriptor of [`open_process`].
fn ended(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor, the same one, as long as it lives.
    unsafe { AsyncFd::register(process) }.map_err(io::Error::from)
}

/// A descriptor that can be read from when the process has ended (pidfd_open(2)).
pub(crate) fn open_process(pid: u32) -> Option<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: pidfd_open(2) takes no pointers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = i32::try_from(raw).ok().filter(|raw| *raw >= 0)?;
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

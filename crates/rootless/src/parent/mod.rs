//! The process outside: it stays in the user's own namespaces, holds the engine's open, keeps
//! pasta and the forwarder running, and opens ports of the host for the latter. It outlives the
//! daemon, as workloads do.

mod child;
mod maker;
mod recover;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::error::{Error, Result};
use crate::forward;
use crate::mapping::Mappings;
use crate::message::{self, Answer, Protocol, Request, State};
use crate::namespaces::Namespaces;
use crate::sys;
use child::{Forwarder, Keeper, Pasta};

/// Connections to a port of the host that may wait to be accepted; the kernel clamps it.
const BACKLOG: libc::c_int = 4096;
/// How long a caller may take to say what it wants.
const CLIENT_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The process.
struct Parent {
    listener: UnixListener,
    namespaces: Namespaces,
    /// What is wrong with the ids.
    warnings: Vec<String>,
    pasta: Keeper<Pasta>,
    forwarder: Keeper<Forwarder>,
    uid: u32,
}

/// Runs the process outside for the engine with this run directory, until it is told to stop.
/// Writes a line to `ready` as soon as it can be asked: empty, or why it could not start.
///
/// # Errors
/// Why it could not start.
pub fn run(run: &Path, mut ready: impl Write) -> Result<()> {
    match Parent::start(run) {
        Ok(Some((parent, lock))) => {
            let _ = ready.write_all(b"\n");
            drop(ready);
            parent.serve();
            drop(lock);
            Ok(())
        }
        // Another one was faster.
        Ok(None) => {
            let _ = ready.write_all(b"\n");
            Ok(())
        }
        Err(error) => {
            let text = gamut_spec::error::chain(&error).replace('\n', " ");
            let _ = ready.write_all(format!("{text}\n").as_bytes());
            Err(error)
        }
    }
}

impl Parent {
    fn start(run: &Path) -> Result<Option<(Self, File)>> {
        let directory = message::directory(run);
        make_private(&directory)?;
        let Some(lock) = lock(&directory)? else {
            return Ok(None);
        };
        let account = Account::current();
        let mappings = Mappings::of(&account);
        let namespaces = match recover::find(&directory) {
            Some(namespaces) => namespaces,
            None => maker::make(&mappings)?,
        };
        recover::note(&directory, &namespaces)?;
        let listener = listen(run)?;
        let mut parent = Self {
            listener,
            warnings: mappings.warnings,
            pasta: Keeper::new(Pasta::new(run)),
            forwarder: Keeper::new(Forwarder::new(run)),
            namespaces,
            uid: account.uid,
        };
        parent.forwarder.tend(&parent.namespaces);
        forward::await_running(run);
        parent.pasta.tend(&parent.namespaces);
        parent.pasta.settle(&parent.namespaces);
        Ok(Some((parent, lock)))
    }

    fn serve(mut self) {
        loop {
            let wait = self
                .pasta
                .due_in()
                .into_iter()
                .chain(self.forwarder.due_in())
                .min();
            let mut list = vec![self.listener.as_raw_fd()];
            list.extend(self.pasta.descriptor());
            list.extend(self.forwarder.descriptor());
            let is_called = poll(&list, wait);
            self.forwarder.tend(&self.namespaces);
            self.pasta.tend(&self.namespaces);
            if is_called
                && let Ok((stream, _)) = self.listener.accept()
                && self.attend(&stream)
            {
                self.forwarder.end();
                self.pasta.end();
                return;
            }
        }
    }

    /// Answers one request; returns whether it was the last.
    fn attend(&self, stream: &UnixStream) -> bool {
        let _ = stream.set_read_timeout(Some(CLIENT_LIMIT));
        let _ = stream.set_write_timeout(Some(CLIENT_LIMIT));
        // From inside, the user's processes are root's; the kernel tells us who that is here.
        if !sys::peer(stream).is_ok_and(|peer| peer.uid == self.uid) {
            return false;
        }
        let Ok(request) = message::read_request(stream) else {
            return false;
        };
        let is_last = matches!(request, Request::Stop);
        let (answer, descriptors) = match request {
            Request::Stop => (Answer::Done, Vec::new()),
            Request::Join => match self.namespaces.descriptors() {
                Ok(descriptors) => (Answer::Namespaces(self.state()), descriptors),
                Err(error) => (failed(&error), Vec::new()),
            },
            Request::Bind {
                protocol,
                address,
                port,
            } => match open_port(protocol, SocketAddrV4::new(address, port)) {
                Ok(socket) => (Answer::Done, vec![socket]),
                Err(error) => (failed(&error), Vec::new()),
            },
        };
        let _ = message::answer(stream, &answer, &descriptors);
        is_last
    }

    fn state(&self) -> State {
        let mut warnings = self.warnings.clone();
        warnings.extend(
            self.pasta
                .problem()
                .map(|problem| format!("containers do not reach beyond this machine: {problem}")),
        );
        warnings.extend(
            self.forwarder
                .problem()
                .map(|problem| format!("published ports do not work: {problem}")),
        );
        State { warnings }
    }
}

fn failed(error: &io::Error) -> Answer {
    Answer::Failed {
        errno: error.raw_os_error().unwrap_or(0),
        message: error.to_string(),
    }
}

/// A socket on the host, bound and, for TCP, listening.
fn open_port(protocol: Protocol, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = match protocol {
        Protocol::Tcp => sys::socket(libc::SOCK_STREAM | libc::SOCK_NONBLOCK)?,
        Protocol::Udp => sys::socket(libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?,
    };
    if protocol == Protocol::Tcp {
        // Closed connections of an earlier server (TIME_WAIT) would block the port for a minute.
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    sys::bind(&socket, address)?;
    if protocol == Protocol::Tcp {
        // SAFETY: listen(2) takes no pointers.
        sys::check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    }
    Ok(socket)
}

/// Makes a directory that only the user may enter.
pub(crate) fn make_private(directory: &Path) -> Result<()> {
    let failed = |source| {
        Error::system(
            format!("make the directory {}", directory.display()),
            source,
        )
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    let metadata = fs::symlink_metadata(directory).map_err(failed)?;
    // SAFETY: geteuid(2) only returns a number.
    if metadata.uid() != unsafe { libc::geteuid() } || !metadata.is_dir() {
        return Err(Error::Setup(format!(
            "{} is not a directory of this user: remove it or set XDG_RUNTIME_DIR",
            directory.display()
        )));
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Takes the lock that is held for life; `None` if another process has it.
fn lock(directory: &Path) -> Result<Option<File>> {
    let path = directory.join("lock");
    let failed = |source| Error::system(format!("lock {}", path.display()), source);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn listen(run: &Path) -> Result<UnixListener> {
    let path: PathBuf = message::parent_socket(run);
    // The lock is ours, so nobody listens there.
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path)
        .map_err(|source| Error::system(format!("listen at {}", path.display()), source))
}

/// Waits; returns whether the first descriptor is ready.
fn poll(descriptors: &[libc::c_int], wait: Option<std::time::Duration>) -> bool {
    let mut list: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|fd| libc::pollfd {
            fd: *fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let wait_ms = wait.map_or(-1, |wait| {
        i32::try_from(wait.as_millis().saturating_add(1)).unwrap_or(i32::MAX)
    });
    let count = libc::nfds_t::try_from(list.len()).unwrap_or(1);
    // SAFETY: `list` holds `count` pollfds and outlives the call.
    unsafe { libc::poll(list.as_mut_ptr(), count, wait_ms) };
    list.first().is_some_and(|first| first.revents != 0)
}

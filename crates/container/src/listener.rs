//! Handing the notification descriptor of a seccomp filter to whoever listens
//! (seccomp_unotify(2), OCI runtime-spec config-linux.md, "seccomp").
//!
//! From the moment the filter is installed, any system call may be held up until the listener
//! answers it, so the process that installs it must make none before the listener has the
//! descriptor. A second thread does it: it shares the descriptors but not the filter. execve ends
//! it.

use crate::channel::{Channel, Message};
use crate::error::{Context, Error};
use crate::sys::{self, Errno, SysResult};
use gamut_abi::control::FailureKind;
use gamut_abi::plan::{Process, SeccompListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
const NEW_LISTENER: u32 = 1 << 3;

/// How often the thread looks whether the filter is installed: for the wink of an eye.
const PAUSE: Duration = Duration::from_micros(20);

/// Stack of the thread, which calls little.
const STACK_BYTES: usize = 64 << 10;

/// One number that parent and children share, however they are cloned: the process id that the
/// listener is told, as the caller sees it.
#[derive(Clone, Copy)]
struct SharedPid(&'static AtomicU32);

impl SharedPid {
    /// Maps it. It lives as long as the process, some bytes for a container with a listener.
    fn map() -> SysResult<Self> {
        // SAFETY: a new anonymous mapping, page-aligned, all zeros, never unmapped.
        unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if page == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            Ok(Self(&*page.cast::<AtomicU32>()))
        }
    }
}

/// A connection to the listener, made in the caller's view of the host.
pub(crate) struct Listener<'a> {
    socket: OwnedFd,
    plan: &'a SeccompListener,
    pid: SharedPid,
}

impl<'a> Listener<'a> {
    /// Connects to the listener of a process, if its filter notifies anybody.
    pub(crate) fn connect(process: &'a Process) -> Result<Option<Self>, Error> {
        let notifies = process
            .seccomp
            .as_ref()
            .is_some_and(|seccomp| seccomp.flags & NEW_LISTENER != 0);
        if !notifies {
            return Ok(None);
        }
        let Some(plan) = &process.seccomp_listener else {
            return Err(Error::invalid(
                "linux.seccomp.listenerPath: is needed for SCMP_ACT_NOTIFY; name the socket of the seccomp agent",
            )
            .of_kind(FailureKind::Unsupported));
        };
        let failed = |errno| {
            Error::with_detail(
                &["failed to connect with seccomp agent ", &plan.path].concat(),
                errno,
                "linux.seccomp.listenerPath",
            )
        };
        Ok(Some(Self {
            socket: connect(&plan.path).map_err(failed)?,
            plan,
            pid: SharedPid::map().map_err(failed)?,
        }))
    }

    /// Makes the process id known to whoever was cloned before.
    pub(crate) fn set_pid(&self, pid: u32) {
        self.pid.0.store(pid, Ordering::Release);
    }

    /// The connection, which must stay open until the filter is installed.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What the program needs of it.
    pub(crate) fn for_program(&self) -> ListenerTask {
        ListenerTask {
            socket: self.socket.as_raw_fd(),
            state: self.plan.state.clone(),
            pid: self.pid,
        }
    }
}

/// What is left to do once the filter is installed.
pub(crate) struct ListenerTask {
    socket: RawFd,
    state: Vec<String>,
    pid: SharedPid,
}

/// The two threads' words to each other: the descriptor, then that it is sent.
struct Exchange {
    descriptor: AtomicI32,
    sent: AtomicI32,
}

const NOTHING_YET: i32 = -1;

/// The thread that waits for the descriptor.
pub(crate) struct Waiting(Arc<Exchange>);

impl ListenerTask {
    /// Gives the socket another number, at least this one.
    pub(crate) fn move_above(&mut self, minimum: RawFd) -> Result<(), Error> {
        // SAFETY: the descriptor is open for as long as the task lives.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        let moved = sys::dup_above(socket, minimum).doing("keep", "the seccomp listener")?;
        // It closes with execve.
        self.socket = moved.into_raw_fd();
        Ok(())
    }

    /// The socket's number.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket
    }

    /// Starts the thread. If it cannot send the descriptor, it says so over `channel` and ends the
    /// process.
    pub(crate) fn start(&self, channel: &Channel) -> Result<Waiting, Error> {
        let exchange = Arc::new(Exchange {
            descriptor: AtomicI32::new(NOTHING_YET),
            sent: AtomicI32::new(0),
        });
        let theirs = Arc::clone(&exchange);
        let socket = self.socket;
        let channel = channel.descriptor().as_raw_fd();
        let (pid, state) = (self.pid, self.state.clone());
        let body = move || {
            let descriptor = loop {
                match theirs.descriptor.load(Ordering::Acquire) {
                    NOTHING_YET => std::thread::sleep(PAUSE),
                    descriptor => break descriptor,
                }
            };
            // Whoever made this process is about to say so, if it has not.
            let pid = loop {
                match pid.0.load(Ordering::Acquire) {
                    0 => std::thread::sleep(PAUSE),
                    pid => break pid.to_string(),
                }
            };
            let message = state.join(&pid);
            // SAFETY: all three stay open until execve or the end of the process.
            let (socket, descriptor, channel) = unsafe {
                (
                    BorrowedFd::borrow_raw(socket),
                    BorrowedFd::borrow_raw(descriptor),
                    BorrowedFd::borrow_raw(channel),
                )
            };
            if let Err(errno) = send(socket, message.as_bytes(), descriptor) {
                let error = Error::with_detail(
                    "send the notification descriptor to the seccomp listener",
                    errno,
                    "linux.seccomp.listenerPath",
                );
                if let Ok(channel) = channel.try_clone_to_owned() {
                    Channel::over(channel).say(&Message::Failed(error));
                }
                sys::exit(1);
            }
            theirs.sent.store(1, Ordering::Release);
        };
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(body)
            .map_err(|error| {
                Error::system(
                    "start a thread for the seccomp listener",
                    Errno(error.raw_os_error().unwrap_or(libc::EAGAIN)),
                )
            })?;
        Ok(Waiting(exchange))
    }
}

impl Waiting {
    /// Hands the descriptor over and waits, without a single system call, until it is sent.
    pub(crate) fn hand_over(&self, descriptor: RawFd) {
        self.0.descriptor.store(descriptor, Ordering::Release);
        while self.0.sent.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
    }
}

/// A connected stream socket, whatever the length of the path.
fn connect(path: &str) -> SysResult<OwnedFd> {
    let (directory, name) = match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", path),
    };
    let directory = sys::open(
        sys::cwd(),
        &sys::c_string(directory)?,
        libc::O_PATH | libc::O_DIRECTORY,
    )?;
    let path = [
        "/proc/self/fd/",
        &directory.as_raw_fd().to_string(),
        "/",
        name,
    ]
    .concat();
    // SAFETY: all zeros is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    if path.len() >= address.sun_path.len() {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap_or_default();
    // SAFETY: a result that is no error is a new descriptor of ours; the address is valid for its
    // size.
    unsafe {
        let raw = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(Errno::last());
        }
        let socket = OwnedFd::from_raw_fd(raw);
        if libc::connect(raw, (&raw const address).cast(), length) < 0 {
            return Err(Errno::last());
        }
        Ok(socket)
    }
}

/// Sends a text with a descriptor at its first byte.
fn send(socket: BorrowedFd<'_>, text: &[u8], descriptor: BorrowedFd<'_>) -> SysResult<()> {
    let mut sent = sys::send_with_descriptor(socket, text, Some(descriptor.as_raw_fd()))?;
    while sent < text.len() {
        sent += sys::send_with_descriptor(socket, &text[sent..], None)?;
    }
    // A listener may read to the end before it answers anything.
    // SAFETY: plain call. A listener that has hung up has all it wanted.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
    Ok(())
}

//! Between the caller's terminal and that of a process in the foreground.

use crate::sys::io::{read, set_nonblocking, would_block, write};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Bytes copied at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Copies between standard input and output and the master of a terminal. The caller's own
/// terminal, if there is one, is raw as long as this lives.
pub(super) struct Relay {
    master: OwnedFd,
    /// The caller's terminal, and how it was.
    host: Option<(OwnedFd, libc::termios)>,
    input_open: bool,
    /// What has been read from standard input and not been taken by the process.
    pending: Vec<u8>,
    output_open: bool,
}

impl Relay {
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        set_nonblocking(master.as_fd())?;
        let host = host_terminal().and_then(|terminal| {
            let before = make_raw(terminal.as_fd())?;
            Some((terminal, before))
        });
        let relay = Self {
            master,
            host,
            input_open: true,
            pending: Vec::new(),
            output_open: true,
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the process's terminal the size of the caller's.
    pub(super) fn resize(&self) {
        let Some((host, _)) = &self.host else { return };
        let mut size = libc::winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the calls write and read a live winsize. A size that cannot be had stays.
        unsafe {
            if libc::ioctl(host.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) == 0
                && (size.ws_row, size.ws_col) != (0, 0)
            {
                libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size);
            }
        }
    }

    /// Copies in both directions until `signals` can be read.
    pub(super) fn copy_until_readable(&mut self, signals: RawFd) -> io::Result<()> {
        loop {
            let mut events = 0;
            if self.output_open {
                events |= libc::POLLIN;
            }
            if !self.pending.is_empty() {
                events |= libc::POLLOUT;
            }
            let wants_input = self.input_open && self.pending.is_empty();
            let wait_for = |fd, events| libc::pollfd {
                fd,
                events,
                revents: 0,
            };
            let mut polls = [
                wait_for(signals, libc::POLLIN),
                // A negative number is passed over.
                wait_for(
                    if events == 0 {
                        -1
                    } else {
                        self.master.as_raw_fd()
                    },
                    events,
                ),
                wait_for(if wants_input { 0 } else { -1 }, libc::POLLIN),
            ];
            // SAFETY: three pollfds that live over the call.
            if unsafe { libc::poll(polls.as_mut_ptr(), 3, -1) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            let [signal, master, input] = polls.map(|poll| poll.revents);
            if input != 0 {
                self.read_input();
            }
            if master & libc::POLLOUT != 0 {
                self.feed();
            }
            if master & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 {
                self.copy_output();
            }
            if signal != 0 {
                return Ok(());
            }
        }
    }

    fn read_input(&mut self) {
        let mut buffer = [0; BUFFER_BYTES];
        match read(io::stdin().as_fd(), &mut buffer) {
            Ok(count @ 1..) => self.pending.extend_from_slice(&buffer[..count]),
            Err(error) if would_block(&error) => {}
            _ => self.input_open = false,
        }
    }

    fn feed(&mut self) {
        match write(self.master.as_fd(), &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error) if would_block(&error) => {}
            // Nobody has the other side open.
            Err(_) => self.pending.clear(),
        }
    }

    /// Copies what is there; false if there was nothing.
    fn copy_output(&mut self) -> bool {
        let mut buffer = [0; BUFFER_BYTES];
        match read(self.master.as_fd(), &mut buffer) {
            Ok(count @ 1..) => {
                write_all(io::stdout().as_fd(), &buffer[..count]);
                true
            }
            Err(error) if would_block(&error) => false,
            // EIO: nobody has the other side open any more.
            _ => {
                self.output_open = false;
                false
            }
        }
    }

    /// Copies what the process has written before it ended.
    pub(super) fn drain(&mut self) {
        while self.copy_output() {}
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some((host, before)) = &self.host {
            // SAFETY: an open descriptor and a live termios that it gave itself.
            unsafe { libc::tcsetattr(host.as_raw_fd(), libc::TCSANOW, std::ptr::from_ref(before)) };
        }
    }
}

/// The caller's terminal: whichever standard stream is one, else the controlling one.
fn host_terminal() -> Option<OwnedFd> {
    let streams = [
        io::stderr().as_fd().try_clone_to_owned(),
        io::stdout().as_fd().try_clone_to_owned(),
        io::stdin().as_fd().try_clone_to_owned(),
    ];
    streams
        .into_iter()
        .flatten()
        .find(is_terminal)
        .or_else(|| File::open("/dev/tty").ok().map(OwnedFd::from))
}

fn is_terminal(descriptor: &OwnedFd) -> bool {
    // SAFETY: plain call with a valid descriptor.
    unsafe { libc::isatty(descriptor.as_raw_fd()) == 1 }
}

/// Makes a terminal raw and answers how it was; `None` if it cannot be.
fn make_raw(terminal: BorrowedFd<'_>) -> Option<libc::termios> {
    // SAFETY: all zeros is a valid termios, which the calls fill and read while it lives.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings) < 0 {
            return None;
        }
        let before = settings;
        libc::cfmakeraw(&raw mut settings);
        // Line ends of what is written here by others stay as they were.
        settings.c_oflag = before.c_oflag;
        if libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw const settings) < 0 {
            return None;
        }
        Some(before)
    }
}

/// Writes everything. A caller that has closed its end, or is too slow to be waited for with
/// `O_NONBLOCK`, is waited for all the same.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if would_block(&error) => {
                let mut poll = libc::pollfd {
                    fd: to.as_raw_fd(),
                    events: libc::POLLOUT,
                    revents: 0,
                };
                // SAFETY: one pollfd that lives over the call.
                unsafe { libc::poll(&raw mut poll, 1, -1) };
            }
            Err(_) => return,
        }
    }
}

//! Commands that run beside a test: with pipes or on a terminal, always with a deadline.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished command has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output without white space around it; the command must have succeeded.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    #[must_use]
    pub fn ok(&self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout.trim().to_owned()
    }

    /// Standard error; the command must have failed with this code.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    pub fn fails(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.stderr.trim().to_owned()
    }
}

/// What a reader thread has read so far.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Mutex<Vec<u8>>,
    grown: Condvar,
}

impl Buffer {
    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn fill(self: &Arc<Self>, mut source: File) -> JoinHandle<()> {
        let buffer = Arc::clone(self);
        std::thread::spawn(move || {
            let mut chunk = [0; 64 * 1024];
            // A terminal whose other end is closed answers EIO; that is its end, too.
            while let Ok(count @ 1..) = source.read(&mut chunk) {
                let mut bytes = buffer.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&chunk[..count]);
                buffer.grown.notify_all();
            }
        })
    }

    fn wait_for(&self, text: &str) -> bool {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = |bytes: &mut Vec<u8>| !String::from_utf8_lossy(bytes).contains(text);
        let waited = self.grown.wait_timeout_while(bytes, PATIENCE, absent);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// A running command.
#[derive(Debug)]
pub struct Session {
    child: Child,
    line: String,
    stdin: Option<File>,
    stdout: Arc<Buffer>,
    stderr: Arc<Buffer>,
    readers: Vec<JoinHandle<()>>,
}

impl Session {
    /// Starts a command with pipes.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let stdin = child
            .stdin
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        let stdout = child
            .stdout
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        let stderr = child
            .stderr
            .take()
            .map(|pipe| File::from(OwnedFd::from(pipe)));
        Self::new(child, line, stdin, stdout, stderr)
    }

    /// Starts a command on a terminal of 24 rows and 80 columns; all its output is `stdout`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start_on_terminal(command: &mut Command) -> Self {
        let (master, slave) = open_terminal();
        let own = || Stdio::from(slave.try_clone().expect("a descriptor is free"));
        command.stdin(own()).stdout(own()).stderr(own());
        command.env("TERM", "xterm");
        // SAFETY: between fork and exec only setsid(2) and ioctl(2) are called, which are
        // async-signal-safe; descriptor 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let line = format!("{command:?}");
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        // The command keeps its descriptors of the terminal's other end until it is dropped.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let output = master.try_clone().expect("a descriptor is free");
        Self::new(child, line, Some(master), Some(output), None)
    }

    fn new(
        child: Child,
        line: String,
        stdin: Option<File>,
        stdout: Option<File>,
        stderr: Option<File>,
    ) -> Self {
        let mut session = Self {
            child,
            line,
            stdin,
            stdout: Arc::default(),
            stderr: Arc::default(),
            readers: Vec::new(),
        };
        let out = stdout.map(|pipe| session.stdout.fill(pipe));
        let err = stderr.map(|pipe| session.stderr.fill(pipe));
        session.readers.extend(out.into_iter().chain(err));
        session
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// If nobody reads it.
    pub fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes());
    }

    /// Writes bytes to its standard input.
    ///
    /// # Panics
    /// If nobody reads it.
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin
            .write_all(bytes)
            .unwrap_or_else(|error| panic!("{}: write: {error}", self.line));
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for a text on its standard output.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        self.expect_on(&self.stdout, text);
    }

    /// Waits for a text on its standard error.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn expect_error(&self, text: &str) {
        self.expect_on(&self.stderr, text);
    }

    #[track_caller]
    fn expect_on(&self, buffer: &Buffer, text: &str) {
        assert!(
            buffer.wait_for(text),
            "{}: waited in vain for {text:?}; stdout {:?}, stderr {:?}",
            self.line,
            self.stdout.text(),
            self.stderr.text()
        );
    }

    /// Resizes its terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(
            self.stdin.as_ref().expect("the terminal is open"),
            rows,
            columns,
        );
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        // SAFETY: kill(2) takes no pointers; the child is not waited for yet, so the id is its.
        unsafe { libc::kill(pid, signal) };
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn wait(self) -> Output {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end for some time.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    pub fn wait_within(mut self, limit: Duration) -> Output {
        let due = Instant::now() + limit;
        let mut pause = Duration::from_micros(500);
        let status = loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                break status;
            }
            assert!(
                Instant::now() < due,
                "{} does not end; stdout {:?}, stderr {:?}",
                self.line,
                self.stdout.text(),
                self.stderr.text()
            );
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        self.stdin = None;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Output {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Both ends of a new pseudo-terminal. No other child inherits them.
fn open_terminal() -> (File, File) {
    let open = File::options().read(true).write(true).open("/dev/ptmx");
    let master = open.expect("there are pseudo-terminals");
    let unlocked: libc::c_int = 0;
    // SAFETY: the descriptor is open and `unlocked` outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) });
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: this ioctl(2) takes flags, no pointer, and returns a new descriptor.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) });
    // SAFETY: it was just opened and has no other owner.
    let slave = unsafe { File::from_raw_fd(slave) };
    set_size(&master, 24, 80);
    (master, slave)
}

fn set_size(terminal: &File, rows: u16, columns: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and `size` outlives the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) });
}

fn check(result: libc::c_int) -> libc::c_int {
    assert!(result >= 0, "terminal: {}", io::Error::last_os_error());
    result
}

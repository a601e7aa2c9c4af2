//! Stdio of a plain process: pipes on one side, attached clients on the other.

use gamut_abi::control::Attach;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Largest piece of output sent in one frame.
const PIECE_BYTES: usize = 16 << 10;

/// One of the two outputs, by its number in Docker's frames.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Stdout = 1,
    Stderr = 2,
}

/// Stdin of a process.
#[derive(Debug, Default)]
enum Input {
    /// The process is not there yet: clients' bytes wait.
    #[default]
    Awaited,
    /// The writing end of its pipe.
    Open(File),
    /// Closed, or the process has none.
    Closed,
}

/// Clients of one process.
#[derive(Debug, Default)]
struct Inner {
    clients: Vec<(Attach, File)>,
    input: Input,
    stdin_once: bool,
    ended: bool,
}

/// Clients and stdin of one process, shared with the threads that carry the bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<(Mutex<Inner>, Condvar)>);

impl Streams {
    /// Streams of a process that is not there yet.
    pub(super) fn new(stdin_once: bool) -> Self {
        let streams = Self::default();
        streams.lock().stdin_once = stdin_once;
        streams
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The entries are whole, whoever panicked.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects a client. Its input is carried by a thread of its own.
    ///
    /// # Errors
    /// Those of dup(2), or if no thread can be had.
    pub(super) fn attach(&self, attach: Attach, stream: OwnedFd) -> io::Result<()> {
        let stream = File::from(stream);
        if attach.stdin {
            let reader = stream.try_clone()?;
            let streams = self.clone();
            thread::Builder::new()
                .name("stdin".to_owned())
                .spawn(move || streams.carry_input(reader))?;
        }
        let mut inner = self.lock();
        // A client that comes after the end sees the end at once.
        if !inner.ended && (attach.stdout || attach.stderr) {
            inner.clients.push((attach, stream));
        }
        Ok(())
    }

    /// The process is there, with this stdin or none.
    pub(super) fn open_input(&self, stdin: Option<File>) {
        self.lock().input = stdin.map_or(Input::Closed, Input::Open);
        self.0.1.notify_all();
    }

    /// A duplicate of stdin, once the process is there. It shares the pipe, so that a slow process
    /// blocks only the thread that writes.
    fn input(&self) -> Option<File> {
        let mut inner = self.lock();
        loop {
            match &inner.input {
                Input::Open(stdin) => return stdin.try_clone().ok(),
                Input::Closed => return None,
                Input::Awaited => {
                    inner = self.0.1.wait(inner).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn carry_input(&self, mut client: File) {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match client.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
                Ok(count) => {
                    let Some(mut stdin) = self.input() else {
                        return;
                    };
                    if stdin.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            }
        }
        // The end of a client that came early is the end of a stdin that is still to come.
        drop(self.input());
        let mut inner = self.lock();
        if inner.stdin_once {
            inner.input = Input::Closed;
        }
    }

    /// Carries one output to its clients until it ends.
    pub(super) fn carry_output(&self, output: Output, mut pipe: File) {
        let mut frame = vec![0; 8 + PIECE_BYTES];
        loop {
            let count = match pipe.read(&mut frame[8..]) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
                Ok(count) => count,
            };
            let length = u32::try_from(count).unwrap_or(u32::MAX);
            frame[..4].copy_from_slice(&[output as u8, 0, 0, 0]);
            frame[4..8].copy_from_slice(&length.to_be_bytes());
            let piece = &frame[..8 + count];
            self.lock().clients.retain_mut(|(attach, client)| {
                let wanted = match output {
                    Output::Stdout => attach.stdout,
                    Output::Stderr => attach.stderr,
                };
                !wanted || client.write_all(piece).is_ok()
            });
        }
    }

    /// The process and its output have ended: clients see the end.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        inner.input = Input::Closed;
        self.0.1.notify_all();
        for (_, client) in inner.clients.drain(..) {
            shut_down(&client);
        }
    }
}

/// Ends a socket even though a thread still holds a duplicate of it.
fn shut_down(client: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: shutdown only takes the number of a descriptor that `client` keeps open. It fails
    // harmlessly on anything but a socket.
    unsafe { libc::shutdown(client.as_raw_fd(), libc::SHUT_RDWR) };
}

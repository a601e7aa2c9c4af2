//! A machine by QEMU's binary translator, where there is no `/dev/kvm`.
//!
//! ```text
//! [files] image, configuration text ─► QEMU [command, start] ─► the image's PVH entry
//!    taps and block files: by descriptor, QEMU's own devices carry the requests out
//!    taps over which the guest asks for names: [relay] ◄─► QEMU, frame by frame
//!    console ─► standard output     control line ─[records]─► how the guest has ended
//! ```
//!
//! QEMU is a child of the monitor with as little as the monitor itself: nobody's rights, no new
//! ones, no sockets, no further programs. Neither survives the other.

mod command;
mod files;
pub mod records;
mod relay;
mod start;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use gamut_abi::guest::control_line::STOP;
use gamut_abi::monitor::Accelerator;

use crate::control::Control;
use crate::ending::{Ending, Fault};
use crate::layout::Layout;
use crate::machine::Guest;
use crate::net::Tap;
use crate::report::Registers;
use records::{Reader, Record};
use relay::Relay;
pub use start::{Setup, Wanted};

/// Read at once from a stream, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// What QEMU says last is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 2048;

/// A guest in QEMU.
pub struct TcgMachine {
    process: libc::pid_t,
    /// What QEMU and the guest send: control line, console, QEMU's own messages. `None`: ended.
    line: Option<File>,
    console: Option<File>,
    messages: Option<File>,
    control: Arc<Control>,
    layout: Layout,
    /// Held to see when one is deleted, or for a relay.
    taps: Vec<Tap>,
    relays: Vec<Relay>,
    output: Box<dyn Write + Send>,
    reader: Reader,
    said: VecDeque<u8>,
    frames: Vec<u64>,
    registers: Registers,
    is_listening: bool,
    is_told_to_stop: bool,
    ending: Option<Ending>,
}

/// One round of waiting: what has happened.
#[derive(Default)]
struct Events {
    line: bool,
    console: bool,
    messages: bool,
    lost_tap: Option<usize>,
    frames: bool,
}

impl TcgMachine {
    fn wait(&self) -> Events {
        let open = |stream: &Option<File>| stream.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut polled: Vec<libc::pollfd> = [
            self.control.wake_descriptor(),
            open(&self.line),
            open(&self.console),
            open(&self.messages),
        ]
        .into_iter()
        .map(|fd| (fd, libc::POLLIN))
        // Frames are QEMU's, but for those of a relay; of errors one hears without asking.
        .chain(self.taps.iter().enumerate().map(|(index, tap)| {
            let is_relayed = self.relays.iter().any(|relay| relay.tap() == index);
            let events = if is_relayed { libc::POLLIN } else { 0 };
            (tap.descriptor(), events)
        }))
        .chain(self.relays.iter().flat_map(|relay| {
            let descriptors = relay.descriptors(&self.taps).into_iter();
            descriptors.map(|fd| (fd, libc::POLLIN))
        }))
        .map(|(fd, events)| libc::pollfd {
            fd,
            events,
            revents: 0,
        })
        .collect();
        // SAFETY: the array is valid for reads and writes of its length.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        let has = |index: usize| polled.get(index).is_some_and(|one| one.revents != 0);
        let has_lost = |index: usize| {
            let events = polled.get(index).map_or(0, |one| one.revents);
            events & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
        };
        if has(0) {
            self.control.take_call();
        }
        Events {
            line: has(1),
            console: has(2),
            messages: has(3),
            lost_tap: (0..self.taps.len()).find(|index| has_lost(4 + index)),
            frames: polled.iter().skip(4).any(|one| one.revents != 0),
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            // SAFETY: a child that has not been waited for.
            unsafe { libc::kill(self.process, libc::SIGKILL) };
        }
    }

    fn handle(&mut self, record: Record) {
        match record {
            Record::Ready => self.is_listening = true,
            Record::Backtrace(frames) => self.frames = frames,
            Record::End(ending, registers) => {
                self.registers = *registers;
                self.end(ending);
            }
        }
    }

    fn read_line(&mut self) {
        let bytes = read(&mut self.line);
        self.reader.feed(&bytes);
        while self.ending.is_none() {
            match self.reader.take() {
                Ok(Some(record)) => self.handle(record),
                Ok(None) => break,
                Err(problem) => self.end(Ending::Fault(Fault::Request(problem.to_string()))),
            }
        }
    }

    fn read_console(&mut self) {
        let bytes = read(&mut self.console);
        // Whether anybody listens is not the guest's business.
        let _ = self
            .output
            .write_all(&bytes)
            .and_then(|()| self.output.flush());
    }

    fn read_messages(&mut self) {
        self.said.extend(read(&mut self.messages));
        let surplus = self.said.len().saturating_sub(MAX_MESSAGE_BYTES);
        self.said.drain(..surplus);
    }

    fn pass_stop_on(&mut self) {
        if self.is_told_to_stop || !self.is_listening || !self.control.is_stopping() {
            return;
        }
        if let Some(line) = &mut self.line {
            self.is_told_to_stop = line.write_all(&[STOP]).is_ok();
        }
    }

    fn turn(&mut self) {
        let events = self.wait();
        if events.console {
            self.read_console();
        }
        if events.messages {
            self.read_messages();
        }
        if events.line {
            self.read_line();
        }
        if let Some(index) = events.lost_tap {
            self.end(Ending::Machine(format!(
                "network device {index} is gone: its interface was deleted"
            )));
        }
        if events.frames {
            let mut relays = self.relays.iter_mut();
            let lost = relays.find_map(|relay| relay.carry(&mut self.taps).err());
            if let Some(lost) = lost {
                self.end(Ending::Machine(lost.to_string()));
            }
        }
        self.pass_stop_on();
    }

    /// What it means that QEMU has ended although the guest has not said so.
    fn explain(&mut self, status: i32) -> Ending {
        let said: Vec<u8> = self.said.iter().copied().collect();
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        let separator = if said.is_empty() { "" } else { ": " };
        if libc::WIFSIGNALED(status) {
            return Ending::Machine(format!(
                "QEMU was killed by signal {}{separator}{said}",
                libc::WTERMSIG(status)
            ));
        }
        match libc::WEXITSTATUS(status) {
            // Reset, which ends QEMU by -no-reboot.
            0 => Ending::Fault(Fault::Unsupported(
                "triple fault: its exception could not be delivered".to_owned(),
            )),
            // isa-debug-exit makes odd ones only, but so does QEMU itself with 1: there, it has
            // said why.
            code if code & 1 == 1 && said.is_empty() => {
                Ending::Exited(u8::try_from(code >> 1).unwrap_or(u8::MAX))
            }
            code => Ending::Machine(format!("QEMU ended with status {code}{separator}{said}")),
        }
    }
}

/// What a stream has; nothing any more once it has ended.
fn read(stream: &mut Option<File>) -> Vec<u8> {
    let mut bytes = vec![0; PIECE_BYTES];
    let count = match stream.as_mut().map(|stream| stream.read(&mut bytes)) {
        Some(Err(error)) if error.kind() == ErrorKind::Interrupted => 0,
        None | Some(Ok(0) | Err(_)) => {
            *stream = None;
            0
        }
        Some(Ok(count)) => count,
    };
    bytes.truncate(count);
    bytes
}

impl Guest for TcgMachine {
    fn accelerator(&self) -> Accelerator {
        Accelerator::Tcg
    }

    fn run(&mut self) -> Ending {
        self.pass_stop_on();
        while self.line.is_some() || self.console.is_some() || self.messages.is_some() {
            self.turn();
        }
        let mut status = 0;
        // SAFETY: the status is valid for writes. An interruption counts as well: try again.
        while unsafe { libc::waitpid(self.process, &raw mut status, 0) } < 0
            && std::io::Error::last_os_error().kind() == ErrorKind::Interrupted
        {}
        match self.ending.take() {
            Some(ending) => ending,
            None => self.explain(status),
        }
    }

    fn registers(&self) -> Registers {
        self.registers
    }

    fn frames(&self) -> Vec<u64> {
        self.frames.clone()
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn file(descriptor: impl Into<OwnedFd>) -> File {
    File::from(descriptor.into())
}

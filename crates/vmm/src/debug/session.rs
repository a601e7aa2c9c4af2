//! One debugger, from its connection to its end.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{GdbStubBuilder, SingleThreadStopReason};

use crate::control::Control;
use crate::device::Devices;
use crate::ending::Ending;
use crate::kvm::KvmMachine;
use crate::machine::Machine;

use super::link::{Link, has_input};
use super::target::{Guest, Stop};

/// Longest packet of a debugger.
const PACKET_BYTES: usize = 16 << 10;

/// Serves a debugger whose guest stands. `Some`: the guest has ended meanwhile.
pub(super) fn serve(
    machine: &mut KvmMachine,
    devices: &mut Devices,
    image_file: &File,
    control: &Control,
    link: &Link,
    stream: &Arc<UnixStream>,
) -> Option<Ending> {
    let mut guest = match Guest::stopped(machine, devices, image_file) {
        Ok(guest) => guest,
        Err(ending) => return Some(ending),
    };
    let mut session = Session {
        control,
        link,
        stream,
        input: Vec::new(),
    };
    // However it ended, the debugger is gone.
    let _ = session.run(&mut guest, devices);
    guest.release()
}

struct Session<'session> {
    control: &'session Control,
    link: &'session Link,
    stream: &'session Arc<UnixStream>,
    /// What was read and is still to be handled, the last byte first.
    input: Vec<u8>,
}

impl Session<'_> {
    /// The next byte; none at the end.
    fn next(&mut self) -> io::Result<Option<u8>> {
        while self.input.is_empty() {
            let mut buffer = [0; 4096];
            // A signal that was to pause the guest may come late.
            let count = match read(self.stream, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                return Ok(None);
            }
            self.input
                .extend(buffer.get(..count).unwrap_or_default().iter().rev());
        }
        Ok(self.input.pop())
    }

    fn run(&mut self, guest: &mut Guest<'_>, devices: &mut Devices) -> io::Result<()> {
        let mut packet = vec![0; PACKET_BYTES];
        let failed = |error: String| io::Error::other(error);
        let stub = GdbStubBuilder::new(Output(Vec::new(), Arc::clone(self.stream)))
            .with_packet_buffer(&mut packet)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let mut state = stub
            .run_state_machine(guest)
            .map_err(|error| failed(error.to_string()))?;
        loop {
            let next = match state {
                GdbStubStateMachine::Idle(idle) => match self.next()? {
                    Some(byte) => idle.incoming_data(guest, byte),
                    None => return Ok(()),
                },
                GdbStubStateMachine::Running(running) => {
                    if !self.input.is_empty() || has_input(self.stream) {
                        match self.next()? {
                            Some(byte) => running.incoming_data(guest, byte),
                            None => return Ok(()),
                        }
                    } else {
                        match self.go_on(guest, devices) {
                            Some(reason) => running.report_stop(guest, reason),
                            None => Ok(running.into()),
                        }
                    }
                }
                GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                    let reason = SingleThreadStopReason::Signal(Signal::SIGINT);
                    interrupt.interrupt_handled(guest, Some(reason))
                }
                GdbStubStateMachine::Disconnected(_) => return Ok(()),
            };
            state = next.map_err(|error| failed(error.to_string()))?;
        }
    }

    /// Lets the guest run. `None`: the debugger says something.
    fn go_on(
        &self,
        guest: &mut Guest<'_>,
        devices: &mut Devices,
    ) -> Option<SingleThreadStopReason<u64>> {
        self.control.resume();
        self.link.guest_runs(self.stream);
        let stop = guest.run(devices);
        self.link.guest_stands();
        match stop {
            Stop::Interrupted => None,
            Stop::Breakpoint => Some(SingleThreadStopReason::SwBreak(())),
            Stop::Step => Some(SingleThreadStopReason::DoneStep),
            Stop::Trap => Some(SingleThreadStopReason::Signal(Signal::SIGTRAP)),
            Stop::Failed(signal) => Some(SingleThreadStopReason::Signal(signal)),
            Stop::Exited(code) => Some(SingleThreadStopReason::Exited(code)),
        }
    }
}

/// Reads by read(2): the standard library's calls for sockets are forbidden to this thread.
fn read(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is valid for writes of its length.
    let count = unsafe { libc::read(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes by write(2), for the same reason.
fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: `bytes` is valid for reads of its length.
        let count = unsafe { libc::write(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(count) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// What goes to the debugger, packet by packet.
struct Output(Vec<u8>, Arc<UnixStream>);

impl Connection for Output {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = write_all(&self.1, &self.0);
        self.0.clear();
        sent
    }
}

/// Whether the guest stands in the monitor's stub, where a debugger has nothing to look for.
pub(super) fn is_in_stub(machine: &KvmMachine) -> bool {
    let rip = machine.registers().get(crate::report::RIP);
    let stub = crate::layout::STUB_ADDRESS;
    (stub..stub + crate::layout::PAGE_BYTES).contains(&rip)
}

//! Debugging a guest with GDB's remote protocol (GDB manual, appendix E).
//!
//! A monitor listens from its start, which costs nothing until somebody connects. Then the guest
//! stops, and the thread that ran it speaks with the debugger ([`session`]); the one that watches
//! ([`link`]) interrupts the guest when the debugger says something meanwhile. When the debugger
//! detaches or goes away, its breakpoints are taken out and the guest goes on.

mod attended;
mod files;
mod link;
mod session;
mod target;

pub(crate) use attended::Attended;
pub(crate) use link::{Link, listen};

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::control::Control;
use crate::device::Devices;
use crate::ending::Ending;
use crate::kvm::KvmMachine;
use crate::machine::Machine;

/// What debugging needs, made before the privileges are given up.
#[derive(Debug)]
pub(crate) struct Debugging {
    listener: UnixListener,
    link: Arc<Link>,
}

impl Debugging {
    /// Opens the socket.
    pub(crate) fn open(path: &str) -> crate::error::Result<Self> {
        Ok(Self {
            listener: listen(path)?,
            link: Arc::default(),
        })
    }

    /// What the processor's thread needs of it.
    pub(crate) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    /// Takes debuggers and watches them. Ends with the process.
    pub(crate) fn watch(&self, control: &Control) {
        self.link.watch(&self.listener, control);
    }
}

/// Runs a guest to its end, with the debuggers that come meanwhile.
pub(crate) fn run(
    machine: &mut KvmMachine,
    devices: &mut Devices,
    control: &Control,
    link: &Link,
    image_file: &File,
) -> Ending {
    loop {
        let ending = machine.run(devices);
        if ending != Ending::Paused {
            return ending;
        }
        let Some(stream) = link.take() else {
            return ending;
        };
        let ended = session::serve(machine, devices, image_file, control, link, &stream);
        link.end(&stream);
        if let Some(ending) = ended {
            return ending;
        }
        control.resume();
    }
}

//! A guest of this process's own, with what is done for it on the way: debuggers that come, and
//! the core file that it leaves.

use std::fs::File;
use std::sync::Arc;

use gamut_abi::monitor::Accelerator;

use super::{Link, run};
use crate::control::Control;
use crate::ending::Ending;
use crate::kvm::KvmMachine;
use crate::layout::Layout;
use crate::machine::{Guest, Machine, Own};
use crate::report::Registers;
use crate::solo5::core_file;

/// A guest that debuggers can attend.
pub(crate) struct Attended {
    own: Own<KvmMachine>,
    control: Arc<Control>,
    link: Option<Arc<Link>>,
    image_file: File,
    core_file: Option<File>,
}

impl Attended {
    /// A guest for debuggers that come by `link`, if any may; its symbols are in `image_file`.
    pub(crate) fn new(
        own: Own<KvmMachine>,
        control: Arc<Control>,
        link: Option<Arc<Link>>,
        image_file: File,
    ) -> Self {
        Self {
            own,
            control,
            link,
            image_file,
            core_file: None,
        }
    }

    /// The same, which leaves its state in a file when it aborts.
    pub(crate) fn with_core_file(self, core_file: Option<File>) -> Self {
        Self { core_file, ..self }
    }
}

impl Guest for Attended {
    fn accelerator(&self) -> Accelerator {
        self.own.accelerator()
    }

    fn run(&mut self) -> Ending {
        let Own { machine, devices } = &mut self.own;
        let ending = match &self.link {
            Some(link) => run(machine, devices, &self.control, link, &self.image_file),
            None => machine.run(devices),
        };
        if let Some(file) = &self.core_file
            && ending == Ending::Exited(core_file::ABORTED)
            && let Err(error) = core_file::write(file, &machine.registers(), machine.memory())
        {
            crate::monitor::tell(&format!("solo5-hvt: dumpcore: {error}\n"));
        }
        ending
    }

    fn registers(&self) -> Registers {
        self.own.registers()
    }

    fn frames(&self) -> Vec<u64> {
        self.own.frames()
    }

    fn layout(&self) -> &Layout {
        self.own.layout()
    }
}

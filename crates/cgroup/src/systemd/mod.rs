//! Control groups that systemd makes: a transient scope per container, in a slice.
//!
//! systemd demands to be the only one who makes groups outside of what it has delegated, on
//! machines where it runs (<https://systemd.io/CGROUP_DELEGATION>). A scope needs a process from
//! the start, so a placeholder holds the place until the container's first process is there.

mod bus;
mod name;
mod placeholder;
mod properties;
mod wire;

pub use name::systemd_path;
pub use wire::fuzz_dbus;

use crate::error::Error;
use bus::{Bus, CallError, Refusal};
use gamut_abi::resources::Resources;
use placeholder::Placeholder;
use std::io;
use std::sync::{Mutex, PoisonError};
use wire::{Value, Writer};

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// A transient scope.
#[derive(Debug)]
pub(crate) struct Unit {
    name: String,
    slice: String,
    placeholder: Mutex<Option<Placeholder>>,
}

impl Unit {
    /// The scope whose control group is at `path`.
    pub(crate) fn of_path(path: &str) -> Result<Self, Error> {
        let (slice, name) = name::split_path(path)?;
        Ok(Self {
            name: name.to_owned(),
            slice: slice.to_owned(),
            placeholder: Mutex::new(None),
        })
    }

    fn connect(&self) -> Result<Bus, Error> {
        Bus::connect().map_err(|error| {
            Error::system("reach systemd for", &*self.name, error).with_hint(
                "its driver needs a running systemd and the rights of root; otherwise use a path such as /gamut/NAME",
            )
        })
    }

    fn failed(&self, operation: &'static str, error: CallError) -> Error {
        let source = match error {
            CallError::Transport(error) => error,
            CallError::Refused(Refusal { name, text }) => {
                io::Error::other([text.as_str(), " (", &name, ")"].concat())
            }
        };
        Error::system(operation, &*self.name, source)
    }

    /// Makes the scope, with a placeholder in it, and waits until its group is there.
    pub(crate) fn start(&self) -> Result<(), Error> {
        let mut bus = self.connect()?;
        let placeholder = Placeholder::new()
            .map_err(|error| Error::system("make a process for", &*self.name, error))?;
        self.start_over(&mut bus, placeholder.pid())?;
        *self.lock() = Some(placeholder);
        Ok(())
    }

    fn start_over(&self, bus: &mut Bus, pid: u32) -> Result<(), Error> {
        let operation = "start systemd unit";
        let job = match self.start_once(bus, pid) {
            // What is left of a scope of that name that has failed.
            Err(CallError::Refused(refusal)) if refusal.name == UNIT_EXISTS => {
                let _ = self.reset_failed(bus);
                self.start_once(bus, pid)
            }
            other => other,
        };
        let job = job.map_err(|error| self.failed(operation, error))?;
        self.wait(bus, &job, operation)
    }

    fn start_once(&self, bus: &mut Bus, pid: u32) -> Result<String, CallError> {
        let mut body = Writer::default();
        body.text(&self.name);
        body.text("fail");
        body.properties(&[
            (
                "Description",
                Value::Text(["container ", &self.name].concat()),
            ),
            ("Slice", Value::Text(self.slice.clone())),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            // Nothing of it stays behind, whichever way it ends.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
            ("PIDs", Value::Numbers(vec![pid])),
        ]);
        body.array(8, |_| {});
        let texts = bus.manager("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?;
        Ok(texts.into_iter().next().unwrap_or_default())
    }

    fn wait(&self, bus: &mut Bus, job: &str, operation: &'static str) -> Result<(), Error> {
        let result = bus
            .wait_for_job(job)
            .map_err(|error| Error::system(operation, &*self.name, error))?;
        if result == "done" || result == "skipped" {
            return Ok(());
        }
        let text = ["systemd's job ended with \"", &result, "\""].concat();
        Err(Error::system(
            operation,
            &*self.name,
            io::Error::other(text),
        ))
    }

    /// Tells systemd the limits. One sentence for each that it does not know.
    pub(crate) fn set(&self, resources: &Resources) -> Result<Vec<String>, Error> {
        let wanted = properties::properties(resources);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut bus = self.connect()?;
        if self.set_over(&mut bus, &wanted).is_ok() {
            return Ok(Vec::new());
        }
        // One that is unknown makes all of them fail.
        let mut warnings = Vec::new();
        for property in wanted {
            match self.set_over(&mut bus, std::slice::from_ref(&property)) {
                Ok(()) => {}
                Err(CallError::Refused(refusal)) if refusal.name != NO_SUCH_UNIT => {
                    warnings.push(
                        [
                            "systemd does not take ",
                            property.0,
                            " of ",
                            &self.name,
                            ": ",
                            &refusal.text,
                        ]
                        .concat(),
                    );
                }
                Err(error) => return Err(self.failed("set the limits of systemd unit", error)),
            }
        }
        Ok(warnings)
    }

    fn set_over(&self, bus: &mut Bus, wanted: &[properties::Property]) -> Result<(), CallError> {
        let mut body = Writer::default();
        body.text(&self.name);
        body.flag(true);
        body.properties(wanted);
        bus.manager("SetUnitProperties", "sba(sv)", &body).map(drop)
    }

    /// The container's own process is there.
    pub(crate) fn release_placeholder(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Placeholder>> {
        // Whatever panicked meanwhile, the place is taken or it is not.
        self.placeholder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the scope, killing what is in it, and forgets it. One that is gone is fine.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.release_placeholder();
        self.stop_over(&mut self.connect()?)
    }

    fn stop_over(&self, bus: &mut Bus) -> Result<(), Error> {
        let operation = "stop systemd unit";
        let mut body = Writer::default();
        body.text(&self.name);
        body.text("replace");
        match bus.manager("StopUnit", "ss", &body) {
            Ok(texts) => {
                if let Some(job) = texts.first() {
                    self.wait(bus, job, operation)?;
                }
            }
            Err(CallError::Refused(refusal)) if refusal.name == NO_SUCH_UNIT => {}
            Err(error) => return Err(self.failed(operation, error)),
        }
        match self.reset_failed(bus) {
            Ok(()) => Ok(()),
            Err(CallError::Refused(refusal)) if refusal.name == NO_SUCH_UNIT => Ok(()),
            Err(error) => Err(self.failed("reset systemd unit", error)),
        }
    }

    fn reset_failed(&self, bus: &mut Bus) -> Result<(), CallError> {
        let mut body = Writer::default();
        body.text(&self.name);
        bus.manager("ResetFailedUnit", "s", &body).map(drop)
    }
}

#[cfg(test)]
mod tests;

//! Sets limits: every controller in the version of the hierarchy that has it.

use crate::controller::Controller;
use crate::devices;
use crate::error::Error;
use crate::group::Group;
use crate::hierarchy::Hierarchy;
use crate::{apply_network, apply_v1, apply_v2};
use gamut_abi::resources::{Cpu, Io, Limit, Memory, Resources};
use std::io;

impl Group {
    /// Sets what is set in `resources` and leaves the rest as it is. Returns one sentence for each
    /// thing that could not be had because the kernel or the machine lacks it; everything else
    /// is in force.
    ///
    /// Weights given in the other version's scale are converted (see [`crate::shares_to_weight`],
    /// [`crate::weight_to_shares`], [`crate::blkio_to_io_weight`]). v1's memory+swap limit is kept
    /// at memory plus swap; if a change needs two writes and the second fails, the first is undone.
    ///
    /// # Errors
    /// If the kernel refuses a value, or `unified` is given on a machine without cgroup v2; the
    /// error names file, value and cause. Limits set before it stay set.
    pub fn apply(&self, resources: &Resources) -> Result<Vec<String>, Error> {
        let mut apply = Apply {
            group: self,
            warnings: Vec::new(),
        };
        check_unified(self, resources)?;
        apply_network::check(self, resources)?;
        if let Some(unit) = &self.unit {
            apply.warnings.extend(unit.set(resources)?);
        }
        apply.cpu(&resources.cpu)?;
        apply.cpuset(&resources.cpu)?;
        apply.memory(&resources.memory)?;
        apply.pids(resources)?;
        apply.io(&resources.io)?;
        apply.hugetlb(resources)?;
        apply.rdma(resources)?;
        apply_network::apply(&mut apply, resources)?;
        devices::apply(self, &resources.devices)?;
        apply.unified(resources)?;
        Ok(apply.warnings)
    }
}

pub(crate) struct Apply<'a> {
    pub(crate) group: &'a Group,
    warnings: Vec<String>,
}

impl<'a> Apply<'a> {
    /// The hierarchy that has a controller. On hybrid machines the few controllers of the v2
    /// hierarchy are enabled when they are first needed: its root belongs to the machine.
    fn hierarchy(&self, controller: Controller) -> Option<&'a Hierarchy> {
        let hierarchy = self.group.hierarchies.locate(controller)?;
        if hierarchy.v2 {
            self.group.enable_controllers(hierarchy);
        }
        Some(hierarchy)
    }

    pub(crate) fn warn(&mut self, what: &str, why: &str) {
        let mut text = String::with_capacity(what.len() + why.len() + 18);
        text.push_str(what);
        text.push_str(" is not in force: ");
        text.push_str(why);
        self.warnings.push(text);
    }

    /// Writes a value; a file that the kernel does not have becomes a warning.
    pub(crate) fn set(
        &mut self,
        hierarchy: &Hierarchy,
        file: &str,
        value: &str,
        what: &str,
    ) -> Result<(), Error> {
        self.set_first(hierarchy, &[(file, value)], what)
    }

    /// Writes to the first of several files that exists; none becomes a warning.
    pub(crate) fn set_first(
        &mut self,
        hierarchy: &Hierarchy,
        files: &[(&str, &str)],
        what: &str,
    ) -> Result<(), Error> {
        for (file, value) in files {
            match self.group.try_write(hierarchy, file, value) {
                Ok(()) => return Ok(()),
                Err(error) if self.is_lacking(hierarchy, &error) => {}
                Err(error) => return Err(self.group.write_error(hierarchy, file, value, error)),
            }
        }
        let names: Vec<&str> = files.iter().map(|(file, _)| *file).collect();
        let mut why = String::from("the kernel has no ");
        why.push_str(&names.join(" or "));
        why.push_str(" here");
        self.warn(what, &why);
        Ok(())
    }

    /// Whether an error means that the kernel lacks a feature, and not that the group is gone.
    pub(crate) fn is_lacking(&self, hierarchy: &Hierarchy, error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => true,
            Some(libc::ENOENT) => self.group.exists_in(hierarchy),
            _ => false,
        }
    }

    fn cpu(&mut self, cpu: &Cpu) -> Result<(), Error> {
        let unset = Cpu {
            cpuset_cpus: cpu.cpuset_cpus.clone(),
            cpuset_mems: cpu.cpuset_mems.clone(),
            ..Cpu::default()
        };
        if *cpu == unset {
            return Ok(());
        }
        match self.hierarchy(Controller::Cpu) {
            Some(hierarchy) if hierarchy.v2 => apply_v2::cpu(self, hierarchy, cpu),
            Some(hierarchy) => apply_v1::cpu(self, hierarchy, cpu),
            None => {
                self.warn("the processor limit", NO_CONTROLLER);
                Ok(())
            }
        }
    }

    fn cpuset(&mut self, cpu: &Cpu) -> Result<(), Error> {
        // The files are the same in both versions.
        let wanted = [
            ("cpuset.cpus", &cpu.cpuset_cpus),
            ("cpuset.mems", &cpu.cpuset_mems),
        ];
        for (file, value) in wanted {
            let Some(value) = value else { continue };
            match self.hierarchy(Controller::Cpuset) {
                Some(hierarchy) => self.set(hierarchy, file, value, file)?,
                None => self.warn(file, NO_CONTROLLER),
            }
        }
        Ok(())
    }

    fn memory(&mut self, memory: &Memory) -> Result<(), Error> {
        if *memory == Memory::default() {
            return Ok(());
        }
        let hierarchy = self.hierarchy(Controller::Memory);
        if let Some(hierarchy) = hierarchy.filter(|_| memory.check_before_update) {
            self.check_usage(hierarchy, memory)?;
        }
        match hierarchy {
            Some(hierarchy) if hierarchy.v2 => apply_v2::memory(self, hierarchy, memory),
            Some(hierarchy) => apply_v1::memory(self, hierarchy, memory),
            None => {
                self.warn("the memory limit", NO_CONTROLLER);
                Ok(())
            }
        }
    }

    /// Refuses a limit below what is in use: the kernel would kill for it.
    fn check_usage(&self, hierarchy: &Hierarchy, memory: &Memory) -> Result<(), Error> {
        let Some(Limit::Value(limit)) = memory.max_bytes else {
            return Ok(());
        };
        let (file, usage_file) = if hierarchy.v2 {
            ("memory.max", "memory.current")
        } else {
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
        };
        let usage = self
            .group
            .try_read(hierarchy, usage_file)
            .ok()
            .and_then(|text| String::from_utf8(text).ok()?.trim().parse::<u64>().ok())
            .unwrap_or(0);
        if usage > limit {
            return Err(Error::invalid(
                "lower",
                [&self.group.path(), "/", file].concat(),
                "more memory is in use, and memory.checkBeforeUpdate forbids to kill for it; free some first",
            )
            .with_value(limit.to_string()));
        }
        Ok(())
    }

    fn pids(&mut self, resources: &Resources) -> Result<(), Error> {
        let Some(limit) = resources.pids_max else {
            return Ok(());
        };
        let what = "the task limit";
        match self.hierarchy(Controller::Pids) {
            Some(hierarchy) => self.set(hierarchy, "pids.max", &apply_v2::limit(limit), what),
            None => {
                self.warn(what, NO_CONTROLLER);
                Ok(())
            }
        }
    }

    fn io(&mut self, io: &Io) -> Result<(), Error> {
        if *io == Io::default() {
            return Ok(());
        }
        match self.hierarchy(Controller::Io) {
            Some(hierarchy) if hierarchy.v2 => apply_v2::io(self, hierarchy, io),
            Some(hierarchy) => apply_v1::io(self, hierarchy, io),
            None => {
                self.warn("the block I/O limit", NO_CONTROLLER);
                Ok(())
            }
        }
    }

    fn hugetlb(&mut self, resources: &Resources) -> Result<(), Error> {
        for entry in &resources.hugetlb {
            check_name(&entry.page_size)?;
            let what = "the huge page limit";
            match self.hierarchy(Controller::Hugetlb) {
                Some(hierarchy) if hierarchy.v2 => apply_v2::hugetlb(self, hierarchy, entry)?,
                Some(hierarchy) => apply_v1::hugetlb(self, hierarchy, entry)?,
                None => self.warn(what, NO_CONTROLLER),
            }
        }
        Ok(())
    }

    /// The file is the same in both versions.
    fn rdma(&mut self, resources: &Resources) -> Result<(), Error> {
        let what = "the RDMA limit";
        for entry in &resources.rdma {
            check_name(&entry.device)?;
            let mut line = entry.device.clone();
            for (key, value) in [("hca_handle", entry.handles), ("hca_object", entry.objects)] {
                if let Some(value) = value {
                    line.push_str(&[" ", key, "=", &value.to_string()].concat());
                }
            }
            match self.hierarchy(Controller::Rdma) {
                Some(hierarchy) => self.set(hierarchy, "rdma.max", &line, what)?,
                None => self.warn(what, NO_CONTROLLER),
            }
        }
        Ok(())
    }

    fn unified(&mut self, resources: &Resources) -> Result<(), Error> {
        // Whether there is a v2 hierarchy was checked before anything was written.
        let Some(hierarchy) = self.group.hierarchies.v2() else {
            return Ok(());
        };
        for (file, value) in &resources.unified {
            self.group.write(hierarchy, file, value)?;
        }
        Ok(())
    }
}

const NO_CONTROLLER: &str = "the machine has no such cgroup controller";

fn check_unified(group: &Group, resources: &Resources) -> Result<(), Error> {
    let Some((first, value)) = resources.unified.first() else {
        return Ok(());
    };
    let Some(v2) = group.hierarchies.v2() else {
        return Err(Error::invalid(
            "set unified resource",
            first.as_str(),
            "invalid configuration: this machine has cgroup v1 only; use the ordinary limits instead",
        )
        .with_value(value.as_str()));
    };
    for (name, value) in &resources.unified {
        let prefix = name.split('.').next();
        let elsewhere = Controller::ALL.into_iter().any(|controller| {
            controller.name_v2() == prefix && !v2.controllers.contains(controller)
        });
        if elsewhere {
            return Err(Error::invalid(
                "set unified resource",
                name.as_str(),
                "invalid configuration: this machine has the controller in cgroup v1, or not at all; use the ordinary limits instead",
            )
            .with_value(value.as_str()));
        }
    }
    resources
        .unified
        .iter()
        .try_for_each(|(name, _)| check_name(name))
}

/// A name that becomes part of a file name must stay in its directory.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0', '\n']) {
        return Err(Error::invalid(
            "use control file name",
            name,
            "it must be a plain file name",
        ));
    }
    Ok(())
}

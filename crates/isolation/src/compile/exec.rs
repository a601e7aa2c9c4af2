//! A further process in a container that was made by a configuration.

use super::field::invalid;
use super::{CompileOptions, Network, ProcessOptions, compile, seccomp_listener};
use crate::contract::RootSource;
use crate::error::Error;
use gamut_abi::plan::Plan;
use oci_spec::runtime::{Linux, LinuxIdMappingBuilder, LinuxNamespaceType, Process, Spec};
use std::path::{Path, PathBuf};

/// What came of a process.
#[derive(Debug)]
pub struct CompiledExec {
    /// The process, and of the container what concerns it: its namespaces, all of them to be
    /// joined, and what its processes have in common.
    pub plan: Plan,
    /// What had to be given up, one sentence each.
    pub warnings: Vec<String>,
}

/// Compiles a further process for the container that `spec`, read from `bundle`, made. It gets the container's system
/// call filter and, unless it has one of its own, its preference of the out-of-memory killer.
///
/// # Errors
/// [`Error::Invalid`] naming the field, which begins with `process`.
pub fn compile_exec(
    spec: &Spec,
    id: &str,
    bundle: &Path,
    process: &Process,
) -> Result<CompiledExec, Error> {
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| invalid("linux", "is missing; this is no configuration for Linux"))?;
    let mut process = process.clone();
    if process.oom_score_adj().is_none() {
        let own = spec.process().as_ref().and_then(Process::oom_score_adj);
        process.set_oom_score_adj(own);
    }
    let mut reduced = Spec::default();
    reduced
        .set_version(spec.version().clone())
        .set_process(Some(process))
        .set_linux(Some(reduced_linux(linux)))
        .set_mounts(None)
        .set_hostname(None);
    let nowhere = PathBuf::from("/");
    let options = CompileOptions {
        id: id.to_owned(),
        root: RootSource::Directory(nowhere.clone()),
        mount_point: nowhere,
        bundle: None,
        exact_bind_flags: false,
        network: Network::Config,
        cgroup_path: None,
        process: ProcessOptions::default(),
        is_host_network: |_: &Path| false,
    };
    let mut compiled = compile(&reduced, options)?;
    let listener = seccomp_listener(spec, id, Some(bundle), "running")?;
    compiled.plan.process.seccomp_listener = listener;
    Ok(CompiledExec {
        plan: compiled.plan,
        warnings: compiled.warnings,
    })
}

/// What of `linux` concerns every process. Namespaces are joined by way of the first process,
/// wherever they came from, so their paths do not matter any more.
fn reduced_linux(linux: &Linux) -> Linux {
    let mut reduced = linux.clone();
    let namespaces = linux.namespaces().clone().map(|mut namespaces| {
        for namespace in &mut namespaces {
            namespace.set_path(None);
        }
        namespaces
    });
    let has_user = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::User);
    if has_user && linux.uid_mappings().as_ref().is_none_or(Vec::is_empty) {
        // One that was joined has no mappings here, which a new one would need.
        let mapping = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(0_u32)
            .size(1_u32)
            .build()
            .map(|mapping| vec![mapping])
            .ok();
        reduced
            .set_uid_mappings(mapping.clone())
            .set_gid_mappings(mapping);
    }
    reduced
        .set_namespaces(namespaces)
        .set_sysctl(None)
        .set_resources(None)
        .set_cgroups_path(None)
        .set_devices(None)
        .set_rootfs_propagation(None)
        .set_masked_paths(None)
        .set_readonly_paths(None)
        .set_time_offsets(None)
        .set_mount_label(None)
        .set_intel_rdt(None)
        .set_net_devices(None);
    reduced
}

//! A further process in a container that was made by a configuration.

use super::field::invalid;
use super::{ProcessOptions, compile_process, namespaces, scheduling, seccomp, unsupported};
use crate::error::Error;
use gamut_abi::plan::{MemoryPolicy, Namespace, NamespaceSource, Process as PlanProcess};
use oci_spec::runtime::{Process, Spec};

/// What came of a process.
#[derive(Debug)]
pub struct CompiledExec {
    /// The process.
    pub process: PlanProcess,
    /// Namespaces of the container, all of them to be joined.
    pub namespaces: Vec<Namespace>,
    /// Execution domain of the container's processes, as personality(2) takes it.
    pub personality: Option<u32>,
    /// Memory policy of the container's processes.
    pub memory_policy: Option<MemoryPolicy>,
    /// What had to be given up, one sentence each.
    pub warnings: Vec<String>,
}

/// Compiles a further process for the container that `spec` made. It gets the container's system
/// call filter and, unless it has one of its own, its preference of the out-of-memory killer.
///
/// # Errors
/// [`Error::Invalid`] naming the field, which begins with `process`.
pub fn compile_exec(spec: &Spec, process: &Process) -> Result<CompiledExec, Error> {
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| invalid("linux", "is missing; this is no configuration for Linux"))?;
    unsupported::process(process)?;
    let seccomp = linux.seccomp().as_ref().map(seccomp::seccomp).transpose()?;
    let mut warnings = Vec::new();
    let options = ProcessOptions {
        seccomp,
        ..ProcessOptions::default()
    };
    let mut compiled = compile_process(process, options, &mut warnings)?;
    let own = spec.process().as_ref().and_then(Process::oom_score_adj);
    compiled.oom_score_adj = compiled.oom_score_adj.or(own);
    let namespaces = linux
        .namespaces()
        .iter()
        .flatten()
        .map(|namespace| Namespace {
            kind: namespaces::kind(namespace.typ()),
            // They are joined by way of the first process, wherever they come from.
            source: NamespaceSource::New,
        })
        .collect();
    Ok(CompiledExec {
        process: compiled,
        namespaces,
        personality: scheduling::personality(linux)?,
        memory_policy: scheduling::memory_policy(linux)?,
        warnings,
    })
}

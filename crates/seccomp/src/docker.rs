//! The profile format of `docker run --security-opt seccomp=FILE`: OCI's, with an architecture
//! map, and with rules that apply only under conditions.
//!
//! Source: moby/profiles `seccomp/seccomp.go` and `seccomp_linux.go`.

use crate::error::Error;
use gamut_abi::capability;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;
use std::path::PathBuf;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Option<LinuxSeccompAction>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchitectureMap>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The machine's architecture as docker's filters name it (`GOARCH`).
const NATIVE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    ""
};

/// Reads a profile in docker's format (OCI's own is a part of it) and keeps the rules that apply:
/// to a process whose bounding set is `capabilities` (one bit per capability number), on a kernel
/// of version `kernel` (major, minor), on this architecture. A profile with neither a default
/// action nor rules permits everything, as in docker.
///
/// # Errors
/// If it is not JSON of a profile, or contradicts itself.
pub fn resolve_docker_profile(
    json: &[u8],
    capabilities: u64,
    kernel: (u32, u32),
) -> Result<LinuxSeccomp, Error> {
    let profile: Profile = serde_json::from_slice(json)?;
    let rules = profile.syscalls.unwrap_or_default();
    let Some(default_action) = profile.default_action else {
        if rules.is_empty() {
            // LinuxSeccompAction's default permits.
            return Ok(LinuxSeccomp::default());
        }
        return Err(Error::NoDefaultAction);
    };
    let mut result = LinuxSeccomp::default();
    result
        .set_default_action(default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures(architectures(profile.architectures, profile.arch_map)?)
        .set_flags(profile.flags)
        .set_listener_path(profile.listener_path)
        .set_listener_metadata(profile.listener_metadata);
    let mut syscalls = Vec::with_capacity(rules.len());
    for (index, rule) in rules.into_iter().enumerate() {
        if !applies(&rule, capabilities, kernel)? {
            continue;
        }
        let names = match (rule.name, rule.names.unwrap_or_default()) {
            (Some(name), names) if !name.is_empty() => {
                if !names.is_empty() {
                    return Err(Error::Both("name", "names"));
                }
                vec![name]
            }
            (_, names) => names,
        };
        if names.is_empty() {
            return Err(Error::NoName { index });
        }
        let mut syscall = LinuxSyscall::default();
        syscall
            .set_names(names)
            .set_action(rule.action)
            .set_errno_ret(rule.errno_ret)
            .set_args(rule.args);
        syscalls.push(syscall);
    }
    result.set_syscalls(Some(syscalls));
    Ok(result)
}

fn architectures(
    listed: Option<Vec<Arch>>,
    map: Option<Vec<ArchitectureMap>>,
) -> Result<Option<Vec<Arch>>, Error> {
    let listed = listed.filter(|list| !list.is_empty());
    let Some(map) = map.filter(|map| !map.is_empty()) else {
        return Ok(listed);
    };
    if listed.is_some() {
        return Err(Error::Both("architectures", "archMap"));
    }
    let native = match NATIVE {
        "amd64" => Arch::ScmpArchX86_64,
        "arm64" => Arch::ScmpArchAarch64,
        _ => return Err(Error::Architecture),
    };
    Ok(map
        .into_iter()
        .find(|entry| entry.architecture == native)
        .map(|entry| {
            let mut list = vec![native];
            list.extend(entry.sub_architectures.unwrap_or_default());
            list
        }))
}

fn applies(rule: &Rule, capabilities: u64, kernel: (u32, u32)) -> Result<bool, Error> {
    if let Some(filter) = &rule.excludes {
        let arches = filter.arches.iter().flatten();
        let mut caps = filter.caps.iter().flatten();
        if arches.into_iter().any(|arch| arch == NATIVE)
            || caps.any(|name| has_capability(capabilities, name))
            || reaches(filter, kernel)? == Some(true)
        {
            return Ok(false);
        }
    }
    if let Some(filter) = &rule.includes {
        let arches = filter.arches.as_deref().unwrap_or_default();
        let mut caps = filter.caps.iter().flatten();
        if !(arches.is_empty() || arches.iter().any(|arch| arch == NATIVE))
            || caps.any(|name| !has_capability(capabilities, name))
            || reaches(filter, kernel)? == Some(false)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the kernel is at least as new as the filter says; `None` if it does not say.
fn reaches(filter: &Filter, kernel: (u32, u32)) -> Result<Option<bool>, Error> {
    let Some(text) = filter.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let version = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| Error::KernelVersion(text.to_owned()))?;
    Ok(Some(kernel >= version))
}

fn has_capability(capabilities: u64, name: &str) -> bool {
    name.starts_with("CAP_")
        && capability::number(name).is_some_and(|number| capabilities >> number & 1 == 1)
}

/// Entry for a fuzzer: any bytes are read as a profile and compiled without a panic.
pub fn fuzz_profile(bytes: &[u8]) {
    for capabilities in [0, u64::MAX] {
        if let Ok(profile) = resolve_docker_profile(bytes, capabilities, (6, 1)) {
            let _ = crate::compile(&profile);
        }
    }
}

//! Reading `config.json`.

use oci_spec::runtime::{
    Arch, Capability, LinuxResources, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Spec,
};
use serde::de::DeserializeOwned;
use serde::de::Error as _;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Sets of `process.capabilities`.
const SETS: [&str; 5] = [
    "bounding",
    "effective",
    "inheritable",
    "permitted",
    "ambient",
];

/// Reads a configuration, and answers what of it had to be left out: capabilities that are newer
/// than this version (or mistyped) are, with a sentence, as in other runtimes. Architectures
/// of a system call filter that no machine of ours can have are left out in silence. Ids of the
/// user that are missing are 0.
///
/// # Errors
/// Why it is no configuration.
pub fn read_config(text: &[u8]) -> Result<(Spec, Vec<String>), serde_json::Error> {
    let (mut spec, warnings): (Spec, _) = read(text, "/process")?;
    if let Some(linux) = spec.linux()
        && let Some(resources) = linux.resources()
        && has_no_pids_limit(resources, text, "/linux/resources/pids/limit")?
    {
        let (mut linux, mut resources) = (linux.clone(), resources.clone());
        resources.set_pids(None);
        linux.set_resources(Some(resources));
        spec.set_linux(Some(linux));
    }
    Ok((spec, warnings))
}

/// Reads limits that are to change, as `linux.resources` of a configuration.
///
/// # Errors
/// Why they are none.
pub fn read_resources(text: &[u8]) -> Result<LinuxResources, serde_json::Error> {
    let mut resources: LinuxResources = serde_json::from_slice(text)?;
    if has_no_pids_limit(&resources, text, "/pids/limit")? {
        resources.set_pids(None);
    }
    Ok(resources)
}

/// Whether a limit of processes that reads as 0 is none: the library does not tell that from one
/// that is left out.
fn has_no_pids_limit(
    resources: &LinuxResources,
    text: &[u8],
    pointer: &str,
) -> Result<bool, serde_json::Error> {
    if resources.pids().is_none_or(|pids| pids.limit() != 0) {
        return Ok(false);
    }
    let value: Value = serde_json::from_slice(text)?;
    Ok(value.pointer(pointer).is_none_or(Value::is_null))
}

/// As [`read_config`], for the process of an `exec`.
///
/// # Errors
/// Why it is no process.
pub fn read_process(text: &[u8]) -> Result<(Process, Vec<String>), serde_json::Error> {
    read(text, "")
}

fn read<T: DeserializeOwned>(
    text: &[u8],
    process: &str,
) -> Result<(T, Vec<String>), serde_json::Error> {
    // Nearly every configuration is understood at once.
    let error = match serde_json::from_slice(text) {
        Ok(whole) => return Ok((whole, Vec::new())),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(text)?;
    let mut warnings = Vec::new();
    let mut changed = false;
    if let Some(process) = value.pointer_mut(process) {
        changed |= fill_user(process) | rename_flags(process);
        let unknown: BTreeSet<String> = SETS
            .iter()
            .flat_map(|set| leave_out::<Capability>(process, &format!("/capabilities/{set}")))
            .collect();
        if !unknown.is_empty() {
            changed = true;
            let names: Vec<String> = unknown.into_iter().collect();
            // As runc has it.
            warnings.push(format!(
                "process.capabilities: ignoring unknown or unavailable capabilities: [{}]",
                names.join(" ")
            ));
        }
    }
    check_memory_policy(&value)?;
    changed |= !leave_out::<Arch>(&mut value, "/linux/seccomp/architectures").is_empty();
    if !changed {
        // The first error has line and column.
        return Err(error);
    }
    Ok((serde_json::from_value(value)?, warnings))
}

/// Names the field of a memory policy that nobody knows: the library only tells the place.
fn check_memory_policy(config: &Value) -> Result<(), serde_json::Error> {
    let Some(policy) = config
        .pointer("/linux/memoryPolicy")
        .filter(|p| p.is_object())
    else {
        return Ok(());
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let mode = policy.get("mode");
    if mode.is_none_or(|mode| serde_json::from_value::<MemoryPolicyModeType>(mode.clone()).is_err())
    {
        return Err(serde_json::Error::custom(format!(
            "linux.memoryPolicy.mode: invalid memory policy mode {:?}; use one as MPOL_BIND \
             (gamut-runtime features lists them)",
            text(mode)
        )));
    }
    let flags = policy.get("flags").and_then(Value::as_array);
    for (index, flag) in flags.into_iter().flatten().enumerate() {
        if serde_json::from_value::<MemoryPolicyFlagType>(flag.clone()).is_err() {
            return Err(serde_json::Error::custom(format!(
                "linux.memoryPolicy.flags[{index}]: invalid memory policy flag {:?}; use one as \
                 MPOL_F_STATIC_NODES (gamut-runtime features lists them)",
                text(Some(flag))
            )));
        }
    }
    Ok(())
}

/// Fills in ids of the user that are left out, as encoders do with what is 0.
fn fill_user(process: &mut Value) -> bool {
    let Value::Object(process) = process else {
        return false;
    };
    let user = process
        .entry("user")
        .or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(user) = user else {
        return false;
    };
    let mut filled = false;
    for id in ["uid", "gid"] {
        if !user.contains_key(id) {
            filled = true;
            user.insert(id.to_owned(), Value::from(0));
        }
    }
    filled
}

/// Takes the texts that are no `T` out of the list at `pointer`, and answers them.
fn leave_out<T: DeserializeOwned>(value: &mut Value, pointer: &str) -> Vec<String> {
    let Some(Value::Array(list)) = value.pointer_mut(pointer) else {
        return Vec::new();
    };
    let mut unknown = Vec::new();
    list.retain(|entry| match entry {
        Value::String(name) if serde_json::from_value::<T>(entry.clone()).is_err() => {
            unknown.push(name.clone());
            false
        }
        _ => true,
    });
    unknown
}

/// The library that reads the configuration expects some flags under other names than the OCI
/// runtime-spec gives them.
fn rename_flags(process: &mut Value) -> bool {
    let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") else {
        return false;
    };
    let mut renamed = false;
    for flag in flags {
        let name = match flag.as_str() {
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            _ => continue,
        };
        *flag = Value::from(name);
        renamed = true;
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::scheduling;

    fn config(process: &str, linux: &str) -> Vec<u8> {
        format!(
            r#"{{"ociVersion": "1.2.0", "process": {{"user": {{"uid": 0, "gid": 0}},
            "args": ["true"], "cwd": "/", {process}}}, "linux": {{{linux}}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn capabilities_of_the_future_are_left_out_with_a_warning() {
        let text = config(
            r#""capabilities": {"bounding": ["CAP_CHOWN", "CAP_TELEPORT"], "ambient": ["CAP_KILL"]}"#,
            r#""seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_ABACUS"]}"#,
        );
        let (spec, warnings) = read_config(&text).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("capabilities: [CAP_TELEPORT]"),
            "{warnings:?}"
        );
        let process = spec.process().as_ref().unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        let bounding = sets.bounding().as_ref().unwrap();
        assert!(bounding.len() == 1 && bounding.contains(&Capability::Chown));
        let seccomp = spec.linux().as_ref().unwrap().seccomp().as_ref().unwrap();
        let architectures = seccomp.architectures().as_ref().unwrap();
        assert_eq!(architectures[..], [Arch::ScmpArchX86_64]);
    }

    #[test]
    fn what_is_zero_may_be_left_out() {
        let text = br#"{"args": ["true"], "cwd": "/", "user": {"gid": 5},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_THE_FUTURE"]}}"#;
        let (process, warnings) = read_process(text).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 5));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("CAP_OF_THE_FUTURE"), "{warnings:?}");
        let error = read_process(b"{\"cwd\": 5}").unwrap_err();
        assert!(error.to_string().contains("invalid type"), "{error}");
        read_process(b"{").unwrap_err();
        read_process(b"[]").unwrap_err();
    }

    #[test]
    fn flags_have_the_names_of_the_specification() {
        for (flags, bits) in [
            (r#""SCHED_FLAG_DL_OVERRUN""#, 4),
            (r#""SCHED_FLAG_RESET_ON_FORK""#, 1),
            (r#""SCHED_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN""#, 5),
        ] {
            let scheduler = format!(
                r#""scheduler": {{"policy": "SCHED_DEADLINE", "flags": [{flags}],
                "runtime": 1, "deadline": 1, "period": 1}}"#
            );
            let (spec, _) = read_config(&config(&scheduler, "")).unwrap();
            let scheduler = scheduling::scheduler(spec.process().as_ref().unwrap()).unwrap();
            assert_eq!(scheduler.unwrap().flags, bits);
        }
    }

    #[test]
    fn a_limit_of_processes_that_is_left_out_is_none() {
        let limit = |pids: &str| {
            let resources = format!(r#"{{"pids": {pids}}}"#);
            let linux = format!(r#""resources": {resources}"#);
            let (spec, _) = read_config(&config(r#""env": []"#, &linux)).unwrap();
            let spec = spec.linux().as_ref().unwrap().resources().clone().unwrap();
            assert_eq!(read_resources(resources.as_bytes()).unwrap(), spec);
            spec.pids().map(|pids| pids.limit())
        };
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"limit": 0}"#), Some(0));
        assert_eq!(limit(r#"{"limit": -1}"#), Some(-1));
    }

    #[test]
    fn a_memory_policy_that_nobody_knows_is_named_by_its_field() {
        for (policy, wanted) in [
            ("{}", "memoryPolicy.mode: invalid memory policy mode \"\""),
            (
                r#"{"mode": "INTERLEAVE"}"#,
                "memoryPolicy.mode: invalid memory policy mode \"INTERLEAVE\"",
            ),
            (
                r#"{"mode": "MPOL_BIND", "flags": ["MPOL_F_STATIC_NODES", "x"]}"#,
                "memoryPolicy.flags[1]: invalid memory policy flag \"x\"",
            ),
        ] {
            let linux = format!(r#""memoryPolicy": {policy}"#);
            let error = read_config(&config(r#""env": []"#, &linux)).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for text in ["", "{", r#"{"process": 1}"#] {
            let error = read_config(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("line 1"), "{error}");
        }
    }
}

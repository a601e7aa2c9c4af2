//! `linux.seccomp.listenerPath`: what the listener is told (OCI runtime-spec, "The Container
//! Process State").

use super::field::{absolute, invalid};
use crate::error::Error;
use gamut_abi::plan::SeccompListener;
use oci_spec::runtime::{LinuxSeccompAction, Spec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A number that stands for the process id until that is known. No process has it, and a text
/// cannot hold it without quotes or backslashes around.
const PLACEHOLDER: &str = "\"pid\":-2147483648";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: State<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    pid: i32,
    bundle: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

/// Compiles the listener of a configuration's system call filter, if it has one: for container
/// `id` of a bundle, which is in `status` (`creating` for its first process, `running` for
/// further ones).
///
/// # Errors
/// [`Error::Invalid`] if the path is not absolute, or missing though something is to be notified.
pub fn seccomp_listener(
    spec: &Spec,
    id: &str,
    bundle: Option<&Path>,
    status: &str,
) -> Result<Option<SeccompListener>, Error> {
    let field = "linux.seccomp.listenerPath";
    let Some(profile) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref())
    else {
        return Ok(None);
    };
    let notifies = profile
        .syscalls()
        .iter()
        .flatten()
        .any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if !notifies {
        // Nobody would ever hear anything.
        return Ok(None);
    }
    let Some(path) = profile
        .listener_path()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty())
    else {
        return Err(invalid(
            field,
            "is missing, but SCMP_ACT_NOTIFY needs somebody to notify",
        ));
    };
    let path = absolute(field, path)?;
    let pid = i32::MIN;
    let bundle = bundle.map(Path::to_string_lossy).unwrap_or_default();
    let annotations = spec.annotations();
    let state = ProcessState {
        oci_version: spec.version(),
        fds: ["seccompFd"],
        pid,
        metadata: profile.listener_metadata().as_deref(),
        state: State {
            oci_version: spec.version(),
            id,
            status,
            pid,
            bundle: &bundle,
            annotations: annotations
                .iter()
                .flatten()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        },
    };
    let text = serde_json::to_string(&state)
        .map_err(|error| invalid(field, format!("cannot write the state as JSON: {error}")))?;
    let mut pieces: Vec<String> = text.split(PLACEHOLDER).map(str::to_owned).collect();
    let last = pieces.len().saturating_sub(1);
    for piece in &mut pieces[..last] {
        piece.push_str("\"pid\":");
    }
    Ok(Some(SeccompListener {
        path,
        state: pieces,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;
    use serde_json::{Value, json};

    fn profile(listener: &Value) -> Spec {
        let mut seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        if let (Value::Object(all), Value::Object(more)) = (&mut seccomp, listener) {
            all.extend(more.clone());
        }
        config(json!({"annotations": {"a": "\"pid\":-2147483648"}, "linux": {"seccomp": seccomp}}))
    }

    #[test]
    fn the_state_has_the_process_id_in_both_places() {
        let spec = profile(&json!({"listenerPath": "/run/agent", "listenerMetadata": "m"}));
        let listener = seccomp_listener(&spec, "c1", Some(Path::new("/b")), "creating")
            .unwrap()
            .unwrap();
        assert_eq!(listener.path, "/run/agent");
        let text = listener.state.join("42");
        let state: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            state,
            json!({"ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 42, "metadata": "m",
                "state": {"ociVersion": "1.2.0", "id": "c1", "status": "creating", "pid": 42,
                    "bundle": "/b", "annotations": {"a": "\"pid\":-2147483648"}}})
        );
    }

    #[test]
    fn a_listener_is_needed_where_something_is_notified() {
        for listener in [
            json!({}),
            json!({"listenerPath": ""}),
            json!({"listenerPath": "x"}),
        ] {
            let error = seccomp_listener(&profile(&listener), "c1", None, "creating").unwrap_err();
            assert!(
                error.to_string().contains("linux.seccomp.listenerPath"),
                "{error}"
            );
        }
        let spec = config(json!({"linux": {"seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"}}}));
        assert_eq!(
            seccomp_listener(&spec, "c1", None, "creating").unwrap(),
            None
        );
    }
}

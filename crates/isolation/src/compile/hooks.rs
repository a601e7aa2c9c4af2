//! `hooks`: programs at fixed points of a container's life.

use super::field::{absolute, invalid, text};
use crate::error::Error;
use gamut_abi::hooks::{Hook, Hooks};
use oci_spec::runtime::{Hook as OciHook, Spec};
use std::path::Path;

/// Version of the runtime specification whose state hooks are shown.
pub const STATE_VERSION: &str = "1.2.0";

/// Compiles the hooks of a configuration; `None` if it has none. Without a bundle there is
/// nothing to tell them, so hooks are refused.
///
/// # Errors
/// [`Error::Invalid`] naming the field, which begins with `hooks`.
pub(super) fn hooks(spec: &Spec, id: &str, bundle: Option<&Path>) -> Result<Option<Hooks>, Error> {
    let Some(configured) = spec.hooks() else {
        return Ok(None);
    };
    #[allow(deprecated, reason = "prestart hooks are still to be run")]
    let compiled = Hooks {
        state: String::new(),
        bundle: String::new(),
        prestart: list("hooks.prestart", configured.prestart().as_deref())?,
        create_runtime: list(
            "hooks.createRuntime",
            configured.create_runtime().as_deref(),
        )?,
        create_container: list(
            "hooks.createContainer",
            configured.create_container().as_deref(),
        )?,
        start_container: list(
            "hooks.startContainer",
            configured.start_container().as_deref(),
        )?,
        poststart: list("hooks.poststart", configured.poststart().as_deref())?,
        poststop: list("hooks.poststop", configured.poststop().as_deref())?,
    };
    if compiled == Hooks::default() {
        return Ok(None);
    }
    let Some(bundle) = bundle else {
        return Err(invalid(
            "hooks",
            "need a bundle, whose path they are told; leave them out",
        ));
    };
    let bundle = absolute("hooks", bundle)?;
    let mut state = serde_json::json!({
        "ociVersion": STATE_VERSION,
        "id": id,
        "bundle": bundle,
        "annotations": spec.annotations().clone().unwrap_or_default(),
    })
    .to_string();
    // Status and process id are added when it is shown.
    state.truncate(state.len() - 1);
    Ok(Some(Hooks {
        state,
        bundle,
        ..compiled
    }))
}

fn list(field: &str, hooks: Option<&[OciHook]>) -> Result<Vec<Hook>, Error> {
    hooks
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, hook)| one(&format!("{field}[{index}]"), hook))
        .collect()
}

fn one(entry: &str, hook: &OciHook) -> Result<Hook, Error> {
    let args = hook.args().clone().unwrap_or_default();
    for (index, argument) in args.iter().enumerate() {
        text(&format!("{entry}.args[{index}]"), argument)?;
    }
    for (index, variable) in hook.env().iter().flatten().enumerate() {
        text(&format!("{entry}.env[{index}]"), variable)?;
    }
    let timeout_s = match hook.timeout() {
        None => None,
        Some(seconds) => match u32::try_from(seconds) {
            Ok(seconds @ 1..) => Some(seconds),
            _ => {
                return Err(invalid(
                    format!("{entry}.timeout"),
                    format!("{seconds} is not a number of seconds above 0"),
                ));
            }
        },
    };
    Ok(Hook {
        path: absolute(&format!("{entry}.path"), hook.path())?,
        args,
        env: hook.env().clone(),
        timeout_s,
    })
}

//! A bundle: `config.json` and a root file system, compiled to a launch plan.

use crate::error::Error;
use crate::log::Logger;
use gamut_abi::hooks::Hooks;
use gamut_isolation::compile::{
    CompileOptions, Compiled, Network, ProcessOptions, compile, is_host_network,
};
use gamut_isolation::contract::RootSource;
use oci_spec::runtime::{Capability, Spec};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest `config.json` that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A bundle that has been read.
pub struct Bundle {
    /// Its directory, without links.
    pub path: PathBuf,
    /// Its configuration.
    pub spec: Spec,
    /// The same as it was read.
    pub text: Vec<u8>,
}

/// Reads a file of configuration, which must not be endless.
///
/// # Errors
/// If it cannot be read or is too long.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text))
        .map_err(Error::file("read", path))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_CONFIG_BYTES {
        return Err(Error::Content {
            path: path.to_owned(),
            problem: format!("it is longer than {MAX_CONFIG_BYTES} bytes"),
        });
    }
    Ok(text)
}

/// Reads JSON; an error tells where in the text, and in which file, something is wrong.
///
/// # Errors
/// If it is not what it should be.
pub fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, error: &serde_json::Error) -> Error {
    Error::Content {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

/// As [`parse`], for a configuration (or, with an empty `pointer`, a process) of callers that
/// leave out what is zero, or know capabilities that nobody else does. The latter are told to
/// `warn`.
///
/// # Errors
/// As [`parse`].
pub fn parse_leniently<T: serde::de::DeserializeOwned>(
    path: &Path,
    text: &[u8],
    pointer: &str,
    warn: impl FnOnce(String),
) -> Result<T, Error> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => wrong(path, &error),
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return Err(first);
    };
    if value
        .pointer_mut(pointer)
        .is_some_and(|process| repair(process, warn))
    {
        return serde_json::from_value(value).map_err(|error| wrong(path, &error));
    }
    Err(first)
}

/// Fills in a user and takes unknown capabilities out; false if there was nothing of that kind.
fn repair(process: &mut Value, warn: impl FnOnce(String)) -> bool {
    let Some(process) = process.as_object_mut() else {
        return false;
    };
    let mut changed = false;
    let user = process
        .entry("user")
        .or_insert_with(|| Value::Object(Map::new()));
    for id in ["uid", "gid"] {
        if let Some(user) = user.as_object_mut()
            && !user.contains_key(id)
        {
            changed = true;
            user.insert(id.to_owned(), Value::from(0));
        }
    }
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    let mut unknown = BTreeSet::new();
    for (_, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                unknown.insert(name.as_str().unwrap_or_default().to_owned());
            }
            known
        });
    }
    if !unknown.is_empty() {
        changed = true;
        let names: Vec<String> = unknown.into_iter().collect();
        warn(format!(
            "process.capabilities: ignoring unknown or unavailable capabilities: [{}]",
            names.join(" ")
        ));
    }
    changed
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// If it is not there, or its configuration is no configuration.
    pub fn read(path: Option<&Path>, logger: &Logger<'_>) -> Result<Self, Error> {
        let given = path.unwrap_or(Path::new("."));
        let path = fs::canonicalize(given).map_err(Error::file("open bundle", given))?;
        let config = path.join("config.json");
        let text = read_file(&config)?;
        let spec = parse_leniently(&config, &text, "/process", |warning| {
            logger.warning(&warning);
        })?;
        Ok(Self { path, spec, text })
    }

    /// Directory of the root file system.
    ///
    /// # Errors
    /// If the configuration names none, or it is not there.
    pub fn root(&self) -> Result<PathBuf, Error> {
        let Some(root) = self.spec.root() else {
            return Err(Error::Content {
                path: self.path.join("config.json"),
                problem: "root: is missing".to_owned(),
            });
        };
        let path = self.path.join(root.path());
        fs::canonicalize(&path).map_err(Error::file("open root.path", &path))
    }

    /// Compiles the configuration for container `id`.
    ///
    /// # Errors
    /// With the field that is wrong or not supported.
    pub fn compile(&self, id: &str, root: &Path) -> Result<Compiled, Error> {
        let linux = self.spec.linux().as_ref();
        let configured = linux
            .and_then(|linux| linux.cgroups_path().as_ref())
            .is_some_and(|path| !path.as_os_str().is_empty());
        let options = CompileOptions {
            id: id.to_owned(),
            root: RootSource::Directory(root.to_owned()),
            mount_point: root.to_owned(),
            bundle: Some(self.path.clone()),
            network: Network::Config,
            cgroup_path: (!configured).then(|| format!("/gamut-runtime/{id}")),
            process: ProcessOptions {
                create_cwd: true,
                ..ProcessOptions::default()
            },
            is_host_network,
        };
        let mut compiled = compile(&self.spec, options)?;
        if let Some(hooks) = &mut compiled.plan.hooks {
            inherit_environment(hooks);
        }
        Ok(compiled)
    }

    /// Annotations of the configuration.
    pub fn annotations(&self) -> std::collections::BTreeMap<String, String> {
        self.spec
            .annotations()
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// Hooks on the host that have no environment of their own get that of this program, whatever
/// program runs them. That of `startContainer` hooks is the container's.
fn inherit_environment(hooks: &mut Hooks) {
    let own: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?)))
        .collect();
    for list in [
        &mut hooks.prestart,
        &mut hooks.create_runtime,
        &mut hooks.create_container,
        &mut hooks.poststart,
        &mut hooks.poststop,
    ] {
        for hook in list {
            hook.env.get_or_insert_with(|| own.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Process;

    #[test]
    fn what_is_zero_may_be_left_out() {
        let text = br#"{"args": ["true"], "cwd": "/", "user": {"gid": 5},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_THE_FUTURE"]}}"#;
        let mut warnings = Vec::new();
        let read = |text: &[u8], warnings: &mut Vec<String>| {
            parse_leniently::<Process>(Path::new("p"), text, "", |warning| warnings.push(warning))
        };
        let process = read(text, &mut warnings).unwrap();
        assert_eq!((process.user().uid(), process.user().gid()), (0, 5));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("CAP_OF_THE_FUTURE"), "{warnings:?}");
        let error = read(b"{\"cwd\": 5}", &mut warnings).unwrap_err();
        assert!(error.to_string().contains("invalid type"), "{error}");
        read(b"{", &mut warnings).unwrap_err();
        read(b"[]", &mut warnings).unwrap_err();
    }
}

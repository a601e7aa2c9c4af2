//! A bundle: `config.json` and a root file system, compiled to a launch plan.

use crate::error::Error;
use crate::log::Logger;
use gamut_abi::hooks::Hooks;
use gamut_isolation::compile::{
    CompileOptions, Compiled, Network, ProcessOptions, compile, is_host_network, read_config,
    read_process,
};
use gamut_isolation::contract::RootSource;
use oci_spec::runtime::{Process, Spec};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
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

/// Reads a configuration; what of it had to be left out is told to `logger`.
///
/// # Errors
/// If it is none; the error tells where in the text, and in which file, something is wrong.
pub fn parse_config(path: &Path, text: &[u8], logger: &Logger<'_>) -> Result<Spec, Error> {
    told(path, read_config(text), logger)
}

/// As [`parse_config`], for the process of an `exec`.
///
/// # Errors
/// As [`parse_config`].
pub fn parse_process(path: &Path, text: &[u8], logger: &Logger<'_>) -> Result<Process, Error> {
    told(path, read_process(text), logger)
}

fn told<T>(
    path: &Path,
    read: Result<(T, Vec<String>), serde_json::Error>,
    logger: &Logger<'_>,
) -> Result<T, Error> {
    let (value, warnings) = read.map_err(|error| wrong(path, &error))?;
    for warning in warnings {
        logger.warning(&warning);
    }
    Ok(value)
}

/// An error in a file.
pub fn wrong(path: &Path, error: &serde_json::Error) -> Error {
    Error::Content {
        path: path.to_owned(),
        problem: error.to_string(),
    }
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
        let spec = parse_config(&config, &text, logger)?;
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

    /// Compiles the configuration for container `id`. With `systemd_cgroup` a configuration that
    /// names no control group gets one from systemd.
    ///
    /// # Errors
    /// With the field that is wrong or not supported.
    pub fn compile(
        &self,
        id: &str,
        root: &Path,
        inherit_keyring: bool,
        systemd_cgroup: bool,
    ) -> Result<Compiled, Error> {
        let linux = self.spec.linux().as_ref();
        let configured = linux
            .and_then(|linux| linux.cgroups_path().as_ref())
            .filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = configured.filter(|_| systemd_cgroup)
            && path
                .as_os_str()
                .as_bytes()
                .split(|byte| *byte == b':')
                .count()
                != 3
        {
            return Err(Error::Content {
                path: self.path.join("config.json"),
                problem: format!(
                    "linux.cgroupsPath: with --systemd-cgroup it must be SLICE:PREFIX:NAME, not {}",
                    path.display()
                ),
            });
        }
        let options = CompileOptions {
            id: id.to_owned(),
            root: RootSource::Directory(root.to_owned()),
            mount_point: root.to_owned(),
            bundle: Some(self.path.clone()),
            exact_bind_flags: true,
            network: Network::Config,
            cgroup_path: match (configured.is_some(), systemd_cgroup) {
                (true, _) => None,
                (false, true) => Some(format!("system.slice:gamut-runtime:{id}")),
                (false, false) => Some(format!("/gamut-runtime/{id}")),
            },
            process: ProcessOptions {
                create_cwd: true,
                inherit_keyring,
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

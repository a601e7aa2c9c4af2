//! A bundle: `config.json` and a root file system, compiled to a launch plan.

use crate::error::Error;
use gamut_isolation::compile::{
    CompileOptions, Compiled, Network, ProcessOptions, compile, is_host_network, read_config,
};
use gamut_isolation::contract::RootSource;
use oci_spec::runtime::Spec;
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
    /// What of it had to be left out.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// If it is not there, or its configuration is no configuration.
    pub fn read(path: Option<&Path>) -> Result<Self, Error> {
        let given = path.unwrap_or(Path::new("."));
        let path = fs::canonicalize(given).map_err(Error::file("open bundle", given))?;
        let config = path.join("config.json");
        let mut text = Vec::new();
        File::open(&config)
            .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text))
            .map_err(Error::file("read", &config))?;
        let content = |problem: String| Error::Content {
            path: config.clone(),
            problem,
        };
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_CONFIG_BYTES {
            return Err(content(format!(
                "it is longer than {MAX_CONFIG_BYTES} bytes"
            )));
        }
        let (spec, warnings) = read_config(&text).map_err(|error| content(error.to_string()))?;
        Ok(Self {
            path,
            spec,
            warnings,
        })
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
        Ok(compile(&self.spec, options)?)
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

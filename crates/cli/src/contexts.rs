//! Contexts: named ways to engines, kept where docker keeps its own, in its form.
//!
//! `~/.docker/contexts/meta/DIGEST/meta.json`, with certificates in
//! `~/.docker/contexts/tls/DIGEST/docker/`, where DIGEST is the SHA-256 of the name; the current one
//! is named in `config.json`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::credentials::ConfigFile;
use crate::error::Error;

/// The context that is always there: what flags, environment and defaults say.
pub const DEFAULT: &str = "default";

/// A named way to an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// Name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The address, as `--host` takes it.
    pub host: String,
    /// There are certificates.
    pub tls: bool,
    /// What `inspect` shows of it.
    pub metadata: Value,
}

/// Where contexts are kept.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Docker's directory: `DOCKER_CONFIG`, else `~/.docker`.
    #[must_use]
    pub fn open() -> Self {
        let named = std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        Self {
            directory: named
                .map(PathBuf::from)
                .or_else(home)
                .unwrap_or_else(|| PathBuf::from("/root/.docker")),
        }
    }

    /// A store in a directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Docker's directory.
    #[must_use]
    pub fn configuration_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn config_path(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    fn meta_directory(&self) -> PathBuf {
        self.directory.join("contexts/meta")
    }

    fn meta_path(&self, name: &str) -> PathBuf {
        self.meta_directory().join(digest(name)).join("meta.json")
    }

    /// Directory of a context's certificates.
    #[must_use]
    pub fn tls_directory(&self, name: &str) -> PathBuf {
        self.directory
            .join("contexts/tls")
            .join(digest(name))
            .join("docker")
    }

    /// The one that `context use` has chosen, unless that is the default.
    #[must_use]
    pub fn current(&self) -> Option<String> {
        let config = ConfigFile::load(&self.config_path()).ok()?;
        let name = config.current_context()?;
        (name != DEFAULT).then(|| name.to_owned())
    }

    /// Chooses one for what follows.
    ///
    /// # Errors
    /// If there is none of the name, or the file cannot be written.
    pub fn choose(&self, name: &str) -> Result<(), Error> {
        if name != DEFAULT {
            self.get(name)?;
        }
        let mut config = ConfigFile::load(&self.config_path())?;
        config.set_current_context((name != DEFAULT).then_some(name));
        config.save(&self.config_path())
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none of the name, or it has no address of an engine.
    pub fn get(&self, name: &str) -> Result<Context, Error> {
        let path = self.meta_path(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Message(format!(
                    "context \"{name}\": context not found; 'gamut context ls' shows those there are"
                )));
            }
            read => read.map_err(Error::io(format!("read {}", path.display())))?,
        };
        let mut context = parse(&bytes).ok_or_else(|| {
            Error::Message(format!(
                "{} is damaged: it describes no context",
                path.display()
            ))
        })?;
        context.tls = self.tls_directory(name).join("cert.pem").exists();
        Ok(context)
    }

    /// All by name, without the default one.
    ///
    /// # Errors
    /// If the directory cannot be read. What is damaged is left out.
    pub fn list(&self) -> Result<Vec<Context>, Error> {
        let directory = self.meta_directory();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(format!("read {}", directory.display())))?,
        };
        let mut all: Vec<Context> = entries
            .flatten()
            .filter_map(|entry| parse(&fs::read(entry.path().join("meta.json")).ok()?))
            .collect();
        for context in &mut all {
            context.tls = self.tls_directory(&context.name).join("cert.pem").exists();
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes one. `files` are copied: certificate of the authority, certificate, key.
    ///
    /// # Errors
    /// If the name is not allowed or taken, or something cannot be written.
    pub fn create(
        &self,
        name: &str,
        description: &str,
        host: &str,
        files: &[(&str, PathBuf)],
    ) -> Result<(), Error> {
        if !is_name(name) {
            return Err(Error::Usage(format!(
                "context name \"{name}\" is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
            )));
        }
        if name == DEFAULT || self.meta_path(name).exists() {
            return Err(Error::Message(format!("context \"{name}\" already exists")));
        }
        let tls = self.tls_directory(name);
        for (target, source) in files {
            let bytes =
                fs::read(source).map_err(Error::io(format!("read {}", source.display())))?;
            write_private(&tls.join(target), &bytes)?;
        }
        let metadata = if description.is_empty() {
            json!({})
        } else {
            json!({"Description": description})
        };
        let meta = json!({
            "Name": name,
            "Metadata": metadata,
            "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}},
        });
        write_private(&self.meta_path(name), meta.to_string().as_bytes())
    }

    /// Removes one.
    ///
    /// # Errors
    /// If there is none of the name, it is the current one (unless `force`), or files cannot be
    /// removed.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        if name == DEFAULT {
            return Err(Error::Message(
                "default: context \"default\" cannot be removed".to_owned(),
            ));
        }
        if !force {
            self.get(name)?;
        }
        if self.current().as_deref() == Some(name) {
            if !force {
                return Err(Error::Message(format!(
                    "context \"{name}\" is in use, set -f flag to force remove"
                )));
            }
            self.choose(DEFAULT)?;
        }
        let meta = self.meta_path(name);
        let tls = self.tls_directory(name);
        for directory in [meta.parent(), tls.parent()].into_iter().flatten() {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io(format!("remove {}", directory.display())))?,
            }
        }
        Ok(())
    }
}

/// For its owner only.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = || Error::io(format!("write {}", path.display()));
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed())?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, bytes))
        .map_err(failed())
}

fn digest(name: &str) -> String {
    gamut_spec::id::hex(&Sha256::digest(name.as_bytes()))
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
}

/// The content of a `meta.json`.
fn parse(bytes: &[u8]) -> Option<Context> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some(Context {
        name: value["Name"].as_str()?.to_owned(),
        description: text(&value["Metadata"]["Description"]),
        host: value["Endpoints"]["docker"]["Host"].as_str()?.to_owned(),
        tls: false,
        metadata: value,
    })
}

/// Entry for fuzzing: any bytes are a context or none, without panic.
pub fn fuzz_context(data: &[u8]) {
    let _ = parse(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_contexts_life() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(directory.path());
        let key = directory.path().join("some.key");
        fs::write(&key, "key").unwrap();
        assert!(store.list().unwrap().is_empty());
        store.create("box", "", "ssh://box", &[]).unwrap();
        store
            .create(
                "far",
                "Far away",
                "tcp://far:1",
                &[("cert.pem", key.clone()), ("key.pem", key)],
            )
            .unwrap();
        assert!(store.create("box", "", "ssh://box", &[]).is_err());
        for bad in ["default", "x", "../x", "-x", ""] {
            assert!(store.create(bad, "", "ssh://box", &[]).is_err(), "{bad}");
        }
        let far = store.get("far").unwrap();
        assert_eq!((far.host.as_str(), far.tls), ("tcp://far:1", true));
        // Where docker looks for it.
        let place =
            "contexts/meta/512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";
        assert!(directory.path().join(place).join("meta.json").exists());
        store.choose("far").unwrap();
        assert_eq!(store.current().as_deref(), Some("far"));
        assert!(store.choose("nowhere").is_err());
        assert!(store.remove("far", false).is_err());
        store.remove("far", true).unwrap();
        assert_eq!(store.current(), None);
        assert_eq!(store.list().unwrap().len(), 1);
        assert!(store.get("far").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_context(&data);
        }
    }
}

//! What the administrator says about registries: mirrors, and which may do without trust. The
//! parser does no I/O.
//!
//! The file is JSON:
//!
//! ```json
//! {
//!   "registries": {
//!     "docker.io":         { "mirrors": ["https://cache.example:5000"] },
//!     "registry.lan:5000": { "insecure": true },
//!     "10.1.0.0/16":       { "insecure": true },
//!     "*":                 { "mirrors": ["https://proxy.example/all"] }
//!   },
//!   "certificates": ["/etc/gamut/certs.d"]
//! }
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::address::{Url, is_loopback};
use crate::error::{Error, Result};

/// Larger files are refused.
const MAX_SETTINGS_BYTES: usize = 1024 * 1024;
/// Directories with a subdirectory per registry, where the file names none.
const CERTIFICATES: [&str; 2] = ["/etc/gamut/certs.d", "/etc/docker/certs.d"];
/// Means every registry that has no entry of its own.
const EVERY: &str = "*";

/// What the administrator says about registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// By `host[:port]`, network (`10.0.0.0/8`) or `*`.
    registries: BTreeMap<String, Entry>,
    /// Directories that hold `<host[:port]>/{*.crt,*.cert,*.key}`, looked through in order.
    pub(super) certificates: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    mirrors: Vec<String>,
    insecure: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    registries: BTreeMap<String, Entry>,
    certificates: Option<Vec<PathBuf>>,
}

/// A place that answers for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) url: Url,
    /// What goes before the name of a repository: empty, or ends in a slash.
    pub(super) prefix: String,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            certificates: CERTIFICATES.iter().map(PathBuf::from).collect(),
        }
    }
}

impl RegistrySettings {
    /// Parses the file's content; `object` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] with what is wrong, [`Error::TooLarge`].
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        if bytes.len() > MAX_SETTINGS_BYTES {
            return Err(Error::TooLarge {
                object: object.to_owned(),
                limit: "1 MiB".to_owned(),
            });
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| Error::malformed(object, error.to_string()))?;
        let mut settings = Self::default();
        for (key, entry) in document.registries {
            let bad =
                |reason: &str| Error::malformed(object, format!("registries: {key:?}: {reason}"));
            let is_network = key.contains('/');
            if is_network && Network::parse(&key).is_none() {
                return Err(bad(
                    "write a host, host:port, a network such as 10.0.0.0/8, or *",
                ));
            }
            if is_network && !entry.mirrors.is_empty() {
                return Err(bad("a network has no mirrors, only a host or * has"));
            }
            if key == EVERY && entry.insecure {
                return Err(bad(
                    "not every registry can be insecure; name those that are",
                ));
            }
            if key.is_empty() || key.bytes().any(|c| c.is_ascii_control() || c == b' ') {
                return Err(bad("not the name of a host"));
            }
            for mirror in &entry.mirrors {
                Mirror::parse(mirror).map_err(|error| bad(&error.to_string()))?;
            }
            settings.registries.insert(key.to_ascii_lowercase(), entry);
        }
        if let Some(certificates) = document.certificates {
            if let Some(relative) = certificates.iter().find(|path| !path.is_absolute()) {
                return Err(Error::malformed(
                    object,
                    format!("certificates: {} is not absolute", relative.display()),
                ));
            }
            settings.certificates = certificates;
        }
        Ok(settings)
    }

    /// Reads the first of the files that is there. None says nothing.
    ///
    /// # Errors
    /// [`Error::Io`] and those of [`Self::parse`].
    pub fn load(paths: &[PathBuf]) -> Result<Self> {
        for path in paths {
            match std::fs::read(path) {
                Ok(bytes) => return Self::parse(&bytes, &path.display().to_string()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", path)(error)),
            }
        }
        Ok(Self::default())
    }

    /// The mirrors of a registry, in the order in which they are asked.
    pub(super) fn mirrors(&self, registry: &str) -> Vec<Mirror> {
        let own = self.registries.get(&registry.to_ascii_lowercase());
        own.or_else(|| self.registries.get(EVERY))
            .into_iter()
            .flat_map(|entry| &entry.mirrors)
            .filter_map(|text| Mirror::parse(text).ok())
            .collect()
    }

    /// Whether `host[:port]` may be spoken to without TLS, or with certificates of anybody.
    #[must_use]
    pub fn is_insecure(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        if self
            .registries
            .get(&authority)
            .is_some_and(|entry| entry.insecure)
        {
            return true;
        }
        let Some(address) = address_of(&authority) else {
            return false;
        };
        self.registries
            .iter()
            .filter(|(_, entry)| entry.insecure)
            .filter_map(|(key, _)| Network::parse(key))
            .any(|network| network.contains(address))
    }

    /// The registries named insecure, hosts and networks, for `docker info`.
    #[must_use]
    pub fn insecure(&self) -> Vec<String> {
        self.registries
            .iter()
            .filter(|(_, entry)| entry.insecure)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The mirrors as they are written in the file, by registry, for `docker info`.
    #[must_use]
    pub fn all_mirrors(&self) -> BTreeMap<String, Vec<String>> {
        self.registries
            .iter()
            .filter(|(_, entry)| !entry.mirrors.is_empty())
            .map(|(key, entry)| (key.clone(), entry.mirrors.clone()))
            .collect()
    }
}

impl Mirror {
    fn parse(text: &str) -> Result<Self> {
        let url = Url::parse(text)?;
        let path = url.path.trim_matches('/').to_owned();
        if path.contains(['?', '%']) || path.split('/').any(|part| part == "..") {
            return Err(Error::malformed(
                format!("mirror {text:?}"),
                "write https://host[:port][/prefix]",
            ));
        }
        Ok(Self {
            url: Url {
                path: "/".to_owned(),
                ..url
            },
            prefix: if path.is_empty() {
                path
            } else {
                format!("{path}/")
            },
        })
    }
}

/// The address that `host[:port]` is, if it is no name.
fn address_of(authority: &str) -> Option<IpAddr> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    host.parse().ok()
}

/// A range of addresses.
struct Network {
    address: u128,
    is_v4: bool,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, is_v4) = bits(address.parse().ok()?);
        let prefix: u32 = prefix.parse().ok()?;
        (prefix <= if is_v4 { 32 } else { 128 }).then_some(Self {
            address,
            is_v4,
            prefix,
        })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (address, is_v4) = bits(address);
        let width = if is_v4 { 32 } else { 128 };
        is_v4 == self.is_v4
            && (address ^ self.address)
                .checked_shr(width - self.prefix)
                .unwrap_or(0)
                == 0
    }
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), true),
        IpAddr::V6(address) => (u128::from(address), false),
    }
}

/// Feeds bytes to the parser of registries.json.
pub fn fuzz_registry_settings(data: &[u8]) {
    if let Ok(settings) = RegistrySettings::parse(data, "fuzz") {
        for host in ["docker.io", "10.1.2.3:5000", "[::1]:5000", "a"] {
            let _ = settings.mirrors(host);
            let _ = (settings.is_insecure(host), is_loopback(host));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_networks_and_every_other_registry() {
        let text = br#"{"registries": {
            "docker.io": {"mirrors": ["https://a.example", "http://b.example:5000/hub/"]},
            "lan:5000": {"insecure": true}, "10.1.0.0/16": {"insecure": true},
            "fd00::/8": {"insecure": true}, "*": {"mirrors": ["https://c.example"]}}}"#;
        let settings = RegistrySettings::parse(text, "x").unwrap();
        let mirrors = |host| -> Vec<(String, String)> {
            settings
                .mirrors(host)
                .into_iter()
                .map(|mirror| (mirror.url.to_string(), mirror.prefix))
                .collect()
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            mirrors("docker.io"),
            [
                pair("https://a.example/", ""),
                pair("http://b.example:5000/", "hub/")
            ]
        );
        assert_eq!(mirrors("quay.io"), [pair("https://c.example/", "")]);
        assert!(mirrors("lan:5000").is_empty());
        for yes in [
            "lan:5000",
            "LAN:5000",
            "10.1.255.1",
            "10.1.0.1:5000",
            "[fd00::1]:80",
        ] {
            assert!(settings.is_insecure(yes), "{yes}");
        }
        for no in [
            "lan",
            "lan:5001",
            "10.2.0.1",
            "[fe80::1]",
            "docker.io",
            "10.1.0.1.nip.io",
        ] {
            assert!(!settings.is_insecure(no), "{no}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (r#"{"registries": {"a": {"mirror": []}}}"#, "mirror"),
            (
                r#"{"registries": {"a": {"mirrors": ["a.example"]}}}"#,
                "absolute URL",
            ),
            (r#"{"registries": {"a": {"mirrors": ["ftp://a"]}}}"#, "http"),
            (
                r#"{"registries": {"a/b": {"insecure": true}}}"#,
                "10.0.0.0/8",
            ),
            (
                r#"{"registries": {"10.0.0.0/33": {"insecure": true}}}"#,
                "10.0.0.0/8",
            ),
            (r#"{"registries": {"*": {"insecure": true}}}"#, "every"),
            (r#"{"certificates": ["certs.d"]}"#, "absolute"),
            ("[", "EOF"),
        ] {
            let error = RegistrySettings::parse(text.as_bytes(), "x").unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_file_that_is_there_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["own", "machine"].map(|name| dir.path().join(name));
        let nothing = RegistrySettings::load(&files).unwrap();
        assert!(!nothing.is_insecure("lan"));
        std::fs::write(&files[1], r#"{"registries": {"lan": {"insecure": true}}}"#).unwrap();
        assert!(RegistrySettings::load(&files).unwrap().is_insecure("lan"));
        std::fs::write(&files[0], "{}").unwrap();
        assert!(!RegistrySettings::load(&files).unwrap().is_insecure("lan"));
        std::fs::write(&files[0], "[").unwrap();
        let error = RegistrySettings::load(&files).unwrap_err().to_string();
        assert!(error.contains("own"), "{error}");
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..256)) {
            fuzz_registry_settings(&data);
        }
    }
}

//! Credentials for registries, where docker keeps them: `config.json` (in `DOCKER_CONFIG`, else
//! `~/.docker`) and the helper programs that it names.

pub mod file;
pub mod helper;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use gamut_spec::reference::Reference;
use serde_json::{Map, Value};

use crate::error::Error;
pub use file::ConfigFile;

/// The server by which Docker Hub is kept.
const HUB: &str = "https://index.docker.io/v1/";
/// The header that credentials travel in.
pub const HEADER: &str = "X-Registry-Auth";

/// Who the user is to a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Name.
    pub username: String,
    /// Password, or a token instead of one.
    pub password: String,
    /// What a registry gave in place of the password.
    pub identity_token: String,
}

impl Login {
    /// As Docker's API takes it.
    #[must_use]
    pub fn to_json(&self, server: &str) -> Value {
        let fields = [
            ("username", &self.username),
            ("password", &self.password),
            ("identitytoken", &self.identity_token),
        ];
        let mut object: Map<String, Value> = fields
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), Value::from(text.as_str())))
            .collect();
        object.insert("serveraddress".to_owned(), Value::from(server));
        Value::Object(object)
    }

    /// The value of [`HEADER`].
    #[must_use]
    pub fn to_header(&self, server: &str) -> String {
        URL_SAFE.encode(self.to_json(server).to_string())
    }
}

/// The name by which a registry's credentials are kept, of `host[:port]`, a URL, or nothing for
/// Docker Hub.
#[must_use]
pub fn server_of(registry: &str) -> String {
    match file::host_of(registry) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        host => host.to_owned(),
    }
}

/// What the user has for the registry of an image, as the value of [`HEADER`].
///
/// # Errors
/// If the configuration file is damaged or a helper fails in another way than having nothing.
pub fn header_for(reference: &Reference) -> Result<Option<String>, Error> {
    let server = server_of(reference.registry());
    Ok(get(&server)?.map(|login| login.to_header(&server)))
}

/// What the user has for a server.
///
/// # Errors
/// As [`header_for`].
pub fn get(server: &str) -> Result<Option<Login>, Error> {
    let config = ConfigFile::load(&path())?;
    match config.helper_for(server) {
        Some(helper) => helper::get(helper, server),
        None => Ok(config.login(server)),
    }
}

/// Keeps credentials. Returns the file they are in if they are there to be read.
///
/// # Errors
/// If they cannot be kept.
pub fn store(server: &str, login: &Login) -> Result<Option<PathBuf>, Error> {
    let path = path();
    let mut config = ConfigFile::load(&path)?;
    if let Some(helper) = config.helper_for(server) {
        helper::store(helper, server, login)?;
        // docker lists what helpers have by empty entries.
        config.set_login(server, None);
        config.save(&path)?;
        return Ok(None);
    }
    config.set_login(server, Some(login));
    config.save(&path)?;
    Ok(Some(path))
}

/// Forgets credentials; false if there were none.
///
/// # Errors
/// If they cannot be removed.
pub fn erase(server: &str) -> Result<bool, Error> {
    let path = path();
    let mut config = ConfigFile::load(&path)?;
    let mut found = config.remove_login(server);
    if let Some(helper) = config.helper_for(server) {
        found |= helper::get(helper, server)?.is_some();
        helper::erase(helper, server)?;
    }
    if found {
        config.save(&path)?;
    }
    Ok(found)
}

fn path() -> PathBuf {
    let directory = std::env::var_os("DOCKER_CONFIG")
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    directory.unwrap_or_default().join("config.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_headers() {
        for (registry, server) in [
            ("", HUB),
            ("docker.io", HUB),
            (HUB, HUB),
            ("https://r.example:5000/v2/", "r.example:5000"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(server_of(registry), server, "{registry}");
        }
        let login = Login {
            username: "me".to_owned(),
            password: "s".to_owned(),
            ..Login::default()
        };
        let bytes = URL_SAFE.decode(login.to_header("r")).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"username": "me", "password": "s", "serveraddress": "r"})
        );
    }
}

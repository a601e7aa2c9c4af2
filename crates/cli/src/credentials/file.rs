//! docker's `config.json`: what concerns registries of it is read and changed, everything else
//! stays as it is.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Login;
use crate::error::Error;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfigFile {
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// Parses the file's content. `None` if it is no JSON object.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Some(Self::default());
        }
        match serde_json::from_slice(bytes).ok()? {
            Value::Object(fields) => Some(Self { fields }),
            _ => None,
        }
    }

    /// Reads the file; one that is not there is empty.
    ///
    /// # Errors
    /// If it cannot be read or is no JSON object.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(Error::io(format!("read {}", path.display())))?,
        };
        Self::parse(&bytes).ok_or_else(|| {
            Error::Message(format!(
                "{} is damaged: it is no JSON object; repair or remove it",
                path.display()
            ))
        })
    }

    /// Writes the file, for its owner only; a crash leaves the old or the new one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        // A link, to a file kept elsewhere, stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let failed = || Error::io(format!("write {}", path.display()));
        if let Some(directory) = path.parent() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(failed())?;
        }
        let temporary = path.with_extension(format!("json.{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let write = || -> io::Result<()> {
            let mut file = options.open(&temporary)?;
            let mut text = serde_json::to_vec_pretty(&self.fields)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed()(error)
        })
    }

    /// The context that `context use` has chosen.
    #[must_use]
    pub fn current_context(&self) -> Option<&str> {
        let name = self.fields.get("currentContext")?.as_str()?;
        (!name.is_empty()).then_some(name)
    }

    /// Chooses a context; `None` is the default one.
    pub fn set_current_context(&mut self, name: Option<&str>) {
        match name {
            Some(name) => self.fields.insert("currentContext".to_owned(), name.into()),
            None => self.fields.remove("currentContext"),
        };
    }

    /// The helper that has a server's credentials: `credHelpers` before `credsStore`.
    #[must_use]
    pub fn helper_for(&self, server: &str) -> Option<&str> {
        let of_server = self
            .fields
            .get("credHelpers")
            .and_then(|helpers| helpers.get(server))
            .and_then(Value::as_str);
        of_server
            .or_else(|| self.fields.get("credsStore").and_then(Value::as_str))
            .filter(|name| !name.is_empty())
    }

    /// What the file itself has for a server: by its name, or by another address of the same host.
    #[must_use]
    pub fn login(&self, server: &str) -> Option<Login> {
        let entries = self.fields.get("auths")?.as_object()?;
        let entry = entries.get(server).or_else(|| {
            let host = host_of(server);
            let same = entries.iter().find(|(name, _)| host_of(name) == host);
            same.map(|(_, entry)| entry)
        })?;
        login_of(entry)
    }

    /// Keeps credentials for a server, or, with `None`, that a helper has some.
    pub fn set_login(&mut self, server: &str, login: Option<&Login>) {
        let mut entry = Map::new();
        if let Some(login) = login {
            let password = if login.identity_token.is_empty() {
                login.password.as_str()
            } else {
                entry.insert(
                    "identitytoken".to_owned(),
                    Value::from(login.identity_token.as_str()),
                );
                ""
            };
            let pair = STANDARD.encode(format!("{}:{password}", login.username));
            entry.insert("auth".to_owned(), Value::from(pair));
        }
        let entries = self
            .fields
            .entry("auths")
            .or_insert_with(|| Value::Object(Map::new()));
        if !entries.is_object() {
            *entries = Value::Object(Map::new());
        }
        if let Some(entries) = entries.as_object_mut() {
            entries.insert(server.to_owned(), Value::Object(entry));
        }
    }

    /// Forgets what the file has for a server, by whatever address of its host; false if nothing.
    pub fn remove_login(&mut self, server: &str) -> bool {
        let Some(entries) = self.fields.get_mut("auths").and_then(Value::as_object_mut) else {
            return false;
        };
        let before = entries.len();
        entries.retain(|name, _| name != server && host_of(name) != host_of(server));
        entries.len() != before
    }
}

/// Host and port of a server's address.
#[must_use]
pub fn host_of(server: &str) -> &str {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    bare.split('/').next().unwrap_or_default()
}

fn login_of(entry: &Value) -> Option<Login> {
    let field = |name: &str| {
        let text = entry.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let mut login = Login {
        username: field("username"),
        password: field("password"),
        identity_token: field("identitytoken"),
    };
    let pair = STANDARD.decode(field("auth")).unwrap_or_default();
    if let Ok(pair) = String::from_utf8(pair)
        && let Some((username, password)) = pair.split_once(':')
    {
        username.clone_into(&mut login.username);
        password
            .trim_end_matches('\0')
            .clone_into(&mut login.password);
    }
    (login != Login::default()).then_some(login)
}

/// Feeds bytes to the parser of `config.json`: whatever is understood survives a round trip.
pub fn fuzz_config_file(data: &[u8]) {
    let Some(mut config) = ConfigFile::parse(data) else {
        return;
    };
    for server in ["https://index.docker.io/v1/", "localhost:5000", ""] {
        let _ = config.helper_for(server);
        if let Some(login) = config.login(server) {
            config.set_login(server, Some(&login));
            let again = config.login(server).unwrap_or_default();
            assert!(!again.username.contains(':'));
        }
        config.remove_login(server);
        assert_eq!(config.login(server), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> ConfigFile {
        ConfigFile::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn logins_are_found_by_host() {
        // "me:sec:ret"
        let config = parse(
            r#"{"auths": {"https://r.example/v1/": {"auth": "bWU6c2VjOnJldA=="},
                "t.example": {"auth": "bWU6", "identitytoken": "token"}, "empty.example": {}},
                "credHelpers": {"h.example": "one"}, "proxies": {"default": {}}}"#,
        );
        let login = config.login("r.example").unwrap();
        assert_eq!(
            (login.username.as_str(), login.password.as_str()),
            ("me", "sec:ret")
        );
        assert_eq!(config.login("t.example").unwrap().identity_token, "token");
        assert_eq!(config.login("empty.example"), None);
        assert_eq!(config.login("r.example:5000"), None);
        assert_eq!(config.helper_for("h.example"), Some("one"));
        assert_eq!(config.helper_for("r.example"), None);
        assert_eq!(
            parse(r#"{"credsStore":"all"}"#).helper_for("x"),
            Some("all")
        );
    }

    #[test]
    fn the_rest_of_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        let mut config = parse(r#"{"proxies": {"default": {"httpProxy": "x"}}, "auths": null}"#);
        let login = Login {
            username: "me".to_owned(),
            password: "secret".to_owned(),
            ..Login::default()
        };
        config.set_login("r.example", Some(&login));
        config.save(&path).unwrap();
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let mut again = ConfigFile::load(&path).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.login("https://r.example/").unwrap(), login);
        assert!(again.remove_login("r.example") && !again.remove_login("r.example"));
        assert_eq!(again.fields["proxies"]["default"]["httpProxy"], "x");
        fs::write(&path, "[]").unwrap();
        let error = ConfigFile::load(&path).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..256)) {
            fuzz_config_file(&data);
        }
    }
}

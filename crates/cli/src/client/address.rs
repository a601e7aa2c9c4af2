//! Where the engine listens.

use std::path::{Path, PathBuf};

use crate::contexts::{Context, DEFAULT, Store};
use crate::error::Error;
use gamut_docker_api::TlsFiles;
use gamut_rootless::{Account, Directories};

/// The socket of root's engine that nobody pointed elsewhere.
pub const DEFAULT_SOCKET: &str = "/run/gamut/gamut.sock";
/// Port of an engine behind TLS, as Docker's.
const TLS_PORT: u16 = 2376;

/// A way to the engine, and whether it was named by the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The way.
    pub endpoint: Endpoint,
    /// Not named by flag or environment: an engine may be started there on demand.
    pub is_default: bool,
}

/// A way to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket, by its path.
    Unix(PathBuf),
    /// TCP with mutual TLS.
    Tls {
        /// Name or address of the host, which the server's certificate must have.
        host: String,
        /// Port.
        port: u16,
        /// Certificates and key.
        files: TlsFiles,
    },
    /// Standard input and output of a command on another machine (ssh(1)).
    Ssh {
        /// `[USER@]HOST`.
        destination: String,
        /// Port, if not the usual one.
        port: Option<u16>,
    },
}

/// What is said about TLS, by flags and environment.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// `--tlsverify`, or `DOCKER_TLS_VERIFY` that is not empty.
    pub verify: bool,
    /// `--tlscacert`.
    pub authority: Option<PathBuf>,
    /// `--tlscert`.
    pub certificate: Option<PathBuf>,
    /// `--tlskey`.
    pub key: Option<PathBuf>,
}

impl TlsOptions {
    /// The files: those named, others in `DOCKER_CERT_PATH` or beside docker's configuration.
    #[must_use]
    pub fn files(&self, directory: &Path) -> TlsFiles {
        let or_in = |named: &Option<PathBuf>, name: &str| {
            named.clone().unwrap_or_else(|| directory.join(name))
        };
        TlsFiles {
            authority: or_in(&self.authority, "ca.pem"),
            certificate: or_in(&self.certificate, "cert.pem"),
            key: or_in(&self.key, "key.pem"),
        }
    }

    /// Whether anything is said at all.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.verify || self.authority.is_some() || self.certificate.is_some() || self.key.is_some()
    }
}

/// The flags before the verb that choose an engine.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `--host`.
    pub host: Option<String>,
    /// `--context`.
    pub context: Option<String>,
    /// TLS.
    pub tls: TlsOptions,
}

impl Address {
    /// Chooses the address: a flag, then `GAMUT_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, then the
    /// context that `context use` has chosen, then the default, which for an ordinary user is that
    /// of his own engine.
    ///
    /// # Errors
    /// [`Error::Usage`] for an address that is none; contexts that are not there.
    pub fn choose(choice: &Choice) -> Result<Self, Error> {
        let of_environment =
            |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut tls = choice.tls.clone();
        tls.verify |= of_environment("DOCKER_TLS_VERIFY").is_some();
        match (&choice.host, &choice.context) {
            (Some(_), Some(_)) => {
                return Err(Error::Usage(
                    "conflicting options: specify either --host or --context".to_owned(),
                ));
            }
            (Some(host), None) => return parse(host, "--host", &tls),
            (None, Some(name)) => return of_context(name),
            (None, None) => {}
        }
        for variable in ["GAMUT_HOST", "DOCKER_HOST"] {
            if let Some(host) = of_environment(variable) {
                return parse(&host, variable, &tls);
            }
        }
        match of_environment("DOCKER_CONTEXT").or_else(|| Store::open().current()) {
            Some(name) => of_context(&name),
            None => Ok(Self::default_one()),
        }
    }

    /// The engine that is there without a word.
    #[must_use]
    pub fn default_one() -> Self {
        let socket = if gamut_rootless::is_ordinary_user() {
            Directories::of(&Account::current()).socket()
        } else {
            PathBuf::from(DEFAULT_SOCKET)
        };
        Self {
            endpoint: Endpoint::Unix(socket),
            is_default: true,
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tls { host, port, .. } if host.contains(':') => {
                write!(f, "tcp://[{host}]:{port}")
            }
            Self::Tls { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh { destination, port } => {
                write!(f, "ssh://{destination}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

fn of_context(name: &str) -> Result<Address, Error> {
    if name == DEFAULT {
        return Ok(Address::default_one());
    }
    let store = Store::open();
    let Context { host, tls, .. } = store.get(name)?;
    let directory = store.tls_directory(name);
    let origin = format!("context {name:?}");
    let endpoint = endpoint(
        &host,
        &origin,
        tls.then(|| TlsOptions::default().files(&directory)),
    )?;
    Ok(Address {
        endpoint,
        is_default: false,
    })
}

fn parse(host: &str, origin: &str, tls: &TlsOptions) -> Result<Address, Error> {
    let directory = std::env::var_os("DOCKER_CERT_PATH")
        .filter(|path| !path.is_empty())
        .map_or_else(|| Store::open().configuration_directory(), PathBuf::from);
    let files = tls.is_any().then(|| tls.files(&directory));
    Ok(Address {
        endpoint: endpoint(host, origin, files)?,
        is_default: false,
    })
}

/// Takes an address apart; `origin` is where it stands.
///
/// # Errors
/// [`Error::Usage`].
pub fn endpoint(host: &str, origin: &str, files: Option<TlsFiles>) -> Result<Endpoint, Error> {
    let bad = |reason: &str| Error::Usage(format!("invalid host \"{host}\" in {origin}: {reason}"));
    match host.split_once("://") {
        Some(("unix", path)) if Path::new(path).is_absolute() => {
            Ok(Endpoint::Unix(PathBuf::from(path)))
        }
        Some(("tcp" | "https", rest)) => {
            let (host, port) =
                host_and_port(rest).ok_or_else(|| bad("expected tcp://HOST[:PORT]"))?;
            let files = files.ok_or_else(|| {
                bad("an engine is reached over TCP with mutual TLS only: give --tlsverify (or DOCKER_TLS_VERIFY=1) with certificates in ~/.docker or DOCKER_CERT_PATH, or use ssh://")
            })?;
            Ok(Endpoint::Tls {
                host,
                port: port.unwrap_or(TLS_PORT),
                files,
            })
        }
        Some(("ssh", rest)) => {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            let (user, place) = match rest.rsplit_once('@') {
                Some((user, place)) => (Some(user), place),
                None => (None, rest),
            };
            let (host, port) =
                host_and_port(place).ok_or_else(|| bad("expected ssh://[USER@]HOST[:PORT]"))?;
            // ssh(1) must take neither for an option.
            let is_plain = |text: &str| !text.is_empty() && !text.starts_with('-');
            if !is_plain(&host) || user.is_some_and(|user| !is_plain(user) || user.contains(':')) {
                return Err(bad("expected ssh://[USER@]HOST[:PORT]"));
            }
            let destination = user.map_or_else(|| host.clone(), |user| format!("{user}@{host}"));
            Ok(Endpoint::Ssh { destination, port })
        }
        _ => Err(bad(
            "use unix:///absolute/path, tcp://HOST[:PORT] or ssh://[USER@]HOST[:PORT]",
        )),
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (
                host,
                Some(after)
                    .filter(|after| !after.is_empty())
                    .map(|after| after.strip_prefix(':')),
            )
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(Some(port))),
            None => (text, None),
        },
    };
    let port = match port {
        None => None,
        Some(text) => Some(text?.parse().ok().filter(|port| *port > 0)?),
    };
    let is_host = !host.is_empty() && !host.contains(['/', ' ']);
    is_host.then(|| (host.to_owned(), port))
}

/// Entry for fuzzing: any text is taken apart or refused without panic, and what it was taken for
/// is the same when it is written out and read again.
pub fn fuzz_endpoint(data: &[u8]) {
    let files = TlsFiles {
        authority: PathBuf::new(),
        certificate: PathBuf::new(),
        key: PathBuf::new(),
    };
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(found) = endpoint(text, "", Some(files.clone()))
    {
        let again = endpoint(&found.to_string(), "", Some(files));
        assert!(again.is_ok_and(|again| again == found), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(host: &str) -> Result<Endpoint, Error> {
        endpoint(host, "--host", None)
    }

    #[test]
    fn addresses() {
        assert_eq!(
            plain("unix:///x/y.sock").unwrap(),
            Endpoint::Unix("/x/y.sock".into())
        );
        for (text, destination, port) in [
            ("ssh://box", "box", None),
            ("ssh://me@box:2222/", "me@box", Some(2222)),
        ] {
            let expected = Endpoint::Ssh {
                destination: destination.to_owned(),
                port,
            };
            assert_eq!(plain(text).unwrap(), expected);
        }
        let files = TlsOptions::default().files(Path::new("/c"));
        let found = endpoint("tcp://[::1]", "--host", Some(files.clone())).unwrap();
        let expected = Endpoint::Tls {
            host: "::1".to_owned(),
            port: 2376,
            files,
        };
        assert_eq!(found, expected);
        assert_eq!(found.to_string(), "tcp://[::1]:2376");
    }

    #[test]
    fn refusals() {
        for bad in [
            "/x",
            "unix://x",
            "",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a:b@host",
            "ssh://host:x",
            "tcp://",
            "fd://",
        ] {
            assert!(plain(bad).is_err(), "{bad}");
        }
        let error = plain("tcp://1.2.3.4:1").unwrap_err().to_string();
        assert!(error.contains("mutual TLS"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text(text in "(unix|tcp|ssh)://\\PC*") {
            fuzz_endpoint(text.as_bytes());
        }
    }
}

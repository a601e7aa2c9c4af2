//! Where the engine listens.

use std::path::{Path, PathBuf};

use crate::error::Error;
use gamut_rootless::{Account, Directories};

/// The socket of root's engine that nobody pointed elsewhere.
pub const DEFAULT_SOCKET: &str = "/run/gamut/gamut.sock";

/// A socket, and whether it was named by the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Path of the unix socket.
    pub socket: PathBuf,
    /// Not named by flag or environment: an engine may be started there on demand.
    pub is_default: bool,
}

impl Address {
    /// Chooses the address: the flag, then `GAMUT_HOST`, then `DOCKER_HOST`, then the default,
    /// which for an ordinary user is that of his own engine.
    ///
    /// # Errors
    /// [`Error::Usage`] for anything but `unix:///path`.
    pub fn choose(flag: Option<&str>) -> Result<Self, Error> {
        if let Some(host) = flag {
            return parse(host, "--host");
        }
        for variable in ["GAMUT_HOST", "DOCKER_HOST"] {
            match std::env::var(variable) {
                Ok(host) if !host.is_empty() => return parse(&host, variable),
                _ => {}
            }
        }
        let socket = if gamut_rootless::is_ordinary_user() {
            Directories::of(&Account::current()).socket()
        } else {
            PathBuf::from(DEFAULT_SOCKET)
        };
        Ok(Self {
            socket,
            is_default: true,
        })
    }
}

fn parse(host: &str, origin: &str) -> Result<Address, Error> {
    match host.strip_prefix("unix://") {
        Some(path) if Path::new(path).is_absolute() => Ok(Address {
            socket: PathBuf::from(path),
            is_default: false,
        }),
        _ => Err(Error::Usage(format!(
            "invalid host \"{host}\" in {origin}: only unix:///absolute/path is supported"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_unix_sockets() {
        assert_eq!(
            Address::choose(Some("unix:///x/y.sock")).unwrap(),
            Address {
                socket: "/x/y.sock".into(),
                is_default: false
            }
        );
        for bad in ["tcp://1.2.3.4:1", "/x", "unix://x", ""] {
            assert!(Address::choose(Some(bad)).is_err(), "{bad}");
        }
    }
}

//! Logging in: whether a registry takes a name and a password.

use gamut_spec::error::ErrorKind;
use ureq::http::{Method, StatusCode};

use super::address::api_host;
use super::authentication::{Challenge, basic};
use super::client::challenge_of;
use super::connection::{Connection, Payload, explained};
use super::{RegistryOptions, token};
use crate::error::{Error, Result};

/// How a login ended well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggedIn {
    /// What stands for the password from now on, if the registry gives such a token.
    pub identity_token: Option<String>,
}

/// The registry that a server address means, as clients write it: `https://index.docker.io/v1/`
/// and nothing at all are Docker Hub.
fn registry_of(server: &str) -> &str {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Checks the credentials in `options` with a registry.
///
/// # Errors
/// [`Error::Registry`]: it cannot be reached, or does not take them.
pub fn login(server: &str, options: &RegistryOptions) -> Result<LoggedIn> {
    let registry = registry_of(server);
    let credentials = options.credentials.clone().unwrap_or_default();
    let connection = Connection::to_host(api_host(registry), registry, &options.trust())?;
    let url = connection.base.at("/v2/");
    let ask = |authorization: Option<&str>| {
        connection.send(&Method::GET, &url, &[], authorization, Payload::None)
    };
    let answer = ask(None)?;
    if answer.status().is_success() {
        return Ok(LoggedIn::default());
    }
    let challenge = challenge_of(&answer);
    drop(answer);
    let (authorization, identity_token) = match challenge {
        Some(Challenge::Basic) => (basic(&credentials.username, &credentials.password), None),
        Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) => {
            let scopes: Vec<String> = scope.into_iter().collect();
            let asked = token::Asked {
                realm: &realm,
                service: service.as_deref(),
                scopes: &scopes,
            };
            let tokens =
                token::login(&connection, &asked, &credentials).map_err(|error| match error {
                    token::Failure::Refused(status, said) => refused(&connection, status, &said),
                    token::Failure::Failed(error) => error,
                })?;
            (format!("Bearer {}", tokens.access), tokens.refresh)
        }
        None => {
            return Err(connection.error(
                format!("{registry} is no registry, or does not say how to log in"),
                ErrorKind::Unavailable,
                false,
            ));
        }
    };
    let mut answer = ask(Some(&authorization))?;
    if !answer.status().is_success() {
        let said = explained(&mut answer);
        return Err(refused(&connection, answer.status(), &said));
    }
    Ok(LoggedIn { identity_token })
}

fn refused(connection: &Connection, status: StatusCode, said: &str) -> Error {
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    };
    let host = &connection.base.authority;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => connection.error(
            format!("login attempt to {host} failed: incorrect username or password{said}"),
            ErrorKind::Unauthorized,
            false,
        ),
        status => connection.error(
            format!("login attempt to {host} failed with status {status}{said}"),
            ErrorKind::Unavailable,
            false,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_registries() {
        for (server, registry) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://r.example:5000/v2/", "r.example:5000"),
            ("http://localhost:5000", "localhost:5000"),
            ("r.example", "r.example"),
        ] {
            assert_eq!(registry_of(server), registry, "{server}");
        }
    }
}

//! Credentials for registries, as clients send them.

use crate::error::ApiError;
use crate::request::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gamut_image::Credentials;
use serde::Deserialize;

/// Docker's `AuthConfig`.
#[derive(Deserialize)]
pub(crate) struct AuthConfig {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    /// Name and password in one, as the client's own configuration file has them.
    #[serde(default)]
    auth: String,
    #[serde(default, alias = "identityToken")]
    identitytoken: String,
    #[serde(default, alias = "registryToken")]
    registrytoken: String,
    #[serde(default, alias = "serverAddress")]
    pub(crate) serveraddress: String,
}

impl AuthConfig {
    /// What it says, if it says anything.
    pub(crate) fn credentials(&self) -> Option<Credentials> {
        let (mut username, mut password) = (self.username.clone(), self.password.clone());
        if username.is_empty()
            && let Some(pair) = decode_base64(self.auth.as_bytes())
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((name, secret)) = pair.split_once(':')
        {
            (username, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
        }
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let credentials = Credentials {
            username,
            password,
            identity_token: given(&self.identitytoken),
            registry_token: given(&self.registrytoken),
        };
        let is_empty = credentials.username.is_empty()
            && credentials.identity_token.is_none()
            && credentials.registry_token.is_none();
        (!is_empty).then_some(credentials)
    }
}

/// The header `X-Registry-Auth`: base64 (URL alphabet) of JSON.
pub(crate) fn credentials(request: &Request) -> Result<Option<Credentials>, ApiError> {
    let Some(header) = request.headers.get("x-registry-auth") else {
        return Ok(None);
    };
    let bad = || ApiError::invalid("invalid X-Registry-Auth header");
    let bytes = decode_base64(header.as_bytes()).ok_or_else(bad)?;
    if bytes.is_empty() || bytes == b"null" {
        return Ok(None);
    }
    let auth: AuthConfig = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    Ok(auth.credentials())
}

/// Decodes base64 of either alphabet, padded or not: clients differ.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let bare: Vec<u8> = text
        .iter()
        .filter(|c| **c != b'=')
        .map(|c| match c {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    STANDARD_NO_PAD.decode(bare).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_alphabet() {
        assert_eq!(decode_base64(b"eyJhIjoxfQ==").unwrap(), b"{\"a\":1}");
        assert_eq!(decode_base64(b"-_8").unwrap(), [0xfb, 0xff]);
        assert_eq!(decode_base64(b"a b"), None);
    }

    #[test]
    fn every_form_of_credentials() {
        let of = |text: &str| {
            let config: AuthConfig = serde_json::from_str(text).unwrap();
            config.credentials()
        };
        assert!(of("{}").is_none() && of(r#"{"serveraddress":"x"}"#).is_none());
        let pair = of(r#"{"auth":"bWU6c2VjOnJldA=="}"#).unwrap();
        assert_eq!(
            (pair.username.as_str(), pair.password.as_str()),
            ("me", "sec:ret")
        );
        let token = of(r#"{"username":"me","identitytoken":"t"}"#).unwrap();
        assert_eq!(token.identity_token.as_deref(), Some("t"));
        assert!(
            of(r#"{"registrytoken":"t"}"#)
                .unwrap()
                .registry_token
                .is_some()
        );
    }
}

//! Tokens from token servers.
//!
//! Sources: Docker's token authentication specification (GET) and its OAuth2 form (POST).

use ureq::http::{Method, StatusCode};

use super::Credentials;
use super::address::{Url, escape};
use super::authentication::{Tokens, basic, token_url, tokens_of};
use super::connection::{Connection, Payload, explanation, read_limited};
use crate::error::{Error, Result};

const MAX_TOKEN_BYTES: u64 = 256 * 1024;
const CLIENT_ID: &str = "gamut";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// What a challenge asks for.
pub(super) struct Asked<'a> {
    pub(super) realm: &'a str,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a [String],
}

/// Why there is no token.
pub(super) enum Failure {
    /// The token server said no, and why.
    Refused(StatusCode, String),
    /// Anything else.
    Failed(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Fetches a token for whom the credentials name, or for nobody. The realm is where the registry
/// says; it is spoken to in the clear only where the registry itself may be.
pub(super) fn fetch(
    connection: &Connection,
    asked: &Asked<'_>,
    credentials: Option<&Credentials>,
) -> Result<Tokens, Failure> {
    let identity = credentials.and_then(|known| known.identity_token.as_deref());
    if let Some(identity) = identity {
        let grant = [("grant_type", "refresh_token"), ("refresh_token", identity)];
        return post(connection, asked, &grant);
    }
    get(connection, asked, credentials, false)
}

/// Logs in: asks for a token that stands for the password from then on, where the server has
/// such.
pub(super) fn login(
    connection: &Connection,
    asked: &Asked<'_>,
    credentials: &Credentials,
) -> Result<Tokens, Failure> {
    if credentials.identity_token.is_some() {
        return fetch(connection, asked, Some(credentials));
    }
    let grant = [
        ("grant_type", "password"),
        ("access_type", "offline"),
        ("username", credentials.username.as_str()),
        ("password", credentials.password.as_str()),
    ];
    match post(connection, asked, &grant) {
        // Servers that know GET only say so in various ways; a wrong password fails there, too.
        Err(Failure::Refused(..)) => get(connection, asked, Some(credentials), true),
        answered => answered,
    }
}

fn get(
    connection: &Connection,
    asked: &Asked<'_>,
    credentials: Option<&Credentials>,
    offline: bool,
) -> Result<Tokens, Failure> {
    let account = credentials.map(|known| known.username.as_str());
    let realm = Url::parse(asked.realm)?;
    let mut url = token_url(&realm, asked.service, asked.scopes, account);
    if offline {
        url = url
            .with_query("offline_token", "true")
            .with_query("client_id", CLIENT_ID);
    }
    let header = credentials.map(|known| basic(&known.username, &known.password));
    let answer = connection.send(&Method::GET, &url, &[], header.as_deref(), Payload::None)?;
    tokens(answer, asked.realm)
}

fn post(
    connection: &Connection,
    asked: &Asked<'_>,
    grant: &[(&str, &str)],
) -> Result<Tokens, Failure> {
    let url = Url::parse(asked.realm)?;
    let scope = asked.scopes.join(" ");
    let fields = [
        ("client_id", CLIENT_ID),
        ("service", asked.service.unwrap_or_default()),
        ("scope", scope.as_str()),
    ];
    let form = grant
        .iter()
        .chain(&fields)
        .filter(|(name, value)| *name != "scope" || !value.is_empty())
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect::<Vec<_>>()
        .join("&");
    let answer = connection.send(
        &Method::POST,
        &url,
        &[FORM],
        None,
        Payload::Bytes(form.as_bytes()),
    )?;
    tokens(answer, asked.realm)
}

fn tokens(mut answer: ureq::http::Response<ureq::Body>, realm: &str) -> Result<Tokens, Failure> {
    let status = answer.status();
    let object = format!("token server {realm}");
    let body = read_limited(&mut answer, MAX_TOKEN_BYTES, &object, "256 KiB for a token")?;
    if !status.is_success() {
        return Err(Failure::Refused(status, explanation(&body)));
    }
    Ok(tokens_of(&body, realm)?)
}

//! `search`, by the API of version 1 that registries with an index keep for it.

use gamut_spec::error::ErrorKind;
use serde::Deserialize;
use ureq::http::{Method, StatusCode};

use super::RegistryOptions;
use super::authentication::{Challenge, basic};
use super::client::challenge_of;
use super::connection::{Connection, explained, header_text, read_limited};
use crate::error::{Error, Result};
use crate::manifest::or_default;

const MAX_ANSWER_BYTES: u64 = 16 * 1024 * 1024;
/// Where Docker Hub is searched.
const HUB: &str = "index.docker.io";

/// A repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What its owner says of it.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// How many people like it.
    #[serde(default, deserialize_with = "or_default")]
    pub star_count: i64,
    /// Whether the index vouches for it.
    #[serde(default, deserialize_with = "or_default")]
    pub is_official: bool,
    /// Whether it is built automatically.
    #[serde(default, deserialize_with = "or_default")]
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "or_default")]
    results: Vec<SearchResult>,
}

/// Where a term is searched for, and what.
fn place_of(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) => (HUB, rest),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (HUB, term.strip_prefix("library/").unwrap_or(term)),
    }
}

/// Searches the registry that `term` begins with, or Docker Hub. At most `limit` are asked for.
///
/// # Errors
/// [`Error::Registry`] if it cannot be reached or has no search; [`Error::Malformed`] if its
/// answer makes no sense.
pub fn search(term: &str, limit: usize, options: &RegistryOptions) -> Result<Vec<SearchResult>> {
    let (host, rest) = place_of(term);
    let connection = Connection::to_host(host, term, &options.trust())?;
    let url = connection
        .base
        .at("/v1/search")
        .with_query("q", rest)
        .with_query("n", &limit.to_string());
    let mut answer = connection.follow(&Method::GET, &url, &[], None, None)?;
    // Indexes of version 1 know no tokens.
    if answer.status() == StatusCode::UNAUTHORIZED
        && challenge_of(&answer) == Some(Challenge::Basic)
        && let Some(known) = &options.credentials
    {
        let login = basic(&known.username, &known.password);
        answer = connection.follow(&Method::GET, &url, &[], Some(&login), None)?;
    }
    if answer.status() == StatusCode::NOT_FOUND {
        return Err(connection.error(
            format!("{host} has no search; only registries with an index have"),
            ErrorKind::NotFound,
            false,
        ));
    }
    if !answer.status().is_success() {
        let said = explained(&mut answer);
        return Err(connection.error(
            format!("{host} answered {} to the search {said}", answer.status()),
            ErrorKind::Unavailable,
            false,
        ));
    }
    let object = format!("search of {host}");
    let kind = header_text(&answer, "content-type").unwrap_or_default();
    let body = read_limited(&mut answer, MAX_ANSWER_BYTES, &object, "16 MiB")?;
    let found: Answer = serde_json::from_slice(&body).map_err(|error| {
        Error::malformed(object, format!("its answer ({kind}) is no list: {error}"))
    })?;
    Ok(found.results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_begin_with_a_registry_or_not() {
        for (term, place) in [
            ("tool", (HUB, "tool")),
            ("team/tool", (HUB, "team/tool")),
            ("library/tool", (HUB, "tool")),
            ("docker.io/tool", (HUB, "tool")),
            ("localhost/tool", ("localhost", "tool")),
            ("r.example:5000/a/b", ("r.example:5000", "a/b")),
        ] {
            assert_eq!(place_of(term), place, "{term}");
        }
    }
}

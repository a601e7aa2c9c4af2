//! A request, taken apart for the handlers.

use crate::body::BodyReader;
use crate::error::ApiError;
use gamut_engine::{Caller, Engine};
use gamut_spec::error::ErrorKind;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Largest JSON body accepted.
const MAX_JSON_BYTES: usize = 16 << 20;

/// Version of the Docker Engine API, as (1, 41).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

/// The newest version served, and assumed where the path names none.
pub const NEWEST: ApiVersion = ApiVersion(1, 55);
/// The oldest version served.
pub const OLDEST: ApiVersion = ApiVersion(1, 24);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl ApiVersion {
    /// Parses `v1.41`.
    #[must_use]
    pub fn from_segment(segment: &str) -> Option<Self> {
        let (major, minor) = segment.strip_prefix('v')?.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A request, taken apart.
#[derive(Debug)]
pub struct Request {
    /// The engine.
    pub engine: Arc<Engine>,
    /// On whose behalf.
    pub caller: Caller,
    /// Method.
    pub method: Method,
    /// Decoded path segments after the version.
    pub segments: Vec<String>,
    /// Version named by the path.
    pub version: ApiVersion,
    /// Query parameters; of a repeated one, all values.
    query: BTreeMap<String, Vec<String>>,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole HTTP request, for body and upgrade.
    pub http: hyper::Request<Incoming>,
}

impl Request {
    /// Takes a request apart.
    ///
    /// # Errors
    /// If the version is not served.
    pub fn new(
        engine: Arc<Engine>,
        caller: Caller,
        http: hyper::Request<Incoming>,
    ) -> Result<Self, ApiError> {
        let mut segments: Vec<String> = http
            .uri()
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode(segment, false))
            .collect();
        let version = match segments
            .first()
            .and_then(|first| ApiVersion::from_segment(first))
        {
            Some(version) => {
                segments.remove(0);
                version
            }
            None => NEWEST,
        };
        if version < OLDEST {
            return Err(ApiError::new(
                ErrorKind::InvalidArgument,
                format!(
                    "client version {version} is too old. Minimum supported API version is \
                     {OLDEST}, please upgrade your client to a newer version"
                ),
            ));
        }
        if version > NEWEST {
            return Err(ApiError::new(
                ErrorKind::InvalidArgument,
                format!(
                    "client version {version} is too new. Maximum supported API version is {NEWEST}"
                ),
            ));
        }
        Ok(Self {
            engine,
            caller,
            method: http.method().clone(),
            segments,
            version,
            query: parse_query(http.uri().query().unwrap_or("")),
            headers: http.headers().clone(),
            http,
        })
    }

    /// A query parameter; the last value if it is repeated.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.query
            .get(name)
            .and_then(|values| values.last())
            .map(String::as_str)
    }

    /// All values of a query parameter.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        self.query.get(name).map_or(&[], Vec::as_slice)
    }

    /// A boolean parameter, by Docker's rule: everything but nothing, `0`, `no`, `false` and
    /// `none` is true.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// A boolean parameter with a default for when it is missing.
    #[must_use]
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self
            .text(name)
            .map(|value| value.trim().to_ascii_lowercase())
        {
            None => default,
            Some(value) => !matches!(value.as_str(), "" | "0" | "no" | "false" | "none"),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If it is no number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            None | Some("") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| {
                ApiError::new(
                    ErrorKind::InvalidArgument,
                    format!("invalid value {value:?} for parameter {name}: expected a number"),
                )
            }),
        }
    }

    /// The body as JSON; an empty one is `None`.
    ///
    /// # Errors
    /// If it is too long or not the JSON expected.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ApiError> {
        let body = self.http.body_mut();
        let bytes = Limited::new(body, MAX_JSON_BYTES)
            .collect()
            .await
            .map_err(|error| {
                ApiError::new(
                    ErrorKind::InvalidArgument,
                    format!("cannot read the body: {error}"),
                )
            })?
            .to_bytes();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        check_json_type(&self.headers)?;
        // Lists would be taken for objects, field by field.
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first != Some(&b'{') && !bytes.trim_ascii().eq(b"null") {
            return Err(ApiError::invalid("invalid JSON: expected an object"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            ApiError::new(ErrorKind::InvalidArgument, format!("invalid JSON: {error}"))
        })
    }

    /// The body for blocking code.
    #[must_use]
    pub fn into_reader(self) -> BodyReader {
        BodyReader::new(self.http.into_body())
    }

    /// Runs blocking engine code on a thread for that.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Engine>, &Caller) -> gamut_engine::Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        blocking(&self.engine, &self.caller, work).await
    }
}

/// What says that it is something else is not read as JSON: a form, for instance, which any page
/// can make a browser send.
fn check_json_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() {
        return Err(ApiError::invalid(format!(
            "malformed Content-Type header ({given}): mime: no media type"
        )));
    }
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        )));
    }
    Ok(())
}

/// Runs blocking engine code on a thread for that.
///
/// # Errors
/// What the engine says.
pub async fn blocking<T: Send + 'static>(
    engine: &Arc<Engine>,
    caller: &Caller,
    work: impl FnOnce(&Arc<Engine>, &Caller) -> gamut_engine::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let (engine, caller) = (Arc::clone(engine), caller.clone());
    match tokio::task::spawn_blocking(move || work(&engine, &caller)).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(ApiError::new(
            ErrorKind::Internal,
            format!("the request failed: {error}"),
        )),
    }
}

/// Decodes `%XX` (and, in queries, `+`). What is no escape stays as it is; what is not UTF-8 is
/// replaced.
#[must_use]
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high * 16 + low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            (b'+', _) if plus_is_space => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}

/// Parses a query string.
#[must_use]
pub fn parse_query(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        map.entry(percent_decode(name, true))
            .or_default()
            .push(percent_decode(value, true));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries_and_versions() {
        let query = parse_query("a=1&b=%7B%22x%22%3A+1%7D&a=2&c&=&%zz=%");
        assert_eq!(query["a"], ["1", "2"]);
        assert_eq!(query["b"], ["{\"x\": 1}"]);
        assert_eq!(query["c"], [""]);
        assert_eq!(query["%zz"], ["%"]);
        assert_eq!(ApiVersion::from_segment("v1.41"), Some(ApiVersion(1, 41)));
        assert_eq!(ApiVersion::from_segment("volumes"), None);
        assert!(ApiVersion(1, 9) < ApiVersion(1, 24));
    }

    proptest! {
        #[test]
        fn any_query(text in "\\PC*") {
            let _ = parse_query(&text);
            let _ = ApiVersion::from_segment(&text);
        }
    }
}

//! Challenges and their answers.

use std::collections::{BTreeMap, BTreeSet};

use super::address::Url;
use crate::error::{Error, Result};

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from elsewhere.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Parses a header, preferring Bearer where both are offered.
    pub(super) fn parse(headers: &[String]) -> Option<Self> {
        let parsed: Vec<Self> = headers.iter().filter_map(|header| one(header)).collect();
        parsed
            .iter()
            .find(|challenge| matches!(challenge, Self::Bearer { .. }))
            .or_else(|| parsed.first())
            .cloned()
    }
}

fn one(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer {
        realm: realm?,
        service,
        scope,
    })
}

/// `a="b,c",d=e` (RFC 9110, 11.2).
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let mut value = String::new();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut letters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((index, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = index + 1;
                        break;
                    }
                    '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                    letter => value.push(letter),
                }
            }
            rest = quoted.get(end..).unwrap_or_default();
        } else {
            let (plain, after) = after.split_once(',').unwrap_or((after, ""));
            value.push_str(plain.trim());
            rest = after;
        }
        found.push((name, value));
    }
    found
}

/// The URL of a token request; one `scope` each.
pub(super) fn token_url(
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
    account: Option<&str>,
) -> Url {
    let mut url = realm.clone();
    let scopes = scopes.iter().map(|scope| ("scope", Some(scope.as_str())));
    for (name, value) in [("service", service)]
        .into_iter()
        .chain(scopes)
        .chain([("account", account)])
    {
        if let Some(value) = value {
            url = url.with_query(name, value);
        }
    }
    url
}

/// What a token is asked for: `repository:NAME:ACTION,…`, one entry per resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Adds scopes, several separated by spaces, as a challenge has them.
    pub(super) fn add(&mut self, text: &str) {
        for scope in text.split_ascii_whitespace() {
            let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
            self.0
                .entry(resource.to_owned())
                .or_default()
                .extend(actions.split(',').map(str::to_owned));
        }
    }

    /// One text per resource.
    pub(super) fn texts(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
            .collect()
    }
}

/// The value of an `Authorization: Basic` header.
pub(super) fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        base64(format!("{username}:{password}").as_bytes())
    )
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for position in 0..4 {
            if position > group.len() {
                text.push('=');
            } else {
                let index = (bits >> (18 - 6 * position)) & 63;
                let letter = usize::try_from(index)
                    .ok()
                    .and_then(|index| ALPHABET.get(index));
                text.extend(letter.copied().map(char::from));
            }
        }
    }
    text
}

/// What a token server answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Goes with requests.
    pub(super) access: String,
    /// Fetches further ones, instead of a password.
    pub(super) refresh: Option<String>,
}

/// Takes the tokens out of a token server's answer.
pub(super) fn tokens_of(body: &[u8], realm: &str) -> Result<Tokens> {
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| Error::malformed(format!("token server {realm}"), error.to_string()))?;
    let field = |name: &str| {
        let text = value.get(name)?.as_str()?;
        let is_sound = !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        is_sound.then(|| text.to_owned())
    };
    Ok(Tokens {
        access: field("token")
            .or_else(|| field("access_token"))
            .ok_or_else(|| {
                Error::malformed(format!("token server {realm}"), "its answer has no token")
            })?,
        refresh: field("refresh_token"),
    })
}

/// Feeds bytes to the parsers of what registries and token servers say about authentication.
pub fn fuzz_challenge(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let headers: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) = Challenge::parse(&headers)
        {
            let mut scopes = Scopes::default();
            scopes.add(scope.as_deref().unwrap_or_default());
            if let Ok(realm) = Url::parse(&realm) {
                let url = token_url(&realm, service.as_deref(), &scopes.texts(), None);
                assert!(realm.is_same_origin(&url));
                assert!(Url::parse(&url.to_string()).is_ok());
            }
        }
    }
    let _ = tokens_of(data, "fuzz");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg, istry",scope="repository:a/b:pull""#;
        assert_eq!(
            Challenge::parse(&["Basic realm=\"x\"".to_owned(), header.to_owned()]),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".to_owned(),
                service: Some("reg, istry".to_owned()),
                scope: Some("repository:a/b:pull".to_owned()),
            })
        );
        assert_eq!(
            Challenge::parse(&["Basic".to_owned()]),
            Some(Challenge::Basic)
        );
        for bad in ["", "Bearer", "Bearer service=\"x\"", "Negotiate"] {
            assert_eq!(Challenge::parse(&[bad.to_owned()]), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text in "\\PC*") {
            fuzz_challenge(text.as_bytes());
        }
    }

    #[test]
    fn answers_are_encoded() {
        assert_eq!(
            basic("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b"a"), "YQ==");
        let realm = Url::parse("https://a/t?x=1").unwrap();
        let mut scopes = Scopes::default();
        scopes.add("repository:a/b:pull");
        assert_eq!(
            token_url(&realm, Some("s"), &scopes.texts(), None).to_string(),
            "https://a/t?x=1&service=s&scope=repository%3Aa%2Fb%3Apull"
        );
        scopes.add("repository:a/b:push,pull repository:c:pull");
        assert_eq!(
            scopes.texts(),
            ["repository:a/b:pull,push", "repository:c:pull"]
        );
        let tokens = tokens_of(br#"{"access_token":"t","refresh_token":"r"}"#, "r").unwrap();
        assert_eq!(
            (tokens.access.as_str(), tokens.refresh.as_deref()),
            ("t", Some("r"))
        );
        assert!(tokens_of(br#"{"token":"a\r\nb"}"#, "r").is_err());
    }
}

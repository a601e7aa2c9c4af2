//! Challenges and their answers.

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

/// The URL of a token request.
pub(super) fn token_url(
    realm: &str,
    service: Option<&str>,
    scope: &str,
    account: Option<&str>,
) -> String {
    let mut url = realm.to_owned();
    let pairs = [
        ("service", service),
        ("scope", Some(scope)),
        ("account", account),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(name);
            url.push('=');
            url.push_str(&escape(value));
        }
    }
    url
}

/// Percent-encodes all but unreserved characters (RFC 3986).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.push_str(&gamut_spec::id::hex(&[byte]).to_ascii_uppercase());
        }
    }
    escaped
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

/// Takes the token out of a token server's answer.
pub(super) fn token_of(body: &[u8], realm: &str) -> Result<String> {
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| Error::malformed(format!("token server {realm}"), error.to_string()))?;
    ["token", "access_token"]
        .iter()
        .filter_map(|name| value.get(name)?.as_str())
        .find(|token| !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic()))
        .map(str::to_owned)
        .ok_or_else(|| Error::malformed(format!("token server {realm}"), "its answer has no token"))
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

    #[test]
    fn answers_are_encoded() {
        assert_eq!(
            basic("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(base64(b"abc"), "YWJj");
        assert_eq!(base64(b"a"), "YQ==");
        assert_eq!(
            token_url("https://a/t?x=1", Some("s"), "repository:a/b:pull", None),
            "https://a/t?x=1&service=s&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(token_of(br#"{"access_token":"t"}"#, "r").unwrap(), "t");
        assert!(token_of(br#"{"token":"a\r\nb"}"#, "r").is_err());
    }
}

//! Where requests go, without I/O.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// Whether `host[:port]` names this machine: `localhost`, 127.0.0.0/8, `[::1]`.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
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

/// The host that serves a registry's API.
pub(super) fn api_host(registry: &str) -> &str {
    match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// A URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    /// `http` or `https`.
    pub(super) scheme: String,
    /// `host[:port]`.
    pub(super) authority: String,
    /// From the first `/` on, query included.
    pub(super) path: String,
}

impl Url {
    /// Takes an absolute URL apart.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bad = |reason: &str| Error::malformed(format!("address {text:?}"), reason.to_owned());
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("not an absolute URL"))?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(bad("only http and https are spoken"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains('@') {
            return Err(bad("a plain host is needed"));
        }
        if text.bytes().any(|c| c.is_ascii_control() || c == b' ') {
            return Err(bad("it has spaces or control characters"));
        }
        let path = path.split('#').next().unwrap_or_default();
        Ok(Self {
            scheme,
            authority: authority.to_ascii_lowercase(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }

    /// Where a `Location` header leads.
    pub(super) fn join(&self, location: &str) -> Result<Self> {
        if location.contains("://") {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme));
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let base = self.path.split('?').next().unwrap_or_default();
            let dir = base.rsplit_once('/').map_or("", |(dir, _)| dir);
            format!("{dir}/{location}")
        };
        Self::parse(&format!("{}://{}{path}", self.scheme, self.authority))
    }

    /// Whether it leads to the same server, spoken to in the same way.
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.authority == other.authority
    }

    /// The same server, another path.
    pub(super) fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// With a further parameter in its query.
    pub(super) fn with_query(&self, name: &str, value: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.at(&format!("{}{separator}{name}={}", self.path, escape(value)))
    }

    /// Refuses what is not encrypted, unless `may_be_plain` says that it need not be.
    pub(super) fn check_security(&self, may_be_plain: bool) -> Result<()> {
        if self.scheme == "https" || may_be_plain {
            return Ok(());
        }
        Err(Error::Unsupported {
            object: format!("address {self}"),
            reason: "plain http is spoken to loopback addresses and to registries that \
                     registries.json names insecure only; use https"
                .to_owned(),
        })
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_lookalikes() {
        for yes in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in [
            "localhost.example.com",
            "127.0.0.1.nip.io:80",
            "10.0.0.1",
            "[::2]",
            "",
        ] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn locations_are_joined() {
        let base = Url::parse("https://R.example:5000/v2/a/blobs/x?y=z").unwrap();
        let joined = |location| base.join(location).unwrap().to_string();
        assert_eq!(joined("https://cdn.example/b?c"), "https://cdn.example/b?c");
        assert_eq!(joined("//cdn.example/b"), "https://cdn.example/b");
        assert_eq!(joined("/b"), "https://r.example:5000/b");
        assert_eq!(joined("w"), "https://r.example:5000/v2/a/blobs/w");
        for bad in ["ftp://x/", "https://u:p@x/", "https:///x", "https://a b/"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_grow() {
        let url = Url::parse("https://r.example/u?a=b").unwrap();
        let longer = url.with_query("digest", "sha256:0").to_string();
        assert_eq!(longer, "https://r.example/u?a=b&digest=sha256%3A0");
        assert_eq!(url.at("/c").with_query("d", "e f").path, "/c?d=e%20f");
    }
}

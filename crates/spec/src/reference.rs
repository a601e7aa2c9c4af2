//! References to images, in Docker's normalized form.
//!
//! Source: the grammar of `distribution/reference`: `[domain/]path[:tag][@digest]`, where a first
//! component without `.`, `:` and upper-case letters that is not `localhost` is no domain, and
//! single-component paths on `docker.io` live below `library/`.

use core::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// What is wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format: {0:?}")]
    Format(String),
    /// Repository names have no upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// The name is too long.
    #[error("invalid reference format: repository name must not be more than 255 characters")]
    TooLong,
}

/// A parsed, normalized reference. Has a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Parses `alpine`, `alpine:3`, `localhost:5000/a/b@sha256:…`. Without tag and digest, the
    /// tag is `latest`.
    ///
    /// # Errors
    /// [`ReferenceError`] in Docker's words.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Format(text.to_owned());
        let (name_and_tag, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        let last_component = name_and_tag.rfind('/').map_or(0, |slash| slash + 1);
        let colon = name_and_tag
            .get(last_component..)
            .and_then(|last| last.find(':'));
        let (name, tag) = match colon {
            Some(colon) => {
                let (name, tag) = name_and_tag
                    .split_at_checked(last_component + colon)
                    .ok_or_else(bad)?;
                let tag = tag.strip_prefix(':').unwrap_or(tag);
                if !is_tag(tag) {
                    return Err(bad());
                }
                (name, Some(tag.to_owned()))
            }
            None => (name_and_tag, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry_component(first) => (first, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        if !is_registry(registry) {
            return Err(bad());
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if path.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(name.to_owned()));
        }
        if path.is_empty() || !repository.split('/').all(is_path_component) {
            return Err(bad());
        }
        if registry.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong);
        }
        if digest.is_none() && is_hex_id(name) && tag.is_none() {
            // Docker refuses to name a repository like an id.
            return Err(bad());
        }
        let tag = if tag.is_none() && digest.is_none() {
            Some(DEFAULT_TAG.to_owned())
        } else {
            tag
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// Whether `text`, a reference as somebody wrote it, has neither a tag nor a digest.
    #[must_use]
    pub fn is_bare(text: &str) -> bool {
        let last = text.rsplit('/').next().unwrap_or(text);
        !last.contains([':', '@'])
    }

    /// Host and port of the registry, `docker.io` by default.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry, as `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if any.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, as `sha256:…`, if any.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository the way people write them: without `docker.io/library/`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix("library/") {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference the way people write it, tag and digest included.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    /// The same repository by digest instead of tag.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest.to_owned()),
        }
    }

    /// The same repository by another tag.
    ///
    /// # Errors
    /// If it is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        let mut text = format!("{}/{}", self.registry, self.repository);
        text.push(':');
        text.push_str(tag);
        Self::parse(&text)
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}/{}", self.registry, self.repository);
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl core::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Whether `text` is `sha256:` and 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex_id)
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= MAX_TAG_BYTES
        && bytes.first().is_some_and(|c| word(*c))
        && bytes.iter().all(|c| word(*c) || matches!(c, b'.' | b'-'))
}

fn is_registry_component(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|c| c.is_ascii_uppercase())
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            if !address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':') || address.is_empty() {
                return false;
            }
            ("v6", port.strip_prefix(':'))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit())) {
        return false;
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|c| alphanumeric(*c)) {
        return false;
    }
    if !bytes.last().is_some_and(|c| alphanumeric(*c)) {
        return false;
    }
    bytes
        .split(|c| alphanumeric(*c))
        .all(|separator| match separator {
            [] | [b'.'] | [b'_'] | [b'_', b'_'] => true,
            other => other.iter().all(|c| *c == b'-'),
        })
}

/// Entry for fuzzing: parsing any text neither panics nor yields something that does not parse
/// to itself.
pub fn fuzz_reference(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    if let Ok(reference) = Reference::parse(text) {
        debug_assert_eq!(
            Reference::parse(&reference.to_string()).as_ref(),
            Ok(&reference)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalizes_as_docker_does() {
        let by_digest = format!("localhost:5000/x@{DIGEST}");
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            ("foo/bar", "docker.io/foo/bar:latest", "foo/bar:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x:1",
                "localhost:5000/x:1",
                "localhost:5000/x:1",
            ),
            (
                "ghcr.io/a/b__c",
                "ghcr.io/a/b__c:latest",
                "ghcr.io/a/b__c:latest",
            ),
            (
                "index.docker.io/library/a1",
                "docker.io/library/a1:latest",
                "a1:latest",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            (&by_digest, &by_digest, &by_digest),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn refuses_what_docker_refuses() {
        for bad in [
            "",
            ":",
            "a:",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:12",
            "a:b:c",
            "a:-x",
            "host:port/x",
            "../x",
            "a/../b",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(
            Reference::parse("foo/Bar"),
            Err(ReferenceError::UpperCase(_))
        ));
    }

    proptest! {
        #[test]
        fn what_parses_parses_to_itself(text in "[a-zA-Z0-9._/:@-]{0,60}") {
            fuzz_reference(text.as_bytes());
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            fuzz_reference(text.as_bytes());
        }
    }
}

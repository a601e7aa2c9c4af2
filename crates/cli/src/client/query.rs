//! Paths and query strings of requests.

use std::fmt::Write as _;

/// Builds a query string, escaped.
#[derive(Debug, Default, Clone)]
pub struct Query(String);

impl Query {
    /// An empty query.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `name=value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        escape_into(&mut self.0, value);
        self
    }

    /// Appends `name=1` if `value`.
    #[must_use]
    pub fn flag(self, name: &str, value: bool) -> Self {
        if value { self.with(name, "1") } else { self }
    }

    /// Appends `name=value` if there is a value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The query, with its `?` unless it is empty.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One path segment (or a reference with its slashes), escaped.
#[must_use]
pub fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    escape_into(&mut escaped, text);
    escaped
}

/// RFC 3986: unreserved characters stay; so do `/` and `:`, which image names carry in paths.
fn escape_into(target: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                target.push(char::from(byte));
            }
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(target, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let query = Query::new()
            .with("a", "x y&z")
            .flag("b", true)
            .flag("c", false)
            .maybe("d", Some("{\"k\":1}"));
        assert_eq!(query.as_str(), "?a=x%20y%26z&b=1&d=%7B%22k%22:1%7D");
        assert_eq!(Query::new().as_str(), "");
        assert_eq!(segment("a/b:1?#"), "a/b:1%3F%23");
    }
}

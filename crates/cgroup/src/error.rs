//! What can go wrong with a control group.

use std::fmt;
use std::io;

/// An operation on a control group that did not work: what, on which path, with which value, and
/// the system's reason.
#[derive(Debug)]
pub struct Error {
    operation: &'static str,
    path: String,
    value: Option<String>,
    hint: &'static str,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn system(
        operation: &'static str,
        path: impl Into<String>,
        source: io::Error,
    ) -> Self {
        Self {
            operation,
            path: path.into(),
            value: None,
            hint: "",
            source: Some(source),
        }
    }

    pub(crate) fn invalid(
        operation: &'static str,
        path: impl Into<String>,
        hint: &'static str,
    ) -> Self {
        Self {
            operation,
            path: path.into(),
            value: None,
            hint,
            source: None,
        }
    }

    pub(crate) fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    /// The kernel's error number behind it, 0 if the request itself was invalid.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.source
            .as_ref()
            .and_then(io::Error::raw_os_error)
            .unwrap_or(0)
    }

    /// The file or group it was about.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value that was refused, if there was one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot ")?;
        f.write_str(self.operation)?;
        f.write_str(" ")?;
        f.write_str(&self.path)?;
        if let Some(value) = &self.value {
            f.write_str(" (value \"")?;
            f.write_str(value.trim_end())?;
            f.write_str("\")")?;
        }
        if let Some(source) = &self.source {
            f.write_str(": ")?;
            fmt::Display::fmt(source, f)?;
        }
        if !self.hint.is_empty() {
            f.write_str(": ")?;
            f.write_str(self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

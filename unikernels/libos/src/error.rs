//! The error of an application and of the library OS.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// An error in words: what was done, to which object, and why it failed.
///
/// Every error of this crate becomes one by `?`.
pub struct Error {
    message: Cow<'static, str>,
}

impl Error {
    /// An error with a message.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// The same error, with the operation that it ended in front.
    #[must_use]
    pub fn context(self, operation: &str) -> Self {
        Self {
            message: Cow::Owned(alloc::format!("{operation}: {}", self.message)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<&'static str> for Error {
    fn from(message: &'static str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Lets `?` turn an error type of this crate into an [`Error`].
macro_rules! becomes_error {
    ($($kind:ty),+ $(,)?) => {
        $(
            impl core::error::Error for $kind {}

            impl From<$kind> for $crate::Error {
                fn from(error: $kind) -> Self {
                    Self::new(alloc::string::ToString::to_string(&error))
                }
            }
        )+
    };
}
#[allow(
    unused_imports,
    reason = "no feature with an error type of its own may be named"
)]
pub(crate) use becomes_error;

//! The sorts of failure that every crate tells apart, and every front door translates.

/// What sort of failure an error is. Front doors map it to HTTP statuses or exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object named does not exist.
    NotFound,
    /// The object's state, or another object, stands in the way.
    Conflict,
    /// The request itself makes no sense.
    InvalidArgument,
    /// The object is already as asked (HTTP 304).
    NotModified,
    /// This build, level or machine cannot do it.
    Unsupported,
    /// The caller may not do it.
    Forbidden,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Something needed is not there now; trying again may help.
    Unavailable,
    /// The time allowed has run out.
    Timeout,
    /// The caller has given up.
    Cancelled,
    /// Anything else: a fault of the system or of Gamut.
    Internal,
}

/// Renders an error with all its sources, outermost first, as one line.
#[must_use]
pub fn chain(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

//! Writing to standard output and error without surprises.

use std::io::{self, IsTerminal as _, Write as _};

use super::visible::visible;
use crate::error::Error;

/// Writes text to standard output; a terminal is shown control characters as text.
///
/// # Errors
/// [`Error::OutputClosed`] if nobody reads it any more.
pub fn out(text: &str) -> Result<(), Error> {
    if io::stdout().is_terminal() {
        return out_bytes(visible(text).as_bytes());
    }
    out_bytes(text.as_bytes())
}

/// Writes bytes to standard output, as they are.
///
/// # Errors
/// [`Error::OutputClosed`] if nobody reads it any more.
pub fn out_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(closed)
}

/// Writes one line to standard output.
///
/// # Errors
/// [`Error::OutputClosed`] if nobody reads it any more.
pub fn line(text: &str) -> Result<(), Error> {
    out(&format!("{text}\n"))
}

/// Writes one line to standard error, control characters as text; what cannot be told cannot be
/// told.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible(text));
}

/// Writes an error, in red on a terminal (unless `NO_COLOR` is set; see no-color.org).
pub fn error(text: &str) {
    let has_colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if has_colour {
        let _ = writeln!(io::stderr().lock(), "\u{1b}[31m{}\u{1b}[0m", visible(text));
    } else {
        note(text);
    }
}

/// Maps a failed write to standard output.
#[must_use]
pub fn closed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::OutputClosed;
    }
    Error::Io {
        operation: "write to standard output".into(),
        source: error,
    }
}

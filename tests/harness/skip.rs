//! Saying aloud what a machine lacks.

use std::io::Write;

use crate::on_path;

/// Says that a test, or a part of it, is not run. It goes to the real standard error, so that it
/// is seen (and can be counted) though the test passes.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // One write, so that parallel tests do not mix their lines.
    let line = format!("SKIPPED: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether a program is installed; says so if not.
#[must_use]
pub fn has(program: &str) -> bool {
    let found = on_path(program).is_some();
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

//! Messages to whoever called: on stderr, and in the file that `--log` names.

use crate::sys::clock::now_ns;
use std::fs::OpenOptions;
use std::io::Write;

/// Reports what went wrong.
pub(super) fn error(log: Option<&(String, bool)>, message: &str) {
    report(log, "error", message);
}

/// Reports what had to be given up.
pub(super) fn warning(log: Option<&(String, bool)>, message: &str) {
    report(log, "warning", message);
}

fn report(log: Option<&(String, bool)>, level: &str, message: &str) {
    // Nobody is there to hear of a failure to report. The container's stderr is the caller's, so
    // a warning goes there only if there is no better place.
    if level == "error" || log.is_none() {
        let prefix = if level == "error" { "" } else { "warning: " };
        let line = ["gamut-runtime: ", prefix, message, "\n"].concat();
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    let Some((path, json)) = log else { return };
    let line = if *json {
        json_line(level, message, now_ns() / 1_000_000_000)
    } else {
        [level, ": ", message, "\n"].concat()
    };
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = file.write_all(line.as_bytes());
    }
}

/// One line as callers of OCI runtimes read it. The time is a number here, which they ignore.
fn json_line(level: &str, message: &str, seconds: u64) -> String {
    let mut line = String::with_capacity(message.len() + 64);
    line.push_str("{\"level\":\"");
    line.push_str(level);
    line.push_str("\",\"msg\":\"");
    for character in message.chars() {
        match character {
            '"' | '\\' => {
                line.push('\\');
                line.push(character);
            }
            // Control characters have no short form worth the trouble in an error message.
            control if control < ' ' => line.push(' '),
            other => line.push(other),
        }
    }
    line.push_str("\",\"unix\":");
    line.push_str(&seconds.to_string());
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::json_line;

    #[test]
    fn json_is_escaped() {
        assert_eq!(
            json_line("error", "a \"b\" \\ c\nd", 7),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\" \\\\ c d\",\"unix\":7}\n"
        );
    }
}

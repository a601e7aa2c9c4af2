//! Messages to whoever called: on stderr, and in the file that `--log` names.

use crate::log::rfc3339;
use crate::sys::clock::now_ns;
use gamut_abi::oci::OciCallers;
use std::fs::OpenOptions;
use std::io::Write;

/// Reports what went wrong.
pub(super) fn error(callers: &OciCallers, message: &str) {
    report(callers, "error", message);
}

/// Reports what went wrong in a message that says who speaks by itself.
pub(super) fn bare_error(callers: &OciCallers, message: &str) {
    let _ = std::io::stderr().write_all([message, "\n"].concat().as_bytes());
    append(callers, "error", message);
}

/// Reports what had to be given up.
pub(super) fn warning(callers: &OciCallers, message: &str) {
    report(callers, "warning", message);
}

/// Reports a step that has been taken, if that is asked for.
pub(super) fn debug(callers: &OciCallers, message: impl FnOnce() -> String) {
    if !callers.debug {
        return;
    }
    let message = message();
    if callers.log.is_some() {
        append(callers, "debug", &message);
    } else {
        let line = text_line("debug", &message, &rfc3339(now_ns()));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn report(callers: &OciCallers, level: &str, message: &str) {
    // Nobody is there to hear of a failure to report. The container's stderr is the caller's, so
    // a warning goes there only if there is no better place.
    if level == "error" || callers.log.is_none() {
        let line = ["gamut-runtime: ", level, ": ", message, "\n"].concat();
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    append(callers, level, message);
}

/// Appends a line to the log, if there is one.
fn append(callers: &OciCallers, level: &str, message: &str) {
    let Some((path, json)) = &callers.log else {
        return;
    };
    let time = rfc3339(now_ns());
    let line = if *json {
        json_line(level, message, &time)
    } else {
        text_line(level, message, &time)
    };
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = file.write_all(line.as_bytes());
    }
}

/// One line as callers of OCI runtimes read it.
fn json_line(level: &str, message: &str, time: &str) -> String {
    let message = escaped(message);
    [
        "{\"level\":\"",
        level,
        "\",\"msg\":\"",
        &message,
        "\",\"time\":\"",
        time,
        "\"}\n",
    ]
    .concat()
}

fn text_line(level: &str, message: &str, time: &str) -> String {
    let message = escaped(message);
    [
        "time=\"",
        time,
        "\" level=",
        level,
        " msg=\"",
        &message,
        "\"\n",
    ]
    .concat()
}

fn escaped(message: &str) -> String {
    let mut text = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        match character {
            '"' | '\\' => {
                text.push('\\');
                text.push(character);
            }
            // Control characters have no short form worth the trouble in an error message.
            control if control < ' ' => text.push(' '),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_escaped() {
        let (message, time) = ("a \"b\" \\ c\nd", "2026-11-21T00:00:00Z");
        assert_eq!(
            json_line("error", message, time),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\" \\\\ c d\",\"time\":\"2026-11-21T00:00:00Z\"}\n"
        );
        assert_eq!(
            text_line("error", message, time),
            "time=\"2026-11-21T00:00:00Z\" level=error msg=\"a \\\"b\\\" \\\\ c d\"\n"
        );
    }
}

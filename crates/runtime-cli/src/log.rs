//! The caller's log: where errors, warnings and, with `--debug`, single steps are told.

use crate::arguments::Log;
use std::fs::OpenOptions;
use std::io::Write;

/// Writes to the file that `--log` names, else to stderr.
pub struct Logger<'a>(&'a Log);

impl<'a> Logger<'a> {
    /// For the log that the command line names.
    pub fn new(log: &'a Log) -> Self {
        Self(log)
    }

    /// Tells what went wrong.
    pub fn error(&self, message: &str) {
        self.write("error", message);
    }

    /// Tells what had to be given up.
    pub fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    /// Tells what is being done, if that is asked for.
    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.0.debug {
            self.write("debug", &message());
        }
    }

    /// The log as the supervisor's program takes it.
    pub fn log(&self) -> &Log {
        self.0
    }

    fn write(&self, level: &str, message: &str) {
        let time = gamut_spec::time::rfc3339(gamut_spec::time::now_ns());
        let line = if self.0.json {
            serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={message:?}")
        };
        // Nobody is there to hear that the log cannot be written.
        let _ = match &self.0.file {
            // What is being done is for whoever looks for it, the rest for people.
            None if level == "debug" => writeln!(std::io::stderr(), "{line}"),
            None => writeln!(std::io::stderr(), "gamut-runtime: {level}: {message}"),
            Some(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())),
        };
    }
}

//! The command line, as other OCI runtimes have it: `[GLOBAL OPTIONS] VERB [OPTIONS] ID`.
//!
//! Written by hand: the command is started four times per container, and each millisecond counts.
//! Options are those of runc; one dash is as good as two, as callers of runc are used to.

mod help;
mod reader;
#[cfg(test)]
mod tests;
mod values;
mod verbs;
mod words;

pub use help::help;
pub use verbs::{
    Callers, Events, Exec, Kill, Launch, List, Processes, Specification, Update, Verb,
};

use crate::error::Error;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use words::{Word, Words, flag};

/// Name by which the program calls itself if it does not know better.
const NAME: &str = "gamut-runtime";

/// A whole command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Name by which the program was called, without directories.
    pub name: String,
    /// Options that every verb has.
    pub global: Global,
    /// What to do.
    pub verb: Verb,
}

/// Options that every verb has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Directory of the states.
    pub root: PathBuf,
    /// It was given, and is not the default.
    pub root_is_given: bool,
    /// Systemd makes the control groups that the configuration names no path for.
    pub systemd_cgroup: bool,
    /// Where errors are told besides on stderr.
    pub log: Log,
}

/// Where errors are told besides on stderr.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Name by which the program was called.
    pub program: String,
    /// A file to append to.
    pub file: Option<PathBuf>,
    /// In JSON, not as text.
    pub json: bool,
    /// Also tell what is being done.
    pub debug: bool,
}

impl Arguments {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// What is wrong with it, and the log that was named by then.
    pub fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Self, Box<(Error, Log)>> {
        let name = words
            .next()
            .and_then(|name| Path::new(&name).file_name()?.to_str().map(str::to_owned))
            .unwrap_or_else(|| NAME.to_owned());
        let mut words = Words::new(words);
        let mut global = Global {
            root: PathBuf::new(),
            root_is_given: false,
            systemd_cgroup: false,
            log: Log {
                program: name.clone(),
                ..Log::default()
            },
        };
        match Self::verb(&mut words, &mut global) {
            Ok(verb) => Ok(Self { name, global, verb }),
            Err(error) => Err(Box::new((error, global.log))),
        }
    }

    fn verb(words: &mut Words, global: &mut Global) -> Result<Verb, Error> {
        loop {
            match words.next()? {
                // As runc has it: without a verb, its help.
                None => return Ok(Verb::Help(String::new())),
                Some(Word::Option(name, value)) => match name.as_str() {
                    "--root" => {
                        // An empty one is none.
                        let text = words.text(&name, value)?;
                        global.root_is_given = !text.is_empty();
                        global.root = PathBuf::from(text);
                    }
                    "--log" => global.log.file = Some(words.path(&name, value)?),
                    "--log-format" => {
                        global.log.json =
                            words.choice(&name, value, &[("text", false), ("json", true)])?;
                    }
                    "--debug" => global.log.debug = flag(&name, value.as_deref())?,
                    // They choose between what is the same here: what cannot be done rootless is
                    // warned about, and there is no checkpoint.
                    "--rootless" => {
                        let values = [("auto", ()), ("true", ()), ("false", ())];
                        words.choice(&name, value, &values)?;
                    }
                    "--criu" | "--log-level" => drop(words.text(&name, value)?),
                    "--systemd-cgroup" => {
                        global.systemd_cgroup = flag(&name, value.as_deref())?;
                    }
                    "-h" | "--help" => return Ok(Verb::Help(String::new())),
                    "-v" | "--version" => return Ok(Verb::Version),
                    _ => return Err(words::unknown(&name)),
                },
                Some(Word::Plain(verb)) => {
                    if global.root.as_os_str().is_empty() {
                        global.root = default_root();
                    }
                    return reader::verb(words, &verb);
                }
            }
        }
    }
}

/// Below the user's runtime directory if there is one and the user is not the host's root
/// (XDG Base Directory Specification).
fn default_root() -> PathBuf {
    // SAFETY: cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !is_root && directory.as_bytes().starts_with(b"/") => {
            Path::new(&directory).join(NAME)
        }
        _ => Path::new("/run").join(NAME),
    }
}

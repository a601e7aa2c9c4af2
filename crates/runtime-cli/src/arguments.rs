//! The command line, as other OCI runtimes have it: `[GLOBAL OPTIONS] VERB [OPTIONS] ID`.
//!
//! Written by hand: the command is started four times per container, and each millisecond counts.

use crate::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;

/// Text of `--help`.
pub const HELP: &str = "\
Usage: gamut-runtime [GLOBAL OPTIONS] VERB [OPTIONS] ID

Verbs:
  create [-b DIR] [--pid-file FILE] [--console-socket SOCKET] ID
                        make a container from a bundle, waiting for its start
  start ID              start it
  run [-b DIR] [--pid-file FILE] [--console-socket SOCKET] ID
                        make it, run it in the foreground, remove it
  state ID              show it as JSON
  kill [-a] ID [SIGNAL] send a signal (default SIGTERM), with -a to all its processes
  delete [-f] ID        remove it when it has stopped; -f kills it first
  list [-q] [-f table|json]
                        list the containers

Global options:
  --root DIR            directory of the states (default /run/gamut-runtime; of an
                        ordinary user $XDG_RUNTIME_DIR/gamut-runtime)
  --log FILE            append errors to a file, too
  --log-format FORMAT   text (default) or json
  -h, --help            this text
  -v, --version         the version
";

/// A whole command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Directory of the states.
    pub root: PathBuf,
    /// File for errors, in JSON if true.
    pub log: Option<(PathBuf, bool)>,
    /// What to do.
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make a container.
    Create(Launch),
    /// Make, run and remove it.
    Run(Launch),
    /// Start a created one.
    Start {
        /// Which.
        id: String,
    },
    /// Show it.
    State {
        /// Which.
        id: String,
    },
    /// Send a signal.
    Kill {
        /// To which.
        id: String,
        /// Its number.
        signal: i32,
        /// To every process.
        all: bool,
    },
    /// Remove it.
    Delete {
        /// Which.
        id: String,
        /// Even if it runs.
        force: bool,
    },
    /// List all.
    List {
        /// Ids only.
        quiet: bool,
        /// As JSON.
        json: bool,
    },
    /// Show the version.
    Version,
    /// Show the help.
    Help,
}

/// Options of `create` and `run`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The new container.
    pub id: String,
    /// Its bundle; the working directory if not given.
    pub bundle: Option<PathBuf>,
    /// File for its process id.
    pub pid_file: Option<PathBuf>,
    /// Socket for its terminal.
    pub console_socket: Option<PathBuf>,
}

/// Verbs of runc and crun that are still to come.
const OTHER_VERBS: [&str; 10] = [
    "exec",
    "ps",
    "pause",
    "resume",
    "update",
    "events",
    "spec",
    "features",
    "checkpoint",
    "restore",
];

/// Where states are kept: an ordinary user's in his own directory.
fn default_root() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // SAFETY: geteuid(2) only returns a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    match runtime.filter(|path| path.is_absolute()) {
        Some(path) if !is_root => path.join("gamut-runtime"),
        _ => PathBuf::from("/run/gamut-runtime"),
    }
}

impl Arguments {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// [`Error::Usage`] and [`Error::Unsupported`].
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, Error> {
        let mut words = Words {
            words: words.collect::<Vec<_>>().into_iter(),
        };
        let mut root = default_root();
        let mut log = None;
        let mut json = false;
        let verb = loop {
            let Some(word) = words.next()? else {
                return Err(Error::Usage("no verb is given".to_owned()));
            };
            match word {
                Word::Option(name, value) => match name.as_str() {
                    "--root" => root = words.path(&name, value)?,
                    "--log" => log = Some(words.path(&name, value)?),
                    "--log-format" => {
                        json = match words.text(&name, value)?.as_str() {
                            "json" => true,
                            "text" => false,
                            other => {
                                return Err(Error::Usage(format!(
                                    "--log-format {other:?} is neither text nor json"
                                )));
                            }
                        }
                    }
                    // They change how much is said, and there is little to say.
                    "--debug" => {}
                    "--log-level" => drop(words.text(&name, value)?),
                    "-h" | "--help" => break Verb::Help,
                    "-v" | "--version" => break Verb::Version,
                    "--systemd-cgroup" | "--rootless" | "--criu" => {
                        return Err(Error::Unsupported(format!("option {name}")));
                    }
                    _ => return Err(unknown(&name)),
                },
                Word::Plain(verb) => break words.verb(&verb)?,
            }
        };
        Ok(Self {
            root,
            log: log.map(|path| (path, json)),
            verb,
        })
    }
}

fn unknown(option: &str) -> Error {
    Error::Usage(format!("unknown option {option}"))
}

enum Word {
    /// With the value behind `=`, if there is one.
    Option(String, Option<String>),
    Plain(String),
}

struct Words {
    words: std::vec::IntoIter<OsString>,
}

impl Words {
    fn next(&mut self) -> Result<Option<Word>, Error> {
        let Some(word) = self.words.next() else {
            return Ok(None);
        };
        let word = into_text(word)?;
        if word == "-" || !word.starts_with('-') {
            return Ok(Some(Word::Plain(word)));
        }
        Ok(Some(match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                Word::Option(name.to_owned(), Some(value.to_owned()))
            }
            _ => Word::Option(word, None),
        }))
    }

    fn text(&mut self, option: &str, value: Option<String>) -> Result<String, Error> {
        match (value, self.words.as_slice().is_empty()) {
            (Some(value), _) => Ok(value),
            (None, false) => into_text(self.words.next().unwrap_or_default()),
            (None, true) => Err(Error::Usage(format!("option {option} needs a value"))),
        }
    }

    fn path(&mut self, option: &str, value: Option<String>) -> Result<PathBuf, Error> {
        let text = self.text(option, value)?;
        if text.is_empty() {
            return Err(Error::Usage(format!("option {option} needs a path")));
        }
        Ok(PathBuf::from(text))
    }

    fn verb(&mut self, verb: &str) -> Result<Verb, Error> {
        match verb {
            "create" => Ok(Verb::Create(self.launch()?)),
            "run" => Ok(Verb::Run(self.launch()?)),
            "start" => Ok(Verb::Start {
                id: self.only_id()?,
            }),
            "state" => Ok(Verb::State {
                id: self.only_id()?,
            }),
            "kill" => self.kill(),
            "delete" => self.delete(),
            "list" => self.list(),
            "help" => Ok(Verb::Help),
            other if OTHER_VERBS.contains(&other) => {
                Err(Error::Unsupported(format!("verb {other}")))
            }
            other => Err(Error::Usage(format!("unknown verb {other:?}"))),
        }
    }

    fn launch(&mut self) -> Result<Launch, Error> {
        let mut launch = Launch::default();
        let mut ids = Vec::new();
        while let Some(word) = self.next()? {
            match word {
                Word::Option(name, value) => match name.as_str() {
                    "-b" | "--bundle" => launch.bundle = Some(self.path(&name, value)?),
                    "--pid-file" => launch.pid_file = Some(self.path(&name, value)?),
                    "--console-socket" => launch.console_socket = Some(self.path(&name, value)?),
                    // The root is never changed by MS_MOVE, and the keyring is always new.
                    "--no-pivot" | "--no-new-keyring" | "--preserve-fds" | "-d" | "--detach"
                    | "--keep" | "--no-subreaper" => {
                        return Err(Error::Unsupported(format!("option {name}")));
                    }
                    _ => return Err(unknown(&name)),
                },
                Word::Plain(id) => ids.push(id),
            }
        }
        launch.id = one_id(ids)?;
        Ok(launch)
    }

    fn only_id(&mut self) -> Result<String, Error> {
        let mut ids = Vec::new();
        while let Some(word) = self.next()? {
            match word {
                Word::Option(name, _) => return Err(unknown(&name)),
                Word::Plain(id) => ids.push(id),
            }
        }
        one_id(ids)
    }

    fn kill(&mut self) -> Result<Verb, Error> {
        let (mut all, mut plain) = (false, Vec::new());
        while let Some(word) = self.next()? {
            match word {
                Word::Option(name, None) if name == "-a" || name == "--all" => all = true,
                Word::Option(name, _) => return Err(unknown(&name)),
                Word::Plain(text) => plain.push(text),
            }
        }
        let signal = if plain.len() == 2 { plain.pop() } else { None };
        let signal = match signal {
            None => libc::SIGTERM,
            Some(text) => gamut_spec::signal::parse(&text)
                .ok_or_else(|| Error::Usage(format!("{text:?} is no signal")))?,
        };
        Ok(Verb::Kill {
            id: one_id(plain)?,
            signal,
            all,
        })
    }

    fn delete(&mut self) -> Result<Verb, Error> {
        let (mut force, mut ids) = (false, Vec::new());
        while let Some(word) = self.next()? {
            match word {
                Word::Option(name, None) if name == "-f" || name == "--force" => force = true,
                Word::Option(name, _) => return Err(unknown(&name)),
                Word::Plain(id) => ids.push(id),
            }
        }
        Ok(Verb::Delete {
            id: one_id(ids)?,
            force,
        })
    }

    fn list(&mut self) -> Result<Verb, Error> {
        let (mut quiet, mut json) = (false, false);
        while let Some(word) = self.next()? {
            match word {
                Word::Option(name, None) if name == "-q" || name == "--quiet" => quiet = true,
                Word::Option(name, value) if name == "-f" || name == "--format" => {
                    json = match self.text(&name, value)?.as_str() {
                        "json" => true,
                        "table" => false,
                        other => {
                            return Err(Error::Usage(format!(
                                "--format {other:?} is neither table nor json"
                            )));
                        }
                    }
                }
                Word::Option(name, _) => return Err(unknown(&name)),
                Word::Plain(text) => {
                    return Err(Error::Usage(format!("list takes no argument {text:?}")));
                }
            }
        }
        Ok(Verb::List { quiet, json })
    }
}

fn into_text(word: OsString) -> Result<String, Error> {
    word.into_string()
        .map_err(|word| Error::Usage(format!("argument {} is not UTF-8", word.display())))
}

fn one_id(mut ids: Vec<String>) -> Result<String, Error> {
    match (ids.pop(), ids.len()) {
        (Some(id), 0) => check_id(id),
        _ => Err(Error::Usage(
            "exactly one container id is needed".to_owned(),
        )),
    }
}

/// An id is a name of a directory and of a control group.
fn check_id(id: String) -> Result<String, Error> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty()
        || id.len() > 255
        || !id.bytes().all(fine)
        || id.starts_with('.')
        || id.starts_with("cgroup.")
    {
        return Err(Error::Usage(format!(
            "{id:?} is no container id: use 1 to 255 letters, digits and _ + - . (not first)"
        )));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_create_as_engines_call_it() {
        let arguments =
            parse("--root /r --log=/l --log-format json create --bundle /b --pid-file /p c-1.x_2")
                .unwrap();
        assert_eq!(
            arguments,
            Arguments {
                root: PathBuf::from("/r"),
                log: Some((PathBuf::from("/l"), true)),
                verb: Verb::Create(Launch {
                    id: "c-1.x_2".to_owned(),
                    bundle: Some(PathBuf::from("/b")),
                    pid_file: Some(PathBuf::from("/p")),
                    console_socket: None,
                }),
            }
        );
    }

    #[test]
    fn kill_takes_names_and_numbers() {
        for (line, expected) in [("kill c", 15), ("kill c 9", 9), ("kill c KILL", 9)] {
            match parse(line).unwrap().verb {
                Verb::Kill { signal, .. } => assert_eq!(signal, expected, "{line}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(parse("kill c NOSUCH").unwrap_err().contains("no signal"));
    }

    #[test]
    fn ids_that_are_no_names_are_refused() {
        for id in ["..", ".", "a/b", "", "cgroup.procs", "a b", "é"] {
            let words = ["state", id].map(OsString::from);
            assert!(Arguments::parse(words.into_iter()).is_err(), "{id:?}");
        }
    }

    #[test]
    fn what_is_still_to_come_says_so() {
        for line in ["exec c true", "--systemd-cgroup run c", "run -d c"] {
            let error = parse(line).unwrap_err();
            assert!(error.contains("not supported yet"), "{line}: {error}");
        }
        for line in ["frobnicate c", "run --nonsense c", "run", "run a b", ""] {
            let error = parse(line).unwrap_err();
            assert!(error.contains("--help"), "{line}: {error}");
        }
    }
}

//! The verbs and their options.

use super::words::{Word, Words, flag, unknown};
use crate::error::Error;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make a container.
    Create(Launch),
    /// Make, run and remove it.
    Run(Launch),
    /// Start a created one.
    Start(String),
    /// Show it.
    State(String),
    /// Send a signal.
    Kill(Kill),
    /// Remove it; even if it runs, if the second is true.
    Delete(String, bool),
    /// Run a further process in it.
    Exec(Box<Exec>),
    /// List all.
    List(List),
    /// List its processes.
    Processes(Processes),
    /// Freeze its processes.
    Pause(String),
    /// Let them run again.
    Resume(String),
    /// Change its limits.
    Update(Box<Update>),
    /// Show what it uses.
    Events(Events),
    /// Write a configuration to begin with.
    Specification(Specification),
    /// Show what this program can do.
    Features,
    /// Show the version.
    Version,
    /// Show the help of a verb, or of all.
    Help(String),
}

/// Verbs of runc that answer "not supported yet".
const PLANNED_VERBS: [&str; 2] = ["checkpoint", "restore"];

/// Options of `create` and `run`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The new container.
    pub id: String,
    /// Its bundle; the working directory if not given.
    pub bundle: Option<PathBuf>,
    /// How callers are told.
    pub callers: Callers,
    /// Descriptors beside the standard streams that the program gets.
    pub preserve_fds: u32,
    /// Come back once the program runs.
    pub detach: bool,
    /// Leave the container when it has ended.
    pub keep: bool,
    /// Do not adopt what the container leaves behind.
    pub no_subreaper: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// Where callers are told what they wait for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Socket for the terminal.
    pub console_socket: Option<PathBuf>,
    /// Socket for the pidfd.
    pub pidfd_socket: Option<PathBuf>,
}

impl Callers {
    /// Takes an option; false if it is none of these.
    fn take(
        &mut self,
        words: &mut Words,
        name: &str,
        value: &mut Option<String>,
    ) -> Result<bool, Error> {
        let slot = match name {
            "--pid-file" => &mut self.pid_file,
            "--console-socket" => &mut self.console_socket,
            "--pidfd-socket" => &mut self.pidfd_socket,
            _ => return Ok(false),
        };
        *slot = Some(words.path(name, value.take())?);
        Ok(true)
    }
}

/// Options of `kill`.
#[derive(Debug, PartialEq, Eq)]
pub struct Kill {
    /// The container.
    pub id: String,
    /// The signal's number.
    pub signal: i32,
    /// To every process.
    pub all: bool,
}

/// Options of `exec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// File with a whole `process` object instead.
    pub process: Option<PathBuf>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Further environment.
    pub env: Vec<String>,
    /// Give it a terminal.
    pub terminal: bool,
    /// User and, behind a colon, group.
    pub user: Option<(u32, Option<u32>)>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// Come back once the program runs.
    pub detach: bool,
    /// How callers are told.
    pub callers: Callers,
    /// SELinux label.
    pub process_label: Option<String>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// no_new_privs, if it is to be other than that of the container.
    pub no_new_privileges: Option<bool>,
    /// Further capabilities.
    pub capabilities: Vec<String>,
    /// Descriptors beside the standard streams that the program gets.
    pub preserve_fds: u32,
    /// Control groups below that of the container.
    pub subgroups: Vec<Subgroup>,
    /// Even if it is paused.
    pub ignore_paused: bool,
}

/// A control group below that of the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Subgroup {
    /// Controllers of version 1; none means all.
    pub controllers: Vec<String>,
    /// Its path.
    pub path: String,
}

/// Options of `list`.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Ids only.
    pub quiet: bool,
    /// As JSON.
    pub json: bool,
}

/// Options of `ps`.
#[derive(Debug, PartialEq, Eq)]
pub struct Processes {
    /// The container.
    pub id: String,
    /// Process ids as JSON.
    pub json: bool,
    /// Options for ps(1).
    pub ps_options: Vec<String>,
}

/// Options of `update`: limits in the words of the command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The container.
    pub id: String,
    /// File with limits, `-` for standard input; wins over all others.
    pub resources: Option<PathBuf>,
    /// Single limits, as name without dashes and value.
    pub limits: Vec<(String, String)>,
}

/// Options of `update` that are single limits.
const LIMITS: [&str; 17] = [
    "--blkio-weight",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-burst",
    "--cpu-share",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--cpu-idle",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--kernel-memory",
    "--kernel-memory-tcp",
    "--memory",
    "--memory-reservation",
    "--memory-swap",
    "--pids-limit",
    // Intel RDT is refused when it is used.
    "--l3-cache-schema",
];

/// Options of `events`.
#[derive(Debug, PartialEq, Eq)]
pub struct Events {
    /// The container.
    pub id: String,
    /// Once, then come back.
    pub once: bool,
    /// Time between two, in milliseconds.
    pub interval_ms: u64,
}

/// Options of `spec`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Specification {
    /// Where it is written; the working directory if not given.
    pub bundle: Option<PathBuf>,
    /// For a user who is not root.
    pub rootless: bool,
}

/// Reads a verb's options.
pub(super) fn verb(words: &mut Words, verb: &str) -> Result<Verb, Error> {
    let mut reader = Reader { words, help: false };
    let read = match verb {
        "create" => reader.launch(false).map(Verb::Create),
        "run" => reader.launch(true).map(Verb::Run),
        "start" => reader.only_id().map(Verb::Start),
        "state" => reader.only_id().map(Verb::State),
        "kill" => reader.kill(),
        "delete" => reader.delete(),
        "exec" => reader.exec(),
        "list" => reader.list(),
        "ps" => reader.processes(),
        "pause" => reader.only_id().map(Verb::Pause),
        "resume" => reader.only_id().map(Verb::Resume),
        "update" => reader.update(),
        "events" => reader.events(),
        "spec" => reader.specification(),
        "features" => reader.nothing().map(|()| Verb::Features),
        "help" => {
            let plain = reader.plain(|_, _, _| Ok(false), usize::MAX)?;
            return Ok(Verb::Help(plain.into_iter().next().unwrap_or_default()));
        }
        planned if PLANNED_VERBS.contains(&planned) => {
            // Its options may be whatever they are.
            let rest = reader.words.rest()?;
            reader.help = rest.iter().any(|word| word == "-h" || word == "--help");
            Err(Error::Unsupported(format!("verb {planned}")))
        }
        other => {
            let rest = reader.words.rest()?;
            if rest.iter().any(|word| word == "-h" || word == "--help") {
                return Err(Error::Usage(format!("No help topic for '{other}'")));
            }
            Err(Error::Usage(format!("unknown verb {other:?}")))
        }
    };
    if reader.help {
        return Ok(Verb::Help(verb.to_owned()));
    }
    read
}

struct Reader<'a> {
    words: &'a mut Words,
    /// The help was asked for: whatever else is wrong does not matter.
    help: bool,
}

impl Reader<'_> {
    /// Reads options by `take`, which answers false for one it does not know, and the other
    /// words. From the `stop`-th of those on everything is taken as it is.
    fn plain(
        &mut self,
        mut take: impl FnMut(&mut Words, &str, Option<String>) -> Result<bool, Error>,
        stop: usize,
    ) -> Result<Vec<String>, Error> {
        let mut plain = Vec::new();
        while plain.len() < stop {
            match self.words.next()? {
                None => break,
                Some(Word::Plain(word)) => plain.push(word),
                Some(Word::Option(name, value)) => {
                    if name == "-h" || name == "--help" {
                        self.help = true;
                        return Err(Error::Usage(String::new()));
                    }
                    if !take(self.words, &name, value)? {
                        return Err(unknown(&name));
                    }
                }
            }
        }
        plain.extend(self.words.rest()?);
        Ok(plain)
    }

    fn launch(&mut self, is_run: bool) -> Result<Launch, Error> {
        let mut launch = Launch::default();
        let ids = self.plain(
            |words, name, mut value| {
                if launch.callers.take(words, name, &mut value)? {
                    return Ok(true);
                }
                match name {
                    "-b" | "--bundle" => launch.bundle = Some(words.path(name, value)?),
                    "--preserve-fds" => launch.preserve_fds = words.number(name, value)?,
                    "-d" | "--detach" if is_run => launch.detach = flag(name, value.as_deref())?,
                    "--keep" if is_run => launch.keep = flag(name, value.as_deref())?,
                    "--no-subreaper" if is_run => {
                        launch.no_subreaper = flag(name, value.as_deref())?;
                    }
                    "--no-new-keyring" => launch.no_new_keyring = flag(name, value.as_deref())?,
                    // Where pivot_root(2) cannot be used, it is done without by itself.
                    "--no-pivot" => drop(flag(name, value.as_deref())?),
                    _ => return Ok(false),
                }
                Ok(true)
            },
            usize::MAX,
        )?;
        launch.id = one_id(ids)?;
        Ok(launch)
    }

    fn only_id(&mut self) -> Result<String, Error> {
        one_id(self.plain(|_, _, _| Ok(false), usize::MAX)?)
    }

    fn nothing(&mut self) -> Result<(), Error> {
        no_more(&self.plain(|_, _, _| Ok(false), usize::MAX)?)
    }

    fn kill(&mut self) -> Result<Verb, Error> {
        let mut all = false;
        let mut plain = self.plain(
            |_, name, value| match name {
                "-a" | "--all" => {
                    all = flag(name, value.as_deref())?;
                    Ok(true)
                }
                _ => Ok(false),
            },
            usize::MAX,
        )?;
        let signal = if plain.len() == 2 { plain.pop() } else { None };
        let signal = match signal.as_deref() {
            None | Some("") => libc::SIGTERM,
            Some(text) => match (text.parse(), gamut_spec::signal::parse(text)) {
                // 0 only asks whether it is there.
                (Ok(0), _) => 0,
                (_, Some(signal)) => signal,
                (_, None) => return Err(Error::Usage(format!("unknown signal {text:?}"))),
            },
        };
        Ok(Verb::Kill(Kill {
            id: one_id(plain)?,
            signal,
            all,
        }))
    }

    fn delete(&mut self) -> Result<Verb, Error> {
        let mut force = false;
        let ids = self.plain(
            |_, name, value| match name {
                "-f" | "--force" => {
                    force = flag(name, value.as_deref())?;
                    Ok(true)
                }
                _ => Ok(false),
            },
            usize::MAX,
        )?;
        Ok(Verb::Delete(one_id(ids)?, force))
    }

    fn exec(&mut self) -> Result<Verb, Error> {
        let mut exec = Exec::default();
        let plain = self.plain(
            |words, name, mut value| {
                if exec.callers.take(words, name, &mut value)? {
                    return Ok(true);
                }
                match name {
                    "--cwd" => exec.cwd = Some(words.text(name, value)?),
                    "-e" | "--env" => exec.env.push(words.text(name, value)?),
                    "-t" | "--tty" => exec.terminal = flag(name, value.as_deref())?,
                    "-u" | "--user" => exec.user = Some(user(&words.text(name, value)?)?),
                    "-g" | "--additional-gids" => {
                        for gid in words.text(name, value)?.split(',') {
                            exec.additional_gids.push(id_number("gid", gid)?);
                        }
                    }
                    "-p" | "--process" => exec.process = Some(words.path(name, value)?),
                    "-d" | "--detach" => exec.detach = flag(name, value.as_deref())?,
                    "--process-label" => exec.process_label = Some(words.text(name, value)?),
                    "--apparmor" => exec.apparmor = Some(words.text(name, value)?),
                    "--no-new-privs" => {
                        exec.no_new_privileges = Some(flag(name, value.as_deref())?);
                    }
                    "-c" | "--cap" => exec.capabilities.push(words.text(name, value)?),
                    "--preserve-fds" => exec.preserve_fds = words.number(name, value)?,
                    "--cgroup" => exec.subgroups.push(subgroup(&words.text(name, value)?)?),
                    "--ignore-paused" => exec.ignore_paused = flag(name, value.as_deref())?,
                    "--no-subreaper" => drop(flag(name, value.as_deref())?),
                    _ => return Ok(false),
                }
                Ok(true)
            },
            1,
        )?;
        check_subgroups(&exec.subgroups)?;
        let mut plain = plain.into_iter();
        exec.id = one_id(plain.next().into_iter().collect())?;
        exec.args = plain.collect();
        // Callers put it in front of the command, behind the id.
        if exec.args.first().is_some_and(|word| word == "--") {
            exec.args.remove(0);
        }
        if exec.args.is_empty() && exec.process.is_none() {
            return Err(Error::Usage("exec args cannot be empty".to_owned()));
        }
        Ok(Verb::Exec(Box::new(exec)))
    }

    fn list(&mut self) -> Result<Verb, Error> {
        let mut list = List {
            quiet: false,
            json: false,
        };
        let plain = self.plain(
            |words, name, value| {
                match name {
                    "-q" | "--quiet" => list.quiet = flag(name, value.as_deref())?,
                    "-f" | "--format" => list.json = format(words, name, value)?,
                    _ => return Ok(false),
                }
                Ok(true)
            },
            usize::MAX,
        )?;
        no_more(&plain)?;
        Ok(Verb::List(list))
    }

    fn processes(&mut self) -> Result<Verb, Error> {
        let mut json = false;
        let plain = self.plain(
            |words, name, value| match name {
                "-f" | "--format" => {
                    json = format(words, name, value)?;
                    Ok(true)
                }
                _ => Ok(false),
            },
            1,
        )?;
        let mut plain = plain.into_iter();
        let id = one_id(plain.next().into_iter().collect())?;
        let mut ps_options: Vec<String> = plain.collect();
        if ps_options.first().is_some_and(|word| word == "--") {
            ps_options.remove(0);
        }
        Ok(Verb::Processes(Processes {
            id,
            json,
            ps_options,
        }))
    }

    fn update(&mut self) -> Result<Verb, Error> {
        let mut update = Update::default();
        let ids = self.plain(
            |words, name, value| {
                match name {
                    "-r" | "--resources" => update.resources = Some(words.path(name, value)?),
                    "--mem-bw-schema" => {
                        return Err(Error::Unsupported(format!("option {name} (Intel RDT)")));
                    }
                    limit if LIMITS.contains(&limit) => {
                        let name = limit.trim_start_matches('-').to_owned();
                        update.limits.push((name, words.text(limit, value)?));
                    }
                    _ => return Ok(false),
                }
                Ok(true)
            },
            usize::MAX,
        )?;
        update.id = one_id(ids)?;
        Ok(Verb::Update(Box::new(update)))
    }

    fn events(&mut self) -> Result<Verb, Error> {
        let (mut once, mut interval_ms) = (false, 5_000);
        let ids = self.plain(
            |words, name, value| {
                match name {
                    "--stats" => once = flag(name, value.as_deref())?,
                    "--interval" => interval_ms = duration_ms(&words.text(name, value)?)?,
                    _ => return Ok(false),
                }
                Ok(true)
            },
            usize::MAX,
        )?;
        Ok(Verb::Events(Events {
            id: one_id(ids)?,
            once,
            interval_ms,
        }))
    }

    fn specification(&mut self) -> Result<Verb, Error> {
        let mut specification = Specification::default();
        let plain = self.plain(
            |words, name, value| {
                match name {
                    "-b" | "--bundle" => specification.bundle = Some(words.path(name, value)?),
                    "--rootless" => specification.rootless = flag(name, value.as_deref())?,
                    _ => return Ok(false),
                }
                Ok(true)
            },
            usize::MAX,
        )?;
        no_more(&plain)?;
        Ok(Verb::Specification(specification))
    }
}

fn format(words: &mut Words, name: &str, value: Option<String>) -> Result<bool, Error> {
    words
        .choice(name, value, &[("table", false), ("json", true)])
        .map_err(|error| Error::Usage(format!("invalid format option: {error}")))
}

fn no_more(plain: &[String]) -> Result<(), Error> {
    match plain.first() {
        None => Ok(()),
        Some(word) => Err(Error::Usage(format!("unexpected argument {word:?}"))),
    }
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
            "invalid container id {id:?}: it needs 1 to 255 letters, digits and _ + - . (not first)"
        )));
    }
    Ok(id)
}

fn id_number(what: &str, text: &str) -> Result<u32, Error> {
    text.parse()
        .map_err(|_| Error::Usage(format!("bad {what}: {text:?} is no number")))
}

fn user(text: &str) -> Result<(u32, Option<u32>), Error> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((id_number("uid", uid)?, Some(id_number("gid", gid)?))),
        None => Ok((id_number("uid", text)?, None)),
    }
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`
fn subgroup(text: &str) -> Result<Subgroup, Error> {
    let (controllers, path) = match text.split_once(':') {
        Some((controllers, path)) => (
            controllers.split(',').map(str::to_owned).collect(),
            path.to_owned(),
        ),
        None => (Vec::new(), text.to_owned()),
    };
    if controllers.iter().any(String::is_empty) {
        return Err(Error::Usage(format!(
            "invalid --cgroup argument: {text} (empty <controller> prefix)"
        )));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(Error::Usage(format!("bad sub cgroup path: {path}")));
    }
    Ok(Subgroup { controllers, path })
}

fn check_subgroups(subgroups: &[Subgroup]) -> Result<(), Error> {
    let mut seen: Vec<&str> = Vec::new();
    for subgroup in subgroups {
        if subgroup.controllers.is_empty() && subgroups.len() > 1 {
            return Err(Error::Usage(format!(
                "invalid --cgroup argument: {} (missing <controller>: prefix)",
                subgroup.path
            )));
        }
        for controller in &subgroup.controllers {
            if seen.contains(&controller.as_str()) {
                return Err(Error::Usage(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
            seen.push(controller);
        }
    }
    Ok(())
}

/// A time as Go has it: `1.5s`, `100ms`, `1m30s`.
fn duration_ms(text: &str) -> Result<u64, Error> {
    let wrong = || {
        Error::Usage(format!(
            "invalid value for --interval: {text:?} is no time above 0 such as 5s or 500ms"
        ))
    };
    let mut rest = text;
    let mut total_us: u64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .ok_or_else(wrong)?;
        let (number, unit_and_rest) = rest.split_at(digits);
        let unit_end = unit_and_rest
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(unit_and_rest.len());
        let (unit, next) = unit_and_rest.split_at(unit_end);
        let unit_us: u64 = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        total_us = total_us
            .checked_add(whole.checked_mul(unit_us).ok_or_else(wrong)?)
            .ok_or_else(wrong)?;
        let mut place = unit_us;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return Err(wrong());
            }
            place /= 10;
            total_us = total_us.saturating_add(u64::from(digit - b'0') * place);
        }
        rest = next;
    }
    match total_us.div_ceil(1_000) {
        0 => Err(wrong()),
        interval_ms => Ok(interval_ms),
    }
}

//! From words to verbs: the options of each.

use super::values::{
    check_subgroups, duration_ms, format, id_number, no_more, one_id, subgroup, user,
};
use super::verbs::{Events, Exec, Kill, Launch, List, Processes, Specification, Update, Verb};
use super::words::{Word, Words, flag, unknown};
use crate::error::Error;

/// Verbs of runc that answer "not supported yet".
const PLANNED_VERBS: [&str; 2] = ["checkpoint", "restore"];

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

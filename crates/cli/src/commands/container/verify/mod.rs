//! `run --verify N`: the same workload several times in changed surroundings, and a comparison of all
//! files that it leaves.
//!
//! The first run is an ordinary one. Each of the others begins with what the first began with: a
//! directory of the host that can be written to is copied beforehand.

mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gamut_engine::files::directory_fingerprints;
use hyper::Method;
use serde_json::{Value, json};

use super::config::{self, Description};
use super::flags::ContainerFlags;
use super::run::{RunArguments, create, engine_failure, start};
use super::{path, running};
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::text;
use crate::error::Error;
use crate::output::print;

/// Exit code if runs end in different files.
const DIFFERENT: u8 = 1;
/// Most differences that are told.
const MOST_TOLD: usize = 20;

/// Time zones and languages, one of each for every further run.
const TIME_ZONES: [&str; 3] = ["UTC", "Pacific/Kiritimati", "America/St_Johns"];
const LANGUAGES: [&str; 3] = ["C", "tr_TR.UTF-8", "de_DE.UTF-8"];

/// All that a run has left: path in the container → what it is.
type Files = BTreeMap<String, String>;

/// A directory of the host that the workload can write to.
struct Writable {
    source: PathBuf,
    target: String,
}

/// Runs it `times` times and compares.
///
/// # Errors
/// Flags that cannot go with it; those of `run`. The exit code of the first run, if it is not 0, is
/// answered at once.
pub async fn run(
    mut arguments: RunArguments,
    times: u32,
    client: &Arc<Client>,
) -> Result<u8, Error> {
    let flags = &arguments.container;
    let fitting = !arguments.detach
        && !flags.tty
        && !flags.interactive
        && flags.name.is_none()
        && flags.cidfile.is_none();
    if !fitting || times < 2 {
        return Err(engine_failure(Error::Usage(
            "--verify takes a number from 2 on, and none of --detach, --interactive, --tty, --name and --cidfile"
                .into(),
        )));
    }
    // Each is looked at before it is removed.
    arguments.container.rm = false;
    let description = config::describe(&arguments.container, false).map_err(engine_failure)?;
    let writable = writable(&description.body).map_err(engine_failure)?;
    let copies = beside(&writable)?;
    for turn in 1..times {
        for (number, directory) in writable.iter().enumerate() {
            tree::copy(&directory.source, &copies.at(turn, number))?;
        }
    }

    let id = create(client, &arguments.container, &description, true)
        .await
        .map_err(engine_failure)?;
    let code = arguments.foreground(client, &id, &description).await;
    let left = match &code {
        Ok(0) => Some(look(client, &id, &writable).await),
        _ => None,
    };
    remove(client, &id).await?;
    let code = code?;
    let Some(left) = left else {
        return Ok(code);
    };
    let left = left?;

    let mut different = Files::new();
    for turn in 1..times {
        let mut body = description.body.clone();
        surround(&mut body, turn, &arguments.container);
        let mut places = Vec::with_capacity(writable.len());
        each_writable(&mut body, &mut |_, target| {
            let copy = copies.at(turn, places.len());
            places.push(Writable {
                source: copy.clone(),
                target: target.to_owned(),
            });
            Some(copy)
        });
        let again = Description {
            image: description.image.clone(),
            body,
            attach: description.attach,
        };
        let id = create(client, &arguments.container, &again, true)
            .await
            .map_err(engine_failure)?;
        let looked = tokio::select! {
            looked = run_silently(client, &id, &places) => looked,
            _ = tokio::signal::ctrl_c() => Err(Error::Message("interrupted".into())),
        };
        remove(client, &id).await?;
        let looked = looked?;
        compare(turn, &left, &looked, &mut different);
    }
    report(times, &left, &different)
}

/// Changes what may be different without a difference in what comes out, but nothing that was asked
/// for.
fn surround(body: &mut Value, turn: u32, flags: &ContainerFlags) {
    let pick = |list: [&'static str; 3]| list[usize::try_from(turn).unwrap_or(0) % list.len()];
    if let Some(Value::Array(environment)) = body.get_mut("Env") {
        for (name, value) in [
            ("TZ=", pick(TIME_ZONES)),
            ("LANG=", pick(LANGUAGES)),
            ("LC_ALL=", pick(LANGUAGES)),
        ] {
            let mut given = environment.iter().filter_map(Value::as_str);
            if !given.any(|entry| entry.starts_with(name)) {
                environment.push(json!(format!("{name}{value}")));
            }
        }
    }
    if flags.hostname.is_none() {
        body["Hostname"] = json!(format!("verify-{turn}"));
    }
    if flags.cpuset_cpus.is_none() && turn % 2 == 1 {
        body["HostConfig"]["CpusetCpus"] = json!("0");
    }
}

/// Shows `visit` the source and target of each directory or file of the host that is mounted to be
/// written to, always in the same order, and puts what it answers in the source's place.
fn each_writable(body: &mut Value, visit: &mut dyn FnMut(&str, &str) -> Option<PathBuf>) {
    if let Some(Value::Array(binds)) = body.pointer_mut("/HostConfig/Binds") {
        for bind in binds {
            let text = bind.as_str().unwrap_or_default().to_owned();
            let Some((source, rest)) = text.split_once(':') else {
                continue;
            };
            let (target, options) = rest.split_once(':').unwrap_or((rest, ""));
            let is_read_only = options.split(',').any(|word| word == "ro");
            if source.starts_with('/')
                && !is_read_only
                && let Some(place) = visit(source, target)
            {
                *bind = json!(format!("{}:{rest}", place.display()));
            }
        }
    }
    if let Some(Value::Array(mounts)) = body.pointer_mut("/HostConfig/Mounts") {
        for mount in mounts {
            if mount["Type"] != "bind" || mount["ReadOnly"] == true {
                continue;
            }
            let place = visit(text(mount, "Source"), text(mount, "Target"));
            if let Some(place) = place {
                mount["Source"] = json!(place.display().to_string());
            }
        }
    }
}

/// Directories of the host that are mounted to be written to.
fn writable(body: &Value) -> Result<Vec<Writable>, Error> {
    let mut found = Vec::new();
    each_writable(&mut body.clone(), &mut |source, target| {
        found.push(Writable {
            source: PathBuf::from(source),
            target: target.to_owned(),
        });
        None
    });
    let refused = |source: &Path, reason: &str| {
        Error::Usage(format!(
            "--verify: {} cannot be copied for the further runs: {reason}; mount it read-only, or a directory",
            source.display()
        ))
    };
    for Writable { source, .. } in &found {
        match std::fs::metadata(source) {
            Ok(data) if data.is_dir() => {}
            Ok(_) => return Err(refused(source, "it is no directory")),
            Err(error) => return Err(refused(source, &error.to_string())),
        }
    }
    Ok(found)
}

/// Where the copies are: gone when it goes.
struct Copies(PathBuf);

impl Copies {
    fn at(&self, turn: u32, number: usize) -> PathBuf {
        self.0.join(format!("{turn}-{number}"))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            print::note(&format!(
                "WARNING: {} is left behind: {error}",
                self.0.display()
            ));
        }
    }
}

/// A directory beside the first of them: on the same file system content can be shared.
fn beside(writable: &[Writable]) -> Result<Copies, Error> {
    let parent = writable
        .first()
        .and_then(|one| one.source.parent())
        .map_or_else(std::env::temp_dir, Path::to_owned);
    let place = parent.join(format!(".gamut-verify-{}", std::process::id()));
    if !writable.is_empty() {
        std::fs::create_dir(&place).map_err(Error::io(format!("make {}", place.display())))?;
    }
    Ok(Copies(place))
}

/// Runs a created container to its end without showing its output.
async fn run_silently(client: &Arc<Client>, id: &str, places: &[Writable]) -> Result<Files, Error> {
    let wait = running::wait_for(client, id, "next-exit").await?;
    start(client, id).await.map_err(engine_failure)?;
    let code = running::exit_code(wait).await?;
    let mut found = look(client, id, places).await?;
    if code != 0 {
        found.insert("exit code".into(), code.to_string());
    }
    Ok(found)
}

/// What a container has left, its image's files aside.
async fn look(client: &Arc<Client>, id: &str, places: &[Writable]) -> Result<Files, Error> {
    let path = format!("/gamut/v1/containers/{id}/fingerprints");
    let answer = client
        .call(Call::new(Method::GET, &path, &Query::new()))
        .await?;
    let mut found = Files::new();
    for (path, what) in answer.as_object().into_iter().flatten() {
        found.insert(path.clone(), what.as_str().unwrap_or_default().to_owned());
    }
    for Writable { source, target } in places {
        let read = Error::io(format!("read {}", source.display()));
        found.extend(directory_fingerprints(source, target).map_err(read)?);
    }
    Ok(found)
}

async fn remove(client: &Client, id: &str) -> Result<(), Error> {
    let query = Query::new().flag("force", true).flag("v", true);
    client.delete(&path(id, ""), &query).await.map(drop)
}

/// Adds what differs to `different`: path → how, in the words of the first that did.
fn compare(turn: u32, first: &Files, again: &Files, different: &mut Files) {
    let paths: BTreeSet<&String> = first.keys().chain(again.keys()).collect();
    for path in paths {
        let (one, other) = (first.get(path), again.get(path));
        if one != other {
            let word = |what: Option<&String>| what.map_or("not there", String::as_str).to_owned();
            different
                .entry(path.clone())
                .or_insert_with(|| format!("{}; in run {}: {}", word(one), turn + 1, word(other)));
        }
    }
}

fn report(times: u32, first: &Files, different: &Files) -> Result<u8, Error> {
    if different.is_empty() {
        print::note(&format!(
            "verified: {} files are the same in {times} runs",
            first
                .values()
                .filter(|what| what.starts_with("file "))
                .count()
        ));
        return Ok(0);
    }
    for (path, how) in different.iter().take(MOST_TOLD) {
        print::note(&format!("different: {path}: {how}"));
    }
    if different.len() > MOST_TOLD {
        print::note(&format!("and {} more", different.len() - MOST_TOLD));
    }
    Err(Error::Message(format!(
        "gamut: {} of what {times} runs have left is different",
        different.len()
    ))
    .with_code(DIFFERENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_that_is_written_to_gets_a_copy_of_its_own() {
        let mut body = json!({ "HostConfig": {
            "Binds": ["/a:/out", "/a:/output:rw,z", "/b:/x:ro", "volume:/v"],
            "Mounts": [
                { "Type": "bind", "Source": "/c", "Target": "/c" },
                { "Type": "bind", "Source": "/d", "Target": "/d", "ReadOnly": true },
                { "Type": "volume", "Source": "e", "Target": "/e" },
            ],
        }});
        let mut seen = Vec::new();
        each_writable(&mut body, &mut |source, target| {
            seen.push(format!("{source} {target}"));
            Some(PathBuf::from(format!("/copy/{}", seen.len())))
        });
        assert_eq!(seen, ["/a /out", "/a /output", "/c /c"]);
        let expected = json!([
            "/copy/1:/out",
            "/copy/2:/output:rw,z",
            "/b:/x:ro",
            "volume:/v"
        ]);
        assert_eq!(body["HostConfig"]["Binds"], expected);
        let sources: Vec<&str> = body["HostConfig"]["Mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| text(mount, "Source"))
            .collect();
        assert_eq!(sources, ["/copy/3", "/d", "e"]);
    }

    #[test]
    fn differences_are_told_by_path() {
        let files = |list: &[(&str, &str)]| -> Files {
            list.iter()
                .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
                .collect()
        };
        let first = files(&[("/a", "1"), ("/b", "2"), ("/c", "3")]);
        let mut different = Files::new();
        compare(1, &first, &first, &mut different);
        assert!(different.is_empty());
        compare(
            2,
            &first,
            &files(&[("/a", "1"), ("/b", "x"), ("/d", "4")]),
            &mut different,
        );
        assert_eq!(
            different,
            files(&[
                ("/b", "2; in run 3: x"),
                ("/c", "3; in run 3: not there"),
                ("/d", "not there; in run 3: 4"),
            ])
        );
    }
}

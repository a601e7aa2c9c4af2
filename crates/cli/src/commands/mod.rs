//! The verbs: one type each, its fields are its flags.

pub mod container;
pub mod context;
pub mod daemon;
pub mod image;
pub mod manual;
pub mod network;
pub mod network_change;
pub mod registry;
pub mod system;
pub mod unikernel;
pub mod volume;

use std::future::Future;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use serde_json::Value;

use crate::client::Client;
use crate::error::{self, Error};
use crate::output::template::Template;
use crate::output::{json, print};

/// A command of the tree.
pub trait Verb: clap::Args {
    /// What follows the command's name in its usage line.
    const USAGE: &'static str;

    /// Does it; returns the exit code.
    fn run(self, client: Arc<Client>) -> impl Future<Output = Result<u8, Error>>;
}

/// How many objects are worked on at the same time.
const PARALLEL: usize = 16;

/// Applies a request to each of several objects, some at a time; prints what it returns, in
/// order. Failures do not keep the others from being done.
///
/// # Errors
/// The failure, or all of them.
pub async fn for_each<F, Work>(names: &[String], mut work: F) -> Result<u8, Error>
where
    F: FnMut(String) -> Work,
    Work: Future<Output = Result<Option<String>, Error>> + Send + 'static,
{
    let mut failures = Vec::new();
    for group in names.chunks(PARALLEL) {
        let tasks: Vec<_> = group
            .iter()
            .map(|name| tokio::spawn(work(name.clone())))
            .collect();
        for task in tasks {
            match task.await {
                Ok(Ok(Some(line))) => print::line(&line)?,
                Ok(Ok(None)) => {}
                Ok(Err(failure)) => failures.push(failure),
                Err(broken) => failures.push(Error::Message(broken.to_string())),
            }
        }
    }
    error::all(failures)
}

/// Asks on the terminal before something is destroyed, unless it is forced. `what` is the command.
///
/// # Errors
/// When the answer is no, or the terminal fails.
pub fn confirm(what: &str, warning: &str, force: bool) -> Result<(), Error> {
    if force {
        return Ok(());
    }
    print::out(&format!(
        "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    std::io::stdout().flush().map_err(print::closed)?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(Error::io("read the answer"))?;
    if answer.trim().eq_ignore_ascii_case("y") {
        Ok(())
    } else {
        Err(Error::Message(format!("{what} has been cancelled")))
    }
}

/// Prints objects the way `inspect` does: as indented JSON, by a template, or as JSON lines.
/// `texts` are the objects as the engine wrote them.
///
/// # Errors
/// Bad templates; a closed output.
pub fn print_objects(texts: &[String], format: Option<&str>) -> Result<(), Error> {
    match format {
        None => print::line(&json::indent(&format!("[{}]", texts.join(",")))),
        Some("json") => print::line(&json::compact(&format!("[{}]", texts.join(",")))),
        Some(format) => {
            let template = Template::parse(format)?;
            for text in texts {
                let value: Value = parse(text)?;
                print::line(&template.render_value(&value)?)?;
            }
            Ok(())
        }
    }
}

/// Prints one object by `--format`: JSON on one line, or a template.
///
/// # Errors
/// Bad templates; a closed output.
pub fn print_formatted(text: &str, format: &str) -> Result<(), Error> {
    if matches!(format, "json" | "{{json .}}") {
        return print::line(&json::compact(text));
    }
    let value: Value = parse(text)?;
    print::line(&Template::parse(format)?.render_value(&value)?)
}

fn parse(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| Error::Answer {
        operation: "inspect".into(),
        reason: error.to_string(),
    })
}

/// Inspects objects of one kind, prints those that exist, then fails with those that do not.
///
/// # Errors
/// Connection failures, objects that do not exist, bad templates.
pub async fn inspect<F, Work>(
    names: &[String],
    format: Option<&str>,
    mut get: F,
) -> Result<u8, Error>
where
    F: FnMut(String) -> Work,
    Work: Future<Output = Result<String, Error>>,
{
    let mut texts = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match get(name.clone()).await {
            Ok(text) => texts.push(text.trim().to_owned()),
            Err(error @ Error::Api { .. }) => failures.push(error),
            Err(error) => return Err(error),
        }
    }
    print_objects(&texts, format)?;
    error::all(failures)
}

/// A text field of an answer; empty if it is not there.
#[must_use]
pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A number of an answer; 0 if it is not there.
#[must_use]
pub fn number(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// A list of an answer; empty if it is not there or null.
#[must_use]
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

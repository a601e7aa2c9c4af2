//! Verbs on contexts: named ways to engines, shared with docker.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::client::address::{self, Address, Choice};
use crate::commands::print_objects;
use crate::contexts::{Context, DEFAULT, Store};
use crate::error::{self, Error};
use crate::output::list::{Layout, Row, render};
use crate::output::print;

const LAYOUT: Layout = Layout {
    table: "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Current", "CURRENT"),
    ],
};

/// Flags of `gamut context create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Description of the context
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
    /// The way to the engine: host=ADDRESS, and for tcp:// ca=FILE, cert=FILE, key=FILE
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub docker: Option<String>,
    /// Name of the context
    #[arg(value_name = "CONTEXT")]
    pub name: String,
}

impl CreateArguments {
    /// Makes the context.
    ///
    /// # Errors
    /// Names that are taken or not allowed, addresses that are none, files that cannot be read.
    pub fn run(self) -> Result<u8, Error> {
        let mut host = String::new();
        let mut files: Vec<(&str, PathBuf)> = Vec::new();
        for field in self.docker.as_deref().unwrap_or_default().split(',') {
            let bad = || {
                Error::Usage(format!(
                    "--docker: invalid field {field:?}: use host=, ca=, cert= or key="
                ))
            };
            match field.split_once('=') {
                Some(("host", value)) => value.clone_into(&mut host),
                Some(("ca", value)) => files.push(("ca.pem", value.into())),
                Some(("cert", value)) => files.push(("cert.pem", value.into())),
                Some(("key", value)) => files.push(("key.pem", value.into())),
                Some(("skip-tls-verify", "false")) | None if field.is_empty() => {}
                _ => return Err(bad()),
            }
        }
        if host.is_empty() {
            host = Address::choose(&Choice::default())?.endpoint.to_string();
        }
        let is_tcp = host.starts_with("tcp://");
        if is_tcp && files.len() != 3 {
            return Err(Error::Usage(format!(
                "--docker: {host} needs mutual TLS: give ca=, cert= and key= as well"
            )));
        }
        let placeholder = is_tcp.then(|| address::TlsOptions::default().files(&PathBuf::new()));
        address::endpoint(&host, "--docker", placeholder)?;
        Store::open().create(&self.name, &self.description, &host, &files)?;
        print::line(&self.name)?;
        print::error(&format!("Successfully created context \"{}\"", self.name));
        Ok(0)
    }
}

/// Flags of `gamut context ls`.
#[derive(Debug, Args)]
pub struct LsArguments {
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only show names
    #[arg(short, long)]
    pub quiet: bool,
}

/// The default context, as things stand.
fn default_context() -> Result<Context, Error> {
    let named = ["GAMUT_HOST", "DOCKER_HOST"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let host = match named {
        Some(host) => host,
        None => Address::default_one().endpoint.to_string(),
    };
    Ok(Context {
        name: DEFAULT.to_owned(),
        description: "What --host, GAMUT_HOST and DOCKER_HOST say, else the engine of this machine"
            .to_owned(),
        metadata: json!({
            "Name": DEFAULT, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}},
        }),
        host,
        tls: false,
    })
}

/// The context in force.
fn current(store: &Store) -> String {
    let of_environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if of_environment("GAMUT_HOST")
        .or_else(|| of_environment("DOCKER_HOST"))
        .is_some()
    {
        return DEFAULT.to_owned();
    }
    of_environment("DOCKER_CONTEXT")
        .or_else(|| store.current())
        .unwrap_or_else(|| DEFAULT.to_owned())
}

impl LsArguments {
    /// Lists the contexts.
    ///
    /// # Errors
    /// A store that cannot be read, bad templates.
    pub fn run(self) -> Result<u8, Error> {
        let store = Store::open();
        let current = current(&store);
        let mut all = vec![default_context()?];
        all.extend(store.list()?);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let is_table = self
            .format
            .as_deref()
            .is_none_or(|format| format.starts_with("table"));
        let rows: Vec<Row> = all
            .iter()
            .map(|context| {
                let mark = if is_table && !self.quiet && context.name == current {
                    " *"
                } else {
                    ""
                };
                Row::new()
                    .with("Name", format!("{}{mark}", context.name))
                    .with("Description", context.description.as_str())
                    .with("DockerEndpoint", context.host.as_str())
                    .with("Error", "")
                    .with("Current", (context.name == current).to_string())
            })
            .collect();
        let format = match (&self.format, self.quiet) {
            (None, true) => Some("{{.Name}}"),
            (format, _) => format.as_deref(),
        };
        print::out(&render(format, &LAYOUT, &rows)?)?;
        Ok(0)
    }
}

/// Flags of `gamut context use`.
#[derive(Debug, Args)]
pub struct UseArguments {
    /// Name of the context
    #[arg(value_name = "CONTEXT")]
    pub name: String,
}

impl UseArguments {
    /// Chooses the context for what follows.
    ///
    /// # Errors
    /// If there is none of the name.
    pub fn run(self) -> Result<u8, Error> {
        let store = Store::open();
        store.choose(&self.name)?;
        print::line(&self.name)?;
        let in_force = current(&store);
        if in_force != self.name {
            print::error(&format!(
                "Warning: a variable of the environment overrides the context: \"{in_force}\" is in force"
            ));
        }
        print::error(&format!("Current context is now \"{}\"", self.name));
        Ok(0)
    }
}

/// Flags of `gamut context show`.
#[derive(Debug, Args)]
pub struct ShowArguments {}

impl ShowArguments {
    /// Prints the name of the context in force.
    ///
    /// # Errors
    /// A closed output.
    pub fn run(self) -> Result<u8, Error> {
        print::line(&current(&Store::open()))?;
        Ok(0)
    }
}

/// Flags of `gamut context inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The contexts; the one in force by default
    #[arg(value_name = "CONTEXT")]
    pub names: Vec<String>,
}

impl InspectArguments {
    /// Prints all there is about contexts.
    ///
    /// # Errors
    /// Contexts that do not exist, bad templates.
    pub fn run(self) -> Result<u8, Error> {
        let store = Store::open();
        let names = if self.names.is_empty() {
            vec![current(&store)]
        } else {
            self.names
        };
        let mut texts = Vec::new();
        let mut failures = Vec::new();
        for name in &names {
            let found = if name == DEFAULT {
                default_context()
            } else {
                store.get(name)
            };
            match found {
                Ok(context) => texts.push(describe(&store, &context).to_string()),
                Err(failure) => failures.push(failure),
            }
        }
        print_objects(&texts, self.format.as_deref())?;
        error::all(failures)
    }
}

fn describe(store: &Store, context: &Context) -> Value {
    let mut value = context.metadata.clone();
    let directory = store.tls_directory(&context.name);
    value["TLSMaterial"] = if context.tls {
        json!({"docker": ["ca.pem", "cert.pem", "key.pem"]})
    } else {
        json!({})
    };
    value["Storage"] = json!({"TLSPath": directory.parent()});
    value
}

/// Flags of `gamut context rm`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Force the removal of a context in use
    #[arg(short, long)]
    pub force: bool,
    /// The contexts
    #[arg(value_name = "CONTEXT", required = true)]
    pub names: Vec<String>,
}

impl RemoveArguments {
    /// Removes contexts.
    ///
    /// # Errors
    /// Contexts that do not exist or are in use.
    pub fn run(self) -> Result<u8, Error> {
        let store = Store::open();
        let mut failures = Vec::new();
        for name in &self.names {
            match store.remove(name, self.force) {
                Ok(()) => print::line(name)?,
                Err(failure) => failures.push(failure),
            }
        }
        error::all(failures)
    }
}

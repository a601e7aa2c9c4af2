//! `inspect` of objects of any kind.

use std::sync::Arc;

use clap::Args;

use crate::client::query::segment;
use crate::client::{Client, Query};
use crate::commands::{Verb, container, image, print_objects};
use crate::error::{self, Error};

/// Kinds, in the order in which a name is looked for.
const KINDS: [&str; 4] = ["container", "image", "network", "volume"];

/// Flags of `gamut inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    pub size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "TYPE", value_parser = KINDS)]
    pub kind: Option<String>,
    /// Names or IDs
    #[arg(value_name = "NAME|ID", required = true)]
    pub names: Vec<String>,
}

impl Verb for InspectArguments {
    const USAGE: &'static str = "[OPTIONS] NAME|ID [NAME|ID...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let mut texts = Vec::new();
        let mut failures = Vec::new();
        for name in &self.names {
            match self.find(&client, name).await? {
                Ok(text) => texts.push(text.trim().to_owned()),
                Err(failure) => failures.push(failure),
            }
        }
        print_objects(&texts, self.format.as_deref())?;
        error::all(failures)
    }
}

impl InspectArguments {
    /// The object's JSON, or why there is none; an outer error ends the command.
    async fn find(&self, client: &Client, name: &str) -> Result<Result<String, Error>, Error> {
        let mut last = None;
        for kind in KINDS {
            if self.kind.as_deref().is_some_and(|wanted| wanted != kind) {
                continue;
            }
            let plain = || segment(name).replace('/', "%2F");
            let path = match kind {
                "container" => container::path(name, "json"),
                "image" => image::path(name, "json"),
                "network" => format!("/networks/{}", plain()),
                _ => format!("/volumes/{}", plain()),
            };
            let query = Query::new().flag("size", self.size && kind == "container");
            match client.get_text(&path, &query).await {
                Ok(text) => return Ok(Ok(text)),
                // A name that one kind cannot have may be another's.
                Err(error) if matches!(error.status(), Some(400 | 404)) => last = Some(error),
                Err(error @ Error::Api { .. }) => return Ok(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(Err(match (&self.kind, last) {
            (Some(_), Some(error)) => error,
            _ => Error::Message(format!("Error: No such object: {name}")),
        }))
    }
}

//! `commit` and `export`.

use std::io::IsTerminal as _;
use std::sync::Arc;

use clap::Args;
use gamut_spec::reference::Reference;
use hyper::Method;
use serde_json::Value;

use super::path;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::image::archive::receive;
use crate::commands::{Verb, text};
use crate::error::Error;
use crate::output::print;

/// Flags of `gamut commit`.
#[derive(Debug, Args)]
pub struct CommitArguments {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long, value_name = "TEXT")]
    pub author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Commit message
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pause: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

impl Verb for CommitArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let reference = match &self.reference {
            Some(text) => {
                Some(Reference::parse(text).map_err(|error| Error::Message(error.to_string()))?)
            }
            None => None,
        };
        let name = reference.as_ref().map(Reference::familiar_name);
        let mut query = Query::new()
            .with("container", &self.container)
            .maybe("repo", name.as_deref())
            .maybe("tag", reference.as_ref().and_then(Reference::tag))
            .maybe("author", self.author.as_deref())
            .maybe("comment", self.message.as_deref())
            .with("pause", if self.pause { "1" } else { "0" });
        for change in &self.change {
            query = query.with("changes", change);
        }
        let answer = client.post("/commit", &query, &Value::Null).await?;
        print::line(text(&answer, "Id"))?;
        Ok(0)
    }
}

/// Flags of `gamut export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for ExportArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if self.output.is_none() && std::io::stdout().is_terminal() {
            return Err(Error::Usage(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect".into(),
            ));
        }
        let call = Call::new(Method::GET, &path(&self.container, "export"), &Query::new());
        receive(&client, call, self.output.as_deref()).await
    }
}

//! `tag`, `rmi`, `image inspect`, `image prune`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::reference::Reference;
use serde_json::Value;

use super::path;
use crate::client::{Client, Query};
use crate::commands::{self, Verb, confirm, list, number, text};
use crate::error::{self, Error};
use crate::output::{print, units};
use crate::parse::filter;

/// Flags of `gamut tag`.
#[derive(Debug, Args)]
pub struct TagArguments {
    /// The image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub source: String,
    /// Its additional name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub target: String,
}

impl Verb for TagArguments {
    const USAGE: &'static str = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let target =
            Reference::parse(&self.target).map_err(|error| Error::Message(error.to_string()))?;
        if target.digest().is_some() {
            return Err(Error::Message(
                "refusing to create a tag with a digest reference".into(),
            ));
        }
        let query = Query::new()
            .with("repo", &target.familiar_name())
            .maybe("tag", target.tag());
        client
            .post(&path(&self.source, "tag"), &query, &Value::Null)
            .await?;
        Ok(0)
    }
}

/// Flags of `gamut rmi`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Force removal of the image
    #[arg(short, long)]
    pub force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    pub no_prune: bool,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

impl Verb for RemoveArguments {
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let query = Query::new()
            .flag("force", self.force)
            .flag("noprune", self.no_prune);
        let mut failures = Vec::new();
        // One after another: the layers of one may be those of the next.
        for image in &self.images {
            match client.delete(&path(image, ""), &query).await {
                Ok(answer) => print::out(&deletions(&answer))?,
                Err(error) if self.force && error.status() == Some(404) => {
                    print::note(&error.to_string());
                }
                Err(failure @ Error::Api { .. }) => failures.push(failure),
                Err(error) => return Err(error),
            }
        }
        error::all(failures)
    }
}

/// `Untagged: …` and `Deleted: …` lines.
fn deletions(answer: &Value) -> String {
    let mut lines = String::new();
    for item in answer.as_array().map(Vec::as_slice).unwrap_or_default() {
        for kind in ["Deleted", "Untagged"] {
            let name = text(item, kind);
            if !name.is_empty() {
                lines.push_str(&format!("{}: {name}\n", kind.to_owned()));
            }
        }
    }
    lines
}

/// Flags of `gamut image inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

impl Verb for InspectArguments {
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        commands::inspect(&self.images, self.format.as_deref(), |name| {
            let client = &client;
            async move { client.get_text(&path(&name, "json"), &Query::new()).await }
        })
        .await
    }
}

/// Flags of `gamut image prune`.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    pub all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub force: bool,
}

impl Verb for PruneArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let mut filters = self.filter.clone();
        filters.push(format!("dangling={}", !self.all));
        let filters = filter::parse(&filters)?;
        let warning = if self.all {
            "This will remove all images without at least one container associated to them."
        } else {
            "This will remove all dangling images."
        };
        confirm("image prune", warning, self.force)?;
        let query = Query::new().maybe("filters", filters.as_deref());
        let answer = client.post("/images/prune", &query, &Value::Null).await?;
        let deleted = list(&answer, "ImagesDeleted");
        if !deleted.is_empty() {
            let lines = deletions(&Value::from(deleted)).to_lowercase();
            print::line(&format!("Deleted Images:\n{lines}"))?;
        }
        let freed = number(&answer, "SpaceReclaimed").max(0);
        print::line(&format!(
            "Total reclaimed space: {}",
            units::size_precise(freed)
        ))?;
        Ok(0)
    }
}

//! Verbs on volumes.

use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::query::segment;
use crate::client::{Client, Query};
use crate::commands::container::ps::joined;
use crate::commands::{self, Verb, confirm, for_each, list, number, text};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};
use crate::parse::{environment, files, filter};

/// Fields and headers of volumes.
pub const LAYOUT: Layout = Layout {
    table: "{{.Driver}}\t{{.Name}}",
    headers: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
};

fn path(name: &str) -> String {
    format!("/volumes/{}", segment(name).replace('/', "%2F"))
}

/// Flags of `gamut volume create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Specify volume driver name
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    pub driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// Name of the volume; a random one if there is none
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

impl Verb for CreateArguments {
    const USAGE: &'static str = "[OPTIONS] [VOLUME]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let mut options = Map::new();
        for text in &self.opt {
            let (name, value) = environment::key_value("--opt", text)?;
            options.insert(name, value.into());
        }
        let body = json!({
            "Name": self.name.unwrap_or_default(),
            "Driver": self.driver,
            "DriverOpts": options,
            "Labels": files::labels(&[], &self.label)?,
        });
        let answer = client.post("/volumes/create", &Query::new(), &body).await?;
        print::line(text(&answer, "Name"))?;
        Ok(0)
    }
}

/// Flags of `gamut volume inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The volumes
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

impl Verb for InspectArguments {
    const USAGE: &'static str = "[OPTIONS] VOLUME [VOLUME...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        commands::inspect(&self.volumes, self.format.as_deref(), |name| {
            let client = &client;
            async move { client.get_text(&path(&name), &Query::new()).await }
        })
        .await
    }
}

/// Flags of `gamut volume ls`.
#[derive(Debug, Args)]
pub struct LsArguments {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    pub quiet: bool,
}

impl Verb for LsArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let filters = filter::parse(&self.filter)?;
        let query = Query::new().maybe("filters", filters.as_deref());
        let answer = client.get("/volumes", &query).await?;
        let mut rows: Vec<Row> = list(&answer, "Volumes").iter().map(row).collect();
        rows.sort_by(|a, b| a.text("Name").cmp(b.text("Name")));
        let format = match (&self.format, self.quiet) {
            (None, true) => Some("{{.Name}}"),
            (format, _) => format.as_deref(),
        };
        print::out(&render(format, &LAYOUT, &rows)?)?;
        Ok(0)
    }
}

/// A volume as a template sees it.
#[must_use]
pub fn row(volume: &Value) -> Row {
    let labels = volume
        .get("Labels")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let usage = volume.get("UsageData").filter(|usage| !usage.is_null());
    let (links, size) = match usage {
        Some(usage) => (
            number(usage, "RefCount").to_string(),
            units::size_precise(number(usage, "Size")),
        ),
        None => ("N/A".into(), "N/A".into()),
    };
    Row::new()
        .with("Availability", "N/A")
        .with("Driver", text(volume, "Driver"))
        .with("Group", "N/A")
        .with("Name", text(volume, "Name"))
        .with("Scope", text(volume, "Scope"))
        .with("Status", "N/A")
        .with("Mountpoint", text(volume, "Mountpoint"))
        .with("Labels", joined(&labels))
        .with("Links", links)
        .with("Size", size)
        .with_lookup("Label", labels)
}

/// Flags of `gamut volume rm`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    pub force: bool,
    /// The volumes
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

impl Verb for RemoveArguments {
    const USAGE: &'static str = "[OPTIONS] VOLUME [VOLUME...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let query = Query::new().flag("force", self.force);
        for_each(&self.volumes, |name| {
            let (client, query) = (client.clone(), query.clone());
            async move {
                client.delete(&path(&name), &query).await?;
                Ok(Some(name))
            }
        })
        .await
    }
}

/// Flags of `gamut volume prune`.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    pub all: bool,
    /// Provide filter values (e.g. "label=<label>")
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
        let warning = if self.all {
            filters.push("all=true".into());
            "This will remove all local volumes not used by at least one container."
        } else {
            "This will remove anonymous local volumes not used by at least one container."
        };
        let filters = filter::parse(&filters)?;
        confirm("volume prune", warning, self.force)?;
        let query = Query::new().maybe("filters", filters.as_deref());
        let answer = client.post("/volumes/prune", &query, &Value::Null).await?;
        let deleted: Vec<&str> = list(&answer, "VolumesDeleted")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !deleted.is_empty() {
            print::line(&format!("Deleted Volumes:\n{}\n", deleted.join("\n")))?;
        }
        let freed = number(&answer, "SpaceReclaimed").max(0);
        print::line(&format!(
            "Total reclaimed space: {}",
            units::size_precise(freed)
        ))?;
        Ok(0)
    }
}

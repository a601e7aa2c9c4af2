//! Verbs on networks.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::client::query::segment;
use crate::client::{Client, Query};
use crate::commands::container::ps::joined;
use crate::commands::{self, Verb, text};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};
use crate::parse::filter;

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

/// Flags of `gamut network ls`.
#[derive(Debug, Args)]
pub struct LsArguments {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    pub quiet: bool,
}

impl Verb for LsArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let filters = filter::parse(&self.filter)?;
        let query = Query::new().maybe("filters", filters.as_deref());
        let networks = client.get("/networks", &query).await?;
        let networks = networks.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut rows: Vec<Row> = networks
            .iter()
            .map(|network| row(network, self.no_trunc))
            .collect();
        rows.sort_by(|a, b| a.text("Name").cmp(b.text("Name")));
        let format = match (&self.format, self.quiet) {
            (None, true) => Some("{{.ID}}"),
            (format, _) => format.as_deref(),
        };
        print::out(&render(format, &LAYOUT, &rows)?)?;
        Ok(0)
    }
}

fn row(network: &Value, is_full: bool) -> Row {
    let id = text(network, "Id");
    let switch = |name: &str, default: bool| {
        let value = network.get(name).and_then(Value::as_bool);
        value.unwrap_or(default).to_string()
    };
    let labels = network
        .get("Labels")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    Row::new()
        .with("ID", if is_full { id } else { units::short_id(id) })
        .with("Name", text(network, "Name"))
        .with("Driver", text(network, "Driver"))
        .with("Scope", text(network, "Scope"))
        .with("IPv4", switch("EnableIPv4", true))
        .with("IPv6", switch("EnableIPv6", false))
        .with("Internal", switch("Internal", false))
        .with("CreatedAt", text(network, "Created"))
        .with("Labels", joined(&labels))
        .with_lookup("Label", labels)
}

/// Flags of `gamut network inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The networks
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
}

impl Verb for InspectArguments {
    const USAGE: &'static str = "[OPTIONS] NETWORK [NETWORK...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        commands::inspect(&self.networks, self.format.as_deref(), |name| {
            let client = &client;
            async move {
                let path = format!("/networks/{}", segment(&name).replace('/', "%2F"));
                client.get_text(&path, &Query::new()).await
            }
        })
        .await
    }
}

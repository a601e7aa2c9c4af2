//! `container inspect`.

use std::sync::Arc;

use clap::Args;

use super::path;
use crate::client::{Client, Query};
use crate::commands::{self, Verb};
use crate::error::Error;

/// Flags of `gamut container inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Display total file sizes
    #[arg(short, long)]
    pub size: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for InspectArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let query = Query::new().flag("size", self.size);
        commands::inspect(&self.containers, self.format.as_deref(), |name| {
            let (client, query) = (&client, &query);
            async move { client.get_text(&path(&name, "json"), query).await }
        })
        .await
    }
}

//! `stop`, `restart` and `kill`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::{path, running};
use crate::client::{Client, Query};
use crate::commands::{Verb, for_each};
use crate::error::Error;

/// Flags of `gamut stop`.
#[derive(Debug, Args)]
pub struct StopArguments {
    /// Signal to send to the container
    #[arg(short, long)]
    pub signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS")]
    pub timeout: Option<i64>,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

/// Flags of `gamut restart`.
#[derive(Debug, Args)]
pub struct RestartArguments {
    /// Flags and containers, those of `stop`.
    #[command(flatten)]
    pub stop: StopArguments,
}

/// Flags of `gamut kill`.
#[derive(Debug, Args)]
pub struct KillArguments {
    /// Signal to send to the container
    #[arg(short, long)]
    pub signal: Option<String>,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for StopArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        self.post_each(&client, "stop").await
    }
}

impl Verb for RestartArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        self.stop.post_each(&client, "restart").await
    }
}

impl StopArguments {
    async fn post_each(self, client: &Arc<Client>, what: &'static str) -> Result<u8, Error> {
        running::check_signal(self.signal.as_deref())?;
        let timeout = self.timeout.map(|seconds| seconds.to_string());
        let query = Query::new()
            .maybe("signal", self.signal.as_deref())
            .maybe("t", timeout.as_deref());
        post_each(client, &self.containers, what, query).await
    }
}

impl Verb for KillArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        running::check_signal(self.signal.as_deref())?;
        let query = Query::new().maybe("signal", self.signal.as_deref());
        post_each(&client, &self.containers, "kill", query).await
    }
}

/// POSTs `/containers/NAME/WHAT` for each name, and prints the names that it worked for.
pub(super) async fn post_each(
    client: &Arc<Client>,
    names: &[String],
    what: &'static str,
    query: Query,
) -> Result<u8, Error> {
    for_each(names, |name| {
        let (client, query) = (client.clone(), query.clone());
        async move {
            client
                .post(&path(&name, what), &query, &Value::Null)
                .await?;
            Ok(Some(name))
        }
    })
    .await
}

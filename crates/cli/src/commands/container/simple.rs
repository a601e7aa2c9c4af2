//! Verbs of one request: `pause`, `unpause`, `rm`, `rename`, `wait`, `prune`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::signal::post_each;
use super::{path, running};
use crate::client::{Client, Query};
use crate::commands::{Verb, confirm, for_each, list, number};
use crate::error::Error;
use crate::output::{print, units};
use crate::parse::filter;

/// Flags of `gamut pause`.
#[derive(Debug, Args)]
pub struct PauseArguments {
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for PauseArguments {
    const USAGE: &'static str = "CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        post_each(&client, &self.containers, "pause", Query::new()).await
    }
}

/// Flags of `gamut unpause`.
#[derive(Debug, Args)]
pub struct UnpauseArguments {
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for UnpauseArguments {
    const USAGE: &'static str = "CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        post_each(&client, &self.containers, "unpause", Query::new()).await
    }
}

/// Flags of `gamut rm`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    pub force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    pub volumes: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for RemoveArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let query = Query::new()
            .flag("force", self.force)
            .flag("v", self.volumes);
        let is_forced = self.force;
        for_each(&self.containers, |name| {
            let (client, query) = (client.clone(), query.clone());
            async move {
                match client.delete(&path(&name, ""), &query).await {
                    Ok(_) => Ok(Some(name)),
                    // As with rm(1): -f is content if there is nothing to remove.
                    Err(error) if is_forced && error.status() == Some(404) => {
                        print::note(&error.to_string());
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            }
        })
        .await
    }
}

/// Flags of `gamut rename`.
#[derive(Debug, Args)]
pub struct RenameArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Its new name
    #[arg(value_name = "NEW_NAME")]
    pub new_name: String,
}

impl Verb for RenameArguments {
    const USAGE: &'static str = "CONTAINER NEW_NAME";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if self.new_name.trim().is_empty() {
            return Err(Error::Usage("the new name of a container is empty".into()));
        }
        let query = Query::new().with("name", &self.new_name);
        client
            .post(&path(&self.container, "rename"), &query, &Value::Null)
            .await?;
        Ok(0)
    }
}

/// Flags of `gamut wait`.
#[derive(Debug, Args)]
pub struct WaitArguments {
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for WaitArguments {
    const USAGE: &'static str = "CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        for_each(&self.containers, |name| {
            let client = client.clone();
            async move {
                let wait = running::wait_for(&client, &name, "not-running").await?;
                Ok(Some(running::exit_code(wait).await?.to_string()))
            }
        })
        .await
    }
}

/// Flags of `gamut container prune`.
#[derive(Debug, Args)]
pub struct PruneArguments {
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
        let filters = filter::parse(&self.filter)?;
        confirm(
            "container prune",
            "This will remove all stopped containers.",
            self.force,
        )?;
        let query = Query::new().maybe("filters", filters.as_deref());
        let answer = client
            .post("/containers/prune", &query, &Value::Null)
            .await?;
        let deleted: Vec<&str> = list(&answer, "ContainersDeleted")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !deleted.is_empty() {
            print::line(&format!("Deleted Containers:\n{}\n", deleted.join("\n")))?;
        }
        let freed = number(&answer, "SpaceReclaimed").max(0);
        print::line(&format!(
            "Total reclaimed space: {}",
            units::size_precise(freed)
        ))?;
        Ok(0)
    }
}

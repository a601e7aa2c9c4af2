//! `logs`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::time;
use hyper::Method;
use serde_json::Value;

use super::path;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::Verb;
use crate::error::Error;
use crate::parse::{invalid, timestamp};
use crate::terminal::session::Output;

/// Flags of `gamut logs`.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Show extra details provided to logs
    #[arg(long)]
    pub details: bool,
    /// Follow log output
    #[arg(short, long)]
    pub follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42
    /// minutes)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    pub tail: String,
    /// Show timestamps
    #[arg(short, long)]
    pub timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42
    /// minutes)
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for LogsArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let now_ns = time::now_ns();
        let at = |text: &Option<String>| match text {
            Some(text) => timestamp::parse(text, now_ns).map(Some),
            None => Ok(None),
        };
        let (since, until) = (at(&self.since)?, at(&self.until)?);
        // Docker takes any negative number for all lines.
        if self.tail != "all" && self.tail.parse::<i64>().is_err() {
            return Err(invalid(
                "--tail",
                &self.tail,
                "use a number of lines, or all",
            ));
        }
        let details = client
            .get(&path(&self.container, "json"), &Query::new())
            .await?;
        let is_tty = details
            .pointer("/Config/Tty")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        let id = details.get("Id").and_then(Value::as_str);
        let query = Query::new()
            .with("stdout", "1")
            .with("stderr", "1")
            .with("tail", &self.tail)
            .flag("details", self.details)
            .flag("follow", self.follow)
            .flag("timestamps", self.timestamps)
            .maybe("since", since.as_deref())
            .maybe("until", until.as_deref());
        let logs = path(id.unwrap_or(&self.container), "logs");
        let mut stream = client.stream(Call::new(Method::GET, &logs, &query)).await?;
        let mut output = Output::new(is_tty, true, true);
        while let Some(bytes) = stream.next_bytes().await? {
            output.take(&bytes).await?;
        }
        Ok(0)
    }
}

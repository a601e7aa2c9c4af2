//! `system fsck` and `system dump`.

use std::sync::Arc;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::{Verb, text};
use crate::error::{EXIT_FAILURE, Error};
use crate::output::table::Table;
use crate::output::{json, print};

/// Flags of `gamut system fsck`.
#[derive(Debug, Args)]
pub struct FsckArguments {
    /// Format output: json
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    pub format: Option<String>,
    /// Repair what is found
    #[arg(long)]
    pub repair: bool,
}

impl Verb for FsckArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let query = Query::new().flag("repair", self.repair);
        let found = client
            .call(Call::new(Method::POST, "/gamut/v1/fsck", &query))
            .await?;
        let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_repaired =
            |item: &Value| item.get("repaired").and_then(Value::as_bool) == Some(true);
        if self.format.is_some() {
            print::line(&Value::from(found).to_string())?;
        } else if found.is_empty() {
            print::line("no problems found")?;
        } else {
            let mut table = Table::default();
            table.push_line("OBJECT\tPROBLEM\tREPAIRED");
            for item in found {
                let repaired = if is_repaired(item) { "yes" } else { "no" };
                let problem = text(item, "problem").replace(['\t', '\n'], " ");
                table.push_line(&format!("{}\t{problem}\t{repaired}", text(item, "object")));
            }
            print::out(&table.to_string())?;
        }
        // As with fsck(8): what is left uncorrected shows in the exit code.
        if found.iter().all(is_repaired) {
            Ok(0)
        } else {
            Ok(EXIT_FAILURE)
        }
    }
}

/// Flags of `gamut system dump`.
#[derive(Debug, Args)]
pub struct DumpArguments {}

impl Verb for DumpArguments {
    const USAGE: &'static str = "";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let records = client.get_text("/gamut/v1/dump", &Query::new()).await?;
        print::line(&json::indent(&records))?;
        Ok(0)
    }
}

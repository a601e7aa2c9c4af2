//! `top`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::path;
use crate::client::{Client, Query};
use crate::commands::{Verb, list};
use crate::error::Error;
use crate::output::print;
use crate::output::table::Table;

/// Docker's columns of `top` are at least this wide.
const MINIMUM_WIDTH: usize = 20;

/// Flags of `gamut top`.
#[derive(Debug, Args)]
pub struct TopArguments {
    /// The container, and options of ps(1)
    #[arg(value_names = ["CONTAINER", "PS_OPTION"], required = true, num_args = 1..,
          trailing_var_arg = true)]
    pub container_and_options: Vec<String>,
}

impl Verb for TopArguments {
    const USAGE: &'static str = "CONTAINER [PS_OPTION...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let Some((container, options)) = self.container_and_options.split_first() else {
            return Err(Error::Usage("a container is required".into()));
        };
        let mut query = Query::new();
        if !options.is_empty() {
            query = query.with("ps_args", &options.join(" "));
        }
        let answer = client.get(&path(container, "top"), &query).await?;
        let line = |cells: &[Value]| -> String {
            let cells: Vec<&str> = cells.iter().filter_map(Value::as_str).collect();
            cells.join("\t")
        };
        let mut table = Table::with_minimum_width(MINIMUM_WIDTH);
        table.push_line(&line(list(&answer, "Titles")));
        for process in list(&answer, "Processes") {
            table.push_line(&line(
                process.as_array().map(Vec::as_slice).unwrap_or_default(),
            ));
        }
        print::out(&table.to_string())?;
        Ok(0)
    }
}

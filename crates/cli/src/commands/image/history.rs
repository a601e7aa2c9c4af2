//! `history`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::path;
use crate::client::{Client, Query};
use crate::commands::{Verb, number, text};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
const TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const TABLE_RAW: &str = "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
const CREATED_BY_WIDTH: usize = 45;

/// Flags of `gamut history`.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub human: bool,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for HistoryArguments {
    const USAGE: &'static str = "[OPTIONS] IMAGE";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let history = client
            .get(&path(&self.image, "history"), &Query::new())
            .await?;
        let history = history.as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<Row> = history.iter().map(|step| self.row(step)).collect();
        let layout = Layout {
            table: if self.human { TABLE } else { TABLE_RAW },
            headers: HEADERS,
        };
        let format = match (&self.format, self.quiet) {
            (None, true) => Some("{{.ID}}"),
            (format, _) => format.as_deref(),
        };
        print::out(&render(format, &layout, &rows)?)?;
        Ok(0)
    }
}

impl HistoryArguments {
    fn row(&self, step: &Value) -> Row {
        let (id, created, size) = (
            text(step, "Id"),
            number(step, "Created"),
            number(step, "Size"),
        );
        let by = text(step, "CreatedBy").replace('\t', " ");
        Row::new()
            .with(
                "ID",
                if self.no_trunc {
                    id
                } else {
                    units::short_id(id)
                },
            )
            .with("CreatedSince", units::ago(created))
            .with("CreatedAt", units::local_rfc3339(created))
            .with(
                "CreatedBy",
                if self.no_trunc {
                    by
                } else {
                    units::ellipsis(&by, CREATED_BY_WIDTH)
                },
            )
            .with(
                "Size",
                if self.human {
                    units::size(size)
                } else {
                    size.to_string()
                },
            )
            .with("Comment", text(step, "Comment"))
    }
}

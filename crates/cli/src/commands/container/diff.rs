//! `diff`.

use std::sync::Arc;

use clap::Args;

use super::path;
use crate::client::{Client, Query};
use crate::commands::{Verb, number, text};
use crate::error::Error;
use crate::output::print;

/// Flags of `gamut diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for DiffArguments {
    const USAGE: &'static str = "CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let changes = client
            .get(&path(&self.container, "changes"), &Query::new())
            .await?;
        for change in changes.as_array().map(Vec::as_slice).unwrap_or_default() {
            let kind = match number(change, "Kind") {
                0 => "C",
                1 => "A",
                _ => "D",
            };
            print::line(&format!("{kind} {}", text(change, "Path")))?;
        }
        Ok(0)
    }
}

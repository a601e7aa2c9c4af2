//! `system prune`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::client::{Client, Query};
use crate::commands::{Verb, confirm, list, number, text};
use crate::error::Error;
use crate::output::{print, units};
use crate::parse::filter;

/// Flags of `gamut system prune`.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    pub all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    pub volumes: bool,
}

impl Verb for PruneArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if self.volumes && self.filter.iter().any(|text| text.starts_with("until=")) {
            return Err(Error::Usage(
                "the \"until\" filter is not supported with --volumes".into(),
            ));
        }
        let filters = filter::parse(&self.filter)?;
        let mut image_filters = self.filter.clone();
        image_filters.push(format!("dangling={}", !self.all));
        let image_filters = filter::parse(&image_filters)?;
        confirm("system prune", &self.warning(), self.force)?;
        let mut freed = 0;
        let mut kinds = vec![(
            "/containers/prune",
            "ContainersDeleted",
            "Containers",
            &filters,
        )];
        if self.volumes {
            kinds.push(("/volumes/prune", "VolumesDeleted", "Volumes", &filters));
        }
        kinds.push(("/networks/prune", "NetworksDeleted", "Networks", &filters));
        kinds.push(("/images/prune", "ImagesDeleted", "Images", &image_filters));
        for (path, field, title, filters) in kinds {
            let query = Query::new().maybe("filters", filters.as_deref());
            let answer = client.post(path, &query, &Value::Null).await?;
            freed += number(&answer, "SpaceReclaimed");
            let names: Vec<String> = list(&answer, field).iter().map(name).collect();
            if !names.is_empty() {
                print::line(&format!("Deleted {title}:\n{}\n", names.join("\n")))?;
            }
        }
        print::line(&format!(
            "Total reclaimed space: {}",
            units::size_precise(freed)
        ))?;
        Ok(0)
    }
}

impl PruneArguments {
    fn warning(&self) -> String {
        let mut what = vec![
            "all stopped containers",
            "all networks not used by at least one container",
        ];
        if self.volumes {
            what.push("all anonymous volumes not used by at least one container");
        }
        what.push(if self.all {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        });
        format!("This will remove:\n  - {}\n", what.join("\n  - "))
    }
}

/// An id, or an image's `untagged: …` or `deleted: …`.
fn name(item: &Value) -> String {
    if let Some(id) = item.as_str() {
        return id.to_owned();
    }
    for kind in ["Deleted", "Untagged"] {
        let name = text(item, kind);
        if !name.is_empty() {
            return format!("{}: {name}", kind.to_lowercase());
        }
    }
    String::new()
}

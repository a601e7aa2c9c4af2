//! `system df`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::client::{Client, Query};
use crate::commands::{Verb, image, list, number, text, volume};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};

const LAYOUT: Layout = Layout {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};
const IMAGES: Layout = Layout {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headers: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
};
const CONTAINERS: Layout = Layout {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
};
const VOLUMES: Layout = Layout {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
};

/// Flags of `gamut system df`.
#[derive(Debug, Args)]
pub struct DfArguments {
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    pub verbose: bool,
}

impl Verb for DfArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let usage = client.get("/system/df", &Query::new()).await?;
        if self.verbose {
            return verbose(&usage);
        }
        let rows = [
            images(&usage),
            containers(&usage),
            volumes(&usage),
            cache(&usage),
        ];
        print::out(&render(self.format.as_deref(), &LAYOUT, &rows)?)?;
        Ok(0)
    }
}

fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Row {
    let reclaimable = reclaimable.max(0);
    // Docker shows no share where there is nothing.
    let share = match (size, kind) {
        (1.., "Build Cache") | (..=0, _) => String::new(),
        (size, _) => format!(" ({}%)", reclaimable.saturating_mul(100) / size),
    };
    Row::new()
        .with("Type", kind)
        .with("TotalCount", total.to_string())
        .with("Active", active.to_string())
        .with("Size", units::size_precise(size))
        .with(
            "Reclaimable",
            format!("{}{share}", units::size_precise(reclaimable)),
        )
}

fn images(usage: &Value) -> Row {
    let images = list(usage, "Images");
    let is_used = |image: &&Value| number(image, "Containers") > 0;
    let total = number(usage, "LayersSize");
    // What the images in use hold stays; an unknown size counts as nothing.
    let used: i64 = images
        .iter()
        .filter(is_used)
        .filter(|image| number(image, "Size") >= 0 && number(image, "SharedSize") >= 0)
        .map(|image| number(image, "Size") - number(image, "SharedSize"))
        .sum();
    let active = images.iter().filter(is_used).count();
    row("Images", images.len(), active, total, total - used)
}

fn containers(usage: &Value) -> Row {
    let containers = list(usage, "Containers");
    let is_active = |container: &&Value| {
        let state = text(container, "State");
        ["running", "paused", "restarting"].contains(&state)
    };
    let size = |container: &Value| number(container, "SizeRw");
    let total: i64 = containers.iter().map(size).sum();
    let used: i64 = containers.iter().filter(is_active).map(size).sum();
    let active = containers.iter().filter(is_active).count();
    row("Containers", containers.len(), active, total, total - used)
}

fn volumes(usage: &Value) -> Row {
    let volumes = list(usage, "Volumes");
    let data = |volume: &Value, name: &str| {
        let usage = volume.get("UsageData").map(|usage| number(usage, name));
        usage.unwrap_or(0).max(0)
    };
    let is_used = |volume: &&Value| data(volume, "RefCount") > 0;
    let total: i64 = volumes.iter().map(|volume| data(volume, "Size")).sum();
    let used: i64 = volumes
        .iter()
        .filter(is_used)
        .map(|volume| data(volume, "Size"))
        .sum();
    let active = volumes.iter().filter(is_used).count();
    row("Local Volumes", volumes.len(), active, total, total - used)
}

fn cache(usage: &Value) -> Row {
    let entries = list(usage, "BuildCache");
    let flag = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_bool) == Some(true);
    let total: i64 = entries
        .iter()
        .filter(|entry| !flag(entry, "Shared"))
        .map(|entry| number(entry, "Size"))
        .sum();
    let used: i64 = entries
        .iter()
        .filter(|entry| !flag(entry, "Shared") && flag(entry, "InUse"))
        .map(|entry| number(entry, "Size"))
        .sum();
    let active = entries.iter().filter(|entry| flag(entry, "InUse")).count();
    row("Build Cache", entries.len(), active, total, total - used)
}

fn verbose(usage: &Value) -> Result<u8, Error> {
    let images: Vec<Row> = list(usage, "Images")
        .iter()
        .flat_map(|one| image::ls::rows(one, false, false))
        .collect();
    let containers: Vec<Row> = list(usage, "Containers")
        .iter()
        .map(|container| {
            // Here, its own size alone.
            let size = units::size(number(container, "SizeRw"));
            crate::commands::container::ps::row(container, false).with("Size", size)
        })
        .collect();
    let volumes: Vec<Row> = list(usage, "Volumes").iter().map(volume::row).collect();
    print::out(&format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
        render(None, &IMAGES, &images)?,
        render(None, &CONTAINERS, &containers)?,
        render(None, &VOLUMES, &volumes)?,
    ))?;
    Ok(0)
}

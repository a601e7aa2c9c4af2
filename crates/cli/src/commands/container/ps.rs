//! `ps`.

use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value};

use crate::client::{Client, Query};
use crate::commands::{Verb, list, number, text};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::{print, units};
use crate::parse::filter;

const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const TABLE_WITH_SIZE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";
/// Longer commands and mounts are cut, as docker's.
const COMMAND_WIDTH: usize = 20;
const MOUNT_WIDTH: usize = 15;

/// Flags of `gamut ps`.
#[derive(Debug, Args)]
pub struct PsArguments {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    pub latest: bool,
    /// Don't truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    pub size: bool,
}

impl Verb for PsArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let filters = filter::parse(&self.filter)?;
        let last = match (self.latest, self.last) {
            (true, _) => Some(1),
            (false, Some(count)) if count > 0 => Some(count),
            _ => None,
        };
        let needs_size = self.size || self.format.as_ref().is_some_and(|f| f.contains(".Size"));
        let limit = last.map(|count| count.to_string());
        let query = Query::new()
            .flag("all", self.all || last.is_some())
            .flag("size", needs_size && !self.quiet)
            .maybe("limit", limit.as_deref())
            .maybe("filters", filters.as_deref());
        let containers = client.get("/containers/json", &query).await?;
        let rows: Vec<Row> = containers
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .map(|container| row(container, self.no_trunc))
            .collect();
        let layout = Layout {
            table: if self.size { TABLE_WITH_SIZE } else { TABLE },
            headers: HEADERS,
        };
        let format = match (&self.format, self.quiet) {
            (None, true) => Some("{{.ID}}"),
            (Some(format), true) if format.starts_with("table") => Some("{{.ID}}"),
            (format, _) => format.as_deref(),
        };
        print::out(&render(format, &layout, &rows)?)?;
        Ok(0)
    }
}

/// A container as a template sees it.
#[must_use]
pub fn row(container: &Value, is_full: bool) -> Row {
    let id = text(container, "Id");
    let command = text(container, "Command");
    let created = number(container, "Created");
    let labels = container
        .get("Labels")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let names: Vec<&str> = list(container, "Names")
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        // Names with another slash are links of other containers.
        .filter(|name| is_full || !name.contains('/'))
        .collect();
    let mounts: Vec<String> = list(container, "Mounts")
        .iter()
        .map(|mount| {
            let name = match text(mount, "Name") {
                "" => text(mount, "Source"),
                name => name,
            };
            if is_full {
                name.to_owned()
            } else {
                units::ellipsis(name, MOUNT_WIDTH)
            }
        })
        .collect();
    let volumes = list(container, "Mounts")
        .iter()
        .filter(|mount| text(mount, "Driver") == "local")
        .count();
    let networks: Vec<&str> = container
        .pointer("/NetworkSettings/Networks")
        .and_then(Value::as_object)
        .map(|networks| networks.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let image = match text(container, "Image") {
        "" => "<no image>",
        // An image that lost its name is listed by its id.
        id if id.starts_with("sha256:") && !is_full => units::short_id(id),
        name => name,
    };
    let command = if is_full {
        command.to_owned()
    } else {
        units::ellipsis(command, COMMAND_WIDTH)
    };
    Row::new()
        .with("ID", if is_full { id } else { units::short_id(id) })
        .with("Image", image)
        .with("Command", Value::from(command).to_string())
        .with("CreatedAt", units::local_time(created))
        .with("RunningFor", units::ago(created))
        .with("Status", text(container, "Status"))
        .with("State", text(container, "State"))
        .with("Ports", ports(list(container, "Ports")))
        .with("Names", names.join(","))
        .with("Size", size(container))
        .with("Labels", joined(&labels))
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes.to_string())
        .with("Networks", networks.join(","))
        .with("Platform", Value::Null)
        .with_lookup("Label", labels)
}

/// `k=v,k2=v2`, as docker shows labels.
#[must_use]
pub fn joined(labels: &Map<String, Value>) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    labels.join(",")
}

fn size(container: &Value) -> String {
    let (own, root) = (number(container, "SizeRw"), number(container, "SizeRootFs"));
    if root > 0 {
        format!("{} (virtual {})", units::size(own), units::size(root))
    } else {
        units::size(own)
    }
}

/// `0.0.0.0:8080->80/tcp, 443/tcp`; ports in a row become ranges.
fn ports(ports: &[Value]) -> String {
    let mut entries: Vec<(String, i64, i64, String)> = ports
        .iter()
        .map(|port| {
            let protocol = match text(port, "Type") {
                "" => "tcp",
                protocol => protocol,
            };
            (
                text(port, "IP").to_owned(),
                number(port, "PublicPort"),
                number(port, "PrivatePort"),
                protocol.to_owned(),
            )
        })
        .collect();
    entries.sort_by(|a, b| (&a.3, &a.0, a.2, a.1).cmp(&(&b.3, &b.0, b.2, b.1)));
    entries.dedup();
    let mut groups: Vec<(String, i64, i64, i64, String)> = Vec::new();
    for (ip, public, private, protocol) in entries {
        if let Some((last_ip, first_public, first_private, count, last_protocol)) =
            groups.last_mut()
        {
            let follows = *last_ip == ip
                && *last_protocol == protocol
                && private == *first_private + *count
                && (public == *first_public + *count || (public == 0 && *first_public == 0));
            if follows {
                *count += 1;
                continue;
            }
        }
        groups.push((ip, public, private, 1, protocol));
    }
    let span = |first: i64, count: i64| match count {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + count - 1),
    };
    let mut texts: Vec<(bool, String)> = groups
        .into_iter()
        .map(|(ip, public, private, count, protocol)| {
            let inner = format!("{}/{protocol}", span(private, count));
            if public == 0 {
                return (false, inner);
            }
            let ip = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip
            };
            (true, format!("{ip}:{}->{inner}", span(public, count)))
        })
        .collect();
    texts.sort_by_key(|(is_published, _)| !is_published);
    let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row() {
        let container = json!({
            "Id": "0123456789abcdef", "Names": ["/web", "/other/alias"], "Image": "alpine",
            "Command": "sh -c 'sleep 1000; echo x'", "Created": 1_700_000_000, "State": "running",
            "Status": "Up 3 seconds", "Labels": {"k": "v"}, "SizeRw": 10, "SizeRootFs": 1_000_000,
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                      {"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
                      {"PrivatePort": 53, "Type": "udp"}],
            "Mounts": [{"Name": "a-rather-long-volume", "Driver": "local"}],
            "NetworkSettings": {"Networks": {"bridge": {}}}
        });
        let row = row(&container, false);
        assert_eq!(row.text("ID"), "0123456789ab");
        assert_eq!(row.text("Names"), "web");
        assert_eq!(row.text("Command"), "\"sh -c 'sleep 1000; …\"");
        assert_eq!(row.text("Ports"), "0.0.0.0:8080-8081->80-81/tcp, 53/udp");
        assert_eq!(row.text("Size"), "10B (virtual 1MB)");
        assert_eq!(row.text("Labels"), "k=v");
        assert_eq!(row.text("Mounts"), "a-rather-long-…");
        assert_eq!(row.text("Networks"), "bridge");
    }
}

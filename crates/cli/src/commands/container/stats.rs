//! `stats`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::path;
use crate::client::http::Call;
use crate::client::{Client, Query};
use crate::commands::{Verb, list, number, text};
use crate::error::Error;
use crate::output::list::{Layout, Row, render};
use crate::output::visible::visible;
use crate::output::{print, units};

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headers: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};
/// Between two pictures of a live stream.
const REFRESH: Duration = Duration::from_millis(500);
/// Between two looks for new containers, in pictures.
const LOOK_EVERY: u32 = 4;

/// Flags of `gamut stats`.
#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    pub all: bool,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    pub no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    pub no_trunc: bool,
    /// The containers; all running ones if none is named
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

type Latest = Arc<Mutex<BTreeMap<usize, (String, Option<Value>)>>>;

impl Verb for StatsArguments {
    const USAGE: &'static str = "[OPTIONS] [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if self.no_stream {
            return self.once(&client).await;
        }
        let latest = Latest::default();
        let mut known: Vec<String> = Vec::new();
        let mut ticks: u32 = 0;
        loop {
            if ticks.is_multiple_of(LOOK_EVERY) {
                for name in self.names(&client).await? {
                    if !known.contains(&name) {
                        follow(&client, &latest, known.len(), &name);
                        known.push(name);
                    }
                }
            }
            ticks = ticks.wrapping_add(1);
            tokio::time::sleep(REFRESH).await;
            let rows: Vec<Row> = {
                let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
                latest
                    .values()
                    .map(|(name, sample)| row(name, sample.as_ref(), self.no_trunc))
                    .collect()
            };
            let is_gone = !self.containers.is_empty() && rows.is_empty();
            let picture = render(self.format.as_deref(), &LAYOUT, &rows)?;
            if std::io::stdout().is_terminal() {
                // ECMA-48: cursor home, then erase each line's rest and what is below.
                let picture = visible(&picture).replace('\n', "\u{1b}[K\n");
                print::out_bytes(format!("\u{1b}[H{picture}\u{1b}[J").as_bytes())?;
            } else {
                print::out(&picture)?;
            }
            if is_gone {
                return Ok(0);
            }
        }
    }
}

impl StatsArguments {
    async fn names(&self, client: &Client) -> Result<Vec<String>, Error> {
        if !self.containers.is_empty() {
            return Ok(self.containers.clone());
        }
        let query = Query::new().flag("all", self.all);
        let containers = client.get("/containers/json", &query).await?;
        let containers = containers.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(containers
            .iter()
            .map(|container| text(container, "Id").to_owned())
            .collect())
    }

    async fn once(&self, client: &Arc<Client>) -> Result<u8, Error> {
        let names = self.names(client).await?;
        let tasks: Vec<_> = names
            .iter()
            .map(|name| {
                let (client, path) = (client.clone(), path(name, "stats"));
                tokio::spawn(
                    async move { client.get(&path, &Query::new().with("stream", "0")).await },
                )
            })
            .collect();
        let mut rows = Vec::new();
        for (name, task) in names.iter().zip(tasks) {
            let sample = task
                .await
                .map_err(|error| Error::Message(error.to_string()))?;
            match sample {
                Ok(sample) => rows.push(row(name, Some(&sample), self.no_trunc)),
                // It was there when the list was made.
                Err(error) if error.status() == Some(404) && self.containers.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        print::out(&render(self.format.as_deref(), &LAYOUT, &rows)?)?;
        Ok(0)
    }
}

/// Keeps the newest sample of a container, until its stream ends.
fn follow(client: &Arc<Client>, latest: &Latest, index: usize, name: &str) {
    let (client, latest, name) = (client.clone(), latest.clone(), name.to_owned());
    {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.insert(index, (name.clone(), None));
    }
    tokio::spawn(async move {
        let query = Query::new().with("stream", "1");
        let call = Call::new(Method::GET, &path(&name, "stats"), &query);
        match client.stream(call).await {
            Ok(mut stream) => {
                while let Ok(Some(sample)) = stream.next_json().await {
                    let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
                    latest.insert(index, (name.clone(), Some(sample)));
                }
            }
            Err(error) => print::note(&error.to_string()),
        }
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.remove(&index);
    });
}

fn row(container: &str, sample: Option<&Value>, is_full: bool) -> Row {
    let Some(sample) = sample else {
        return LAYOUT
            .headers
            .iter()
            .fold(Row::new(), |row, (name, _)| row.with(name, "--"))
            .with("Container", container)
            .with(
                "ID",
                if is_full {
                    container
                } else {
                    units::short_id(container)
                },
            );
    };
    let id = text(sample, "id");
    let name = text(sample, "name");
    let (used, limit) = memory(sample);
    let (received, sent) = network(sample);
    let (read, written) = blocks(sample);
    let percent = if limit == 0 {
        0.0
    } else {
        units::to_f64(used) / units::to_f64(limit) * 100.0
    };
    Row::new()
        .with("Container", container)
        .with("ID", if is_full { id } else { units::short_id(id) })
        .with("Name", name.strip_prefix('/').unwrap_or(name))
        .with("CPUPerc", format!("{:.2}%", cpu_percent(sample)))
        .with(
            "MemUsage",
            format!(
                "{} / {}",
                units::size_binary(used),
                units::size_binary(limit)
            ),
        )
        .with("MemPerc", format!("{percent:.2}%"))
        .with("NetIO", format!("{} / {}", short(received), short(sent)))
        .with("BlockIO", format!("{} / {}", short(read), short(written)))
        .with("PIDs", at(sample, "/pids_stats/current").to_string())
}

fn short(bytes: u64) -> String {
    units::size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn at(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Share of one CPU's time since the sample before, in percent.
fn cpu_percent(sample: &Value) -> f64 {
    let delta = |pointer: &str| {
        let now = at(sample, &format!("/cpu_stats/{pointer}"));
        let before = at(sample, &format!("/precpu_stats/{pointer}"));
        now.checked_sub(before).map_or(0.0, units::to_f64)
    };
    let cpus = match at(sample, "/cpu_stats/online_cpus") {
        0 => sample
            .pointer("/cpu_stats/cpu_usage/percpu_usage")
            .and_then(Value::as_array)
            .map_or(1.0, |cpus| {
                units::to_f64(u64::try_from(cpus.len()).unwrap_or(1))
            }),
        cpus => units::to_f64(cpus),
    };
    let (used, system) = (delta("cpu_usage/total_usage"), delta("system_cpu_usage"));
    if used > 0.0 && system > 0.0 {
        used / system * cpus * 100.0
    } else {
        0.0
    }
}

/// Memory in use without the page cache that can be dropped, and the limit.
fn memory(sample: &Value) -> (u64, u64) {
    let usage = at(sample, "/memory_stats/usage");
    // cgroup v1, then v2.
    let cache = [
        "/memory_stats/stats/total_inactive_file",
        "/memory_stats/stats/inactive_file",
    ]
    .into_iter()
    .map(|pointer| at(sample, pointer))
    .find(|cache| *cache > 0 && *cache < usage)
    .unwrap_or(0);
    (usage - cache, at(sample, "/memory_stats/limit"))
}

fn network(sample: &Value) -> (u64, u64) {
    let networks = sample.get("networks").and_then(Value::as_object);
    let sum = |name: &str| {
        networks
            .into_iter()
            .flatten()
            .map(|(_, network)| u64::try_from(number(network, name)).unwrap_or(0))
            .sum()
    };
    (sum("rx_bytes"), sum("tx_bytes"))
}

fn blocks(sample: &Value) -> (u64, u64) {
    let entries = sample.get("blkio_stats").unwrap_or(&Value::Null);
    let sum = |operation: &str| {
        list(entries, "io_service_bytes_recursive")
            .iter()
            .filter(|entry| text(entry, "op").eq_ignore_ascii_case(operation))
            .map(|entry| u64::try_from(number(entry, "value")).unwrap_or(0))
            .sum()
    };
    (sum("read"), sum("write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sample() {
        let sample = json!({
            "id": "0123456789abcdef", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_145_728, "limit": 10_485_760, "stats": {"inactive_file": 1_048_576}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 7}]},
            "pids_stats": {"current": 3}
        });
        let row = row("web", Some(&sample), false);
        for (name, text) in [
            ("ID", "0123456789ab"),
            ("Name", "web"),
            ("CPUPerc", "40.00%"),
            ("MemUsage", "2MiB / 10MiB"),
            ("MemPerc", "20.00%"),
            ("NetIO", "1kB / 2kB"),
            ("BlockIO", "5B / 7B"),
            ("PIDs", "3"),
        ] {
            assert_eq!(row.text(name), text);
        }
        assert_eq!(super::row("x", None, false).text("CPUPerc"), "--");
    }
}

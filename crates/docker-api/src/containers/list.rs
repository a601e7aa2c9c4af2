//! `GET /containers/json`

use super::inspect;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_engine::Engine;
use gamut_engine::container::record::{ContainerRecord, Phase};
use gamut_engine::health::HealthStatus;
use gamut_spec::time;
use serde_json::{Value, json};

const KNOWN: [&str; 15] = [
    "ancestor",
    "before",
    "since",
    "expose",
    "publish",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "status",
    "volume",
];

/// Lists containers, newest first; without `all` only those that run.
pub async fn list(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&KNOWN)?;
    let is_health =
        |word: &String| matches!(word.as_str(), "starting" | "healthy" | "unhealthy" | "none");
    if let Some(word) = filters
        .values("health")
        .iter()
        .find(|word| !is_health(word))
    {
        return Err(ApiError::invalid(format!("invalid filter 'health={word}'")));
    }
    let states = [
        "created",
        "running",
        "paused",
        "restarting",
        "removing",
        "exited",
        "dead",
    ];
    let unknown = filters
        .values("status")
        .iter()
        .find(|word| !states.contains(&word.as_str()));
    if let Some(word) = unknown {
        return Err(ApiError::invalid(format!(
            "invalid filter 'status={word}': invalid value for state ({word}): must be one of {}",
            states.join(", ")
        )));
    }
    let limit: Option<i64> = request.number("limit")?;
    let (with_size, version) = (request.flag("size"), request.version);
    let all = request.flag("all")
        || limit.is_some_and(|limit| limit > 0)
        || filters.has("status")
        || filters.has("exited");
    let values = request
        .blocking(move |engine, caller| {
            let mut records = engine.containers();
            records.retain(|record| engine.may_use(caller, record.provenance.uid));
            let links = engine.names_of_links(&records);
            let mut values = Vec::new();
            for record in &records {
                let shown = (all || record.state.phase.is_live())
                    && matches(record, &filters, &records, engine);
                if shown {
                    let mut value = summary(record, with_size, engine);
                    if let (Some(links), Some(names)) =
                        (links.get(&record.id), value["Names"].as_array_mut())
                    {
                        names.extend(links.iter().map(|name| json!(name)));
                    }
                    crate::compat::container_summary(version, &mut value);
                    values.push(value);
                }
                let full = limit.is_some_and(|limit| {
                    limit > 0 && usize::try_from(limit).is_ok_and(|limit| values.len() >= limit)
                });
                if full {
                    break;
                }
            }
            Ok(values)
        })
        .await?;
    Ok(reply::json(&values))
}

fn matches(
    record: &ContainerRecord,
    filters: &Filters,
    all: &[ContainerRecord],
    engine: &Engine,
) -> bool {
    let created_of = |name: &String| {
        let bare = name.strip_prefix('/').unwrap_or(name);
        all.iter()
            .find(|other| other.id.starts_with(bare) || other.name == bare)
            .map(|other| other.created_ns)
    };
    let port_matches = |wanted: &String, number: u16, protocol: &str| {
        let (range, wanted_protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        protocol == wanted_protocol
            && low.parse::<u16>().is_ok_and(|low| low <= number)
            && high.parse::<u16>().is_ok_and(|high| number <= high)
    };
    filters.match_labels(&record.spec.labels)
        && filters.any("id", |id| record.id.starts_with(id.as_str()))
        && filters.any("name", |name| name_matches(&record.name, name))
        && filters.any("status", |status| record.state.phase.as_str() == status)
        && filters.any("exited", |code| {
            record.state.phase == Phase::Exited
                && record
                    .state
                    .exit
                    .is_some_and(|exit| code.parse() == Ok(exit.code))
        })
        && filters.any("ancestor", |image| {
            record.spec.image == *image
                || record.image_id == *image
                || engine
                    .images()
                    .get(image, None)
                    .is_ok_and(|found| found.id == record.image_id)
        })
        && filters.any("before", |name| {
            created_of(name).is_some_and(|at| record.created_ns < at)
        })
        && filters.any("since", |name| {
            created_of(name).is_some_and(|at| record.created_ns > at)
        })
        && filters.any("volume", |volume| {
            record.mounts.iter().any(|mount| {
                mount.volume.as_ref() == Some(volume)
                    || mount.destination == *volume
                    || mount.source == *volume
            })
        })
        && filters.any("network", |wanted| {
            super::endpoints::networks(engine, record)
                .iter()
                .any(|(name, endpoint)| {
                    let id = endpoint["NetworkID"].as_str().unwrap_or_default();
                    name == wanted || id.starts_with(wanted.as_str())
                })
        })
        && filters.any("expose", |wanted| {
            record
                .spec
                .exposed_ports
                .iter()
                .any(|port| port_matches(wanted, port.number, port.protocol.as_str()))
        })
        && filters.any("publish", |wanted| {
            record.published().any(|port| {
                port_matches(
                    wanted,
                    port.container.number,
                    port.container.protocol.as_str(),
                )
            })
        })
        && filters.any("health", |wanted| health_word(record) == wanted)
        && filters.any("is-task", |value| value == "false")
        && filters.any("isolation", |level| record.level.as_str() == level)
}

/// Docker takes names as regular expressions; the anchors and plain parts that people use work.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (anchored_start, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (anchored_end, body) = match rest.strip_suffix('$') {
        Some(body) => (true, body),
        None => (false, rest),
    };
    let bare = body.strip_prefix('/').unwrap_or(body);
    let anchored_start = anchored_start || bare.len() != body.len();
    match (anchored_start, anchored_end) {
        (true, true) => name == bare,
        (true, false) => name.starts_with(bare),
        (false, true) => name.ends_with(bare),
        (false, false) => name.contains(bare),
    }
}

/// A container, as lists tell of it.
pub fn summary(record: &ContainerRecord, with_size: bool, engine: &Engine) -> Value {
    let mut ports = Vec::new();
    for port in record.published() {
        ports.push(json!({
            "IP": port.host_address.map_or("0.0.0.0".to_owned(), |address| address.to_string()),
            "PrivatePort": port.container.number,
            "PublicPort": port.host_port,
            "Type": port.container.protocol.as_str(),
        }));
    }
    if record.state.phase.is_live() {
        for port in &record.spec.exposed_ports {
            let published = record
                .published()
                .any(|published| published.container == *port);
            if !published {
                ports.push(json!({"PrivatePort": port.number, "Type": port.protocol.as_str()}));
            }
        }
    }
    let networks = super::endpoints::networks(engine, record);
    let network_mode = inspect::network_mode(&record.spec);
    let mut value = json!({
        "Id": record.id,
        "Names": [format!("/{}", record.name)],
        "Image": record.spec.image,
        "ImageID": record.image_id,
        "Command": command(&record.process.args),
        "Created": record.created_ns / 1_000_000_000,
        "Ports": ports,
        "Labels": record.spec.labels,
        "State": record.state.phase.as_str(),
        "Status": status_text(record, time::now_ns()),
        "HostConfig": {"NetworkMode": network_mode},
        "NetworkSettings": {"Networks": networks},
        "Mounts": inspect::mounts(record),
    });
    let streak = record
        .state
        .health
        .as_ref()
        .map_or(0, |health| health.failing_streak);
    value["Health"] = json!({"Status": health_word(record), "FailingStreak": streak});
    if !record.spec.annotations.is_empty() {
        value["HostConfig"]["Annotations"] = json!(record.spec.annotations);
    }
    if with_size {
        let (own, total) = engine.container_sizes(record);
        value["SizeRw"] = json!(own);
        value["SizeRootFs"] = json!(total);
    }
    value
}

/// The command on one line, as Docker shows it: arguments with a space stand in single quotes.
fn command(args: &[String]) -> String {
    let mut text = args.first().cloned().unwrap_or_default();
    for argument in args.iter().skip(1) {
        let quote = if argument.contains(' ') { "'" } else { "" };
        text.extend([" ", quote, argument, quote]);
    }
    text
}

/// The word by which a container is found by its health.
fn health_word(record: &ContainerRecord) -> &'static str {
    let health = record.state.health.as_ref();
    health.map_or("none", |health| health.status.as_str())
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`.
fn status_text(record: &ContainerRecord, now_ns: u64) -> String {
    let state = &record.state;
    let ago = |time_ns: u64| human_duration(now_ns.saturating_sub(time_ns) / 1_000_000_000);
    let (code, finished_ns) = state
        .exit
        .map_or((0, 0), |exit| (exit.code, exit.finished_ns));
    match state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => {
            let up = format!("Up {}", ago(state.started_ns));
            match state.health.as_ref().map(|health| health.status) {
                None => up,
                Some(HealthStatus::Starting) => format!("{up} (health: starting)"),
                Some(status) => format!("{up} ({})", status.as_str()),
            }
        }
        Phase::Paused => format!("Up {} (Paused)", ago(state.started_ns)),
        Phase::Restarting => format!("Restarting ({code}) {} ago", ago(finished_ns)),
        Phase::Exited => format!("Exited ({code}) {} ago", ago(finished_ns)),
        Phase::Dead => "Dead".to_owned(),
    }
}

/// A duration in seconds in Docker's words (go-units `HumanDuration`).
fn human_duration(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_with_a_space_are_quoted() {
        let args = ["sh", "-c", "echo a"].map(String::from);
        assert_eq!(command(&args), "sh -c 'echo a'");
        assert_eq!(command(&args[..1]), "sh");
        assert_eq!(command(&[]), "");
    }

    #[test]
    fn names_and_durations() {
        assert!(name_matches("web-1", "web"));
        assert!(name_matches("web-1", "^/web-1$"));
        assert!(!name_matches("web-1", "^/web$"));
        assert!(name_matches("web-1", "/web-1"));
        assert_eq!(human_duration(59), "59 seconds");
        assert_eq!(human_duration(61), "About a minute");
        assert_eq!(human_duration(7200), "2 hours");
        assert_eq!(human_duration(86_400 * 3), "3 days");
    }
}

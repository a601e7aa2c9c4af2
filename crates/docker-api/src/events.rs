//! `GET /events`

use crate::body;
use crate::compat;
use crate::containers::logs::timestamp;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use bytes::Bytes;
use gamut_engine::events::EngineEvent;
use gamut_engine::{Caller, Engine};
use gamut_spec::{time, units};
use hyper::header::ACCEPT;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// Since this version, an answer says by its type that it is lines of JSON.
const LINES_SINCE: ApiVersion = ApiVersion(1, 52);
/// The types that a client may ask for, most wanted first.
const LINE_TYPES: [&str; 3] = [
    "application/jsonl",
    "application/x-ndjson",
    "application/json-seq",
];
/// What precedes a document of `application/json-seq` (RFC 7464).
const RECORD_SEPARATOR: u8 = 0x1e;

fn moment(request: &Request, name: &str) -> Result<Option<u64>, ApiError> {
    let text = request.text(name);
    let moment = match text.and_then(|text| units::parse_duration_ns(text).filter(|_| text != "0"))
    {
        Some(ago) => Ok(Some(time::now_ns().saturating_sub(ago))),
        None => timestamp(text),
    };
    let moment = moment.map_err(|error| {
        ApiError::invalid(format!("invalid value for '{name}': {}", error.message))
    })?;
    Ok(moment.filter(|time_ns| *time_ns != 0))
}

/// The type of the answer: what the client asks for by name, else what its version expects.
fn media_type(request: &Request) -> &'static str {
    let accepted = request
        .headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.split(';').next().unwrap_or_default().trim());
    let asked = accepted
        .filter_map(|one| LINE_TYPES.into_iter().find(|known| *known == one))
        .next();
    match asked {
        Some(asked) => asked,
        None if request.version < LINES_SINCE => "application/json",
        None => LINE_TYPES[0],
    }
}

/// Containers that a caller has been seen to own: of their end he hears, too.
#[derive(Default)]
struct Own(BTreeSet<String>);

impl Own {
    fn may_see(&mut self, engine: &Engine, caller: &Caller, event: &EngineEvent) -> bool {
        if engine.is_trusted(caller) {
            return true;
        }
        let is_own = event.kind == "container"
            && (self.0.contains(&event.id) || engine.authorize_use(caller, &event.id).is_ok());
        if is_own {
            self.0.insert(event.id.clone());
        }
        is_own
    }
}

/// Streams events as lines of JSON; ends at `until`.
pub fn stream(request: &Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(request)?;
    let since_ns = moment(request, "since")?;
    let until_ns = moment(request, "until")?;
    if let (Some(since), Some(until)) = (since_ns, until_ns)
        && until < since
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            request.text("since").unwrap_or_default(),
            request.text("until").unwrap_or_default()
        )));
    }
    let media_type = media_type(request);
    let line = {
        let is_sequence = media_type == "application/json-seq";
        let version = request.version;
        move |event: &EngineEvent| line(event, version, is_sequence)
    };
    let log = request.engine.events();
    let (past, mut future) = match since_ns {
        Some(since_ns) => log.subscribe_since(since_ns),
        None if until_ns.is_some() => log.subscribe_since(0),
        None => (Vec::new(), log.subscribe()),
    };
    let (sender, reply) = body::stream();
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let mut own = Own::default();
    tokio::spawn(async move {
        let mut wanted = |event: &EngineEvent| {
            own.may_see(&engine, &caller, event)
                && until_ns.is_none_or(|until| event.time_ns <= until)
                && matches(event, &filters)
        };
        for event in past.iter() {
            if !wanted(event) {
                continue;
            }
            if let Some(line) = line(event)
                && sender.send(Ok(line)).await.is_err()
            {
                return;
            }
        }
        let remaining =
            until_ns.map(|until| Duration::from_nanos(until.saturating_sub(time::now_ns())));
        let deadline = async {
            match remaining {
                Some(remaining) => tokio::time::sleep(remaining).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        loop {
            let event: Arc<EngineEvent> = tokio::select! {
                () = &mut deadline => return,
                () = sender.closed() => return,
                event = future.recv() => match event {
                    Ok(event) => event,
                    // A client that reads too slowly misses some rather than holding all up.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
            };
            if !wanted(&event) {
                continue;
            }
            if let Some(line) = line(&event)
                && sender.send(Ok(line)).await.is_err()
            {
                return;
            }
        }
    });
    Ok(reply::with_type(reply, media_type))
}

fn matches(event: &EngineEvent, filters: &Filters) -> bool {
    let name = event.attributes.get("name");
    let of_kind = |kind: &str| {
        filters.any(kind, |wanted| {
            let related = kind == "image"
                && event.attributes.get("image").is_some_and(|image| {
                    image == wanted || image.split(':').next() == Some(wanted.as_str())
                });
            (event.kind == kind && (event.id.starts_with(wanted.as_str()) || name == Some(wanted)))
                || related
        })
    };
    filters.any("type", |kind| kind == event.kind)
        && filters.any("event", |action| {
            event.action == *action || event.action.split(':').next() == Some(action.as_str())
        })
        && filters.any("scope", |scope| scope == "local")
        && filters.match_labels(&labels(event))
        && ["container", "image", "volume", "network", "daemon"]
            .into_iter()
            .all(of_kind)
}

fn labels(event: &EngineEvent) -> BTreeMap<String, String> {
    event.attributes.clone()
}

/// An event on the wire; `None` if this version does not tell of it.
fn line(event: &EngineEvent, version: ApiVersion, is_sequence: bool) -> Option<Bytes> {
    let mut value = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns / 1_000_000_000,
        "timeNano": event.time_ns,
    });
    if event.kind == "container" || event.kind == "image" {
        value["status"] = json!(event.action);
        value["id"] = json!(event.id);
        if let Some(image) = event.attributes.get("image") {
            value["from"] = json!(image);
        }
    }
    if !compat::event(version, &mut value) {
        return None;
    }
    let mut bytes = format!("{value}\n").into_bytes();
    if is_sequence {
        bytes.insert(0, RECORD_SEPARATOR);
    }
    Some(Bytes::from(bytes))
}

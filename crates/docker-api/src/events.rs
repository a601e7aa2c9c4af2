//! `GET /events`

use crate::body;
use crate::containers::logs::timestamp;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::Request;
use bytes::Bytes;
use gamut_engine::events::EngineEvent;
use gamut_engine::{Caller, Engine};
use gamut_spec::{time, units};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

const KNOWN: [&str; 12] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "scope",
    "service",
    "type",
    "volume",
];

fn moment(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    match text.and_then(|text| units::parse_duration_ns(text).filter(|_| text != "0")) {
        Some(ago) => Ok(Some(time::now_ns().saturating_sub(ago))),
        None => timestamp(text),
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
    filters.check(&KNOWN)?;
    let since_ns = moment(request.text("since"))?;
    let until_ns = moment(request.text("until"))?.filter(|until| *until != 0);
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
            if sender.send(Ok(line(event))).await.is_err() {
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
            if wanted(&event) && sender.send(Ok(line(&event))).await.is_err() {
                return;
            }
        }
    });
    Ok(reply::with_type(reply, "application/json"))
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

fn line(event: &EngineEvent) -> Bytes {
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
    Bytes::from(format!("{value}\n"))
}

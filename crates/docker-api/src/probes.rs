//! Whether the daemon lives, whether it can do its work, and its metrics: `/healthz`, `/readyz`,
//! `/metrics`.

use crate::body::Reply;
use crate::metrics::{MEDIA_TYPE, Metrics};
use crate::reply::{self, Response};
use gamut_engine::Engine;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers if the path is one of these.
pub async fn answer(
    engine: &Arc<Engine>,
    metrics: &Arc<Metrics>,
    method: &Method,
    path: &str,
) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let answer = match path {
        // That it answers is the answer.
        "/healthz" => text("ok\n".to_owned(), "text/plain; charset=utf-8"),
        "/readyz" => {
            let engine = Arc::clone(engine);
            let checks = tokio::task::spawn_blocking(move || engine.readiness()).await;
            readiness(&checks.unwrap_or_default())
        }
        "/metrics" => {
            let (engine, metrics) = (Arc::clone(engine), Arc::clone(metrics));
            match tokio::task::spawn_blocking(move || metrics.text(&engine)).await {
                Ok(body) => text(body, MEDIA_TYPE),
                Err(_) => reply::empty(StatusCode::INTERNAL_SERVER_ERROR),
            }
        }
        _ => return None,
    };
    Some(answer)
}

fn readiness(checks: &[(&'static str, Result<(), String>)]) -> Response {
    let is_ready = !checks.is_empty() && checks.iter().all(|(_, outcome)| outcome.is_ok());
    let told: serde_json::Map<String, Value> = checks
        .iter()
        .map(|(name, outcome)| {
            let outcome = match outcome {
                Ok(()) => "ok".to_owned(),
                Err(reason) => reason.clone(),
            };
            ((*name).to_owned(), json!(outcome))
        })
        .collect();
    let mut response = reply::json(&json!({"ready": is_ready, "checks": told}));
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn text(body: String, media_type: &'static str) -> Response {
    let mut response = Response::new(Reply::Whole(Some(body.into())));
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

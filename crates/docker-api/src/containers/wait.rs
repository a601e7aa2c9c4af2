//! `POST /containers/{id}/wait`

use crate::body;
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use bytes::Bytes;
use gamut_engine::container::query::WaitCondition;
use serde_json::json;

/// Before this version there was one condition, and the head of the answer came with the end.
const CONDITIONS_SINCE: ApiVersion = ApiVersion(1, 30);
/// Before this version, a removal that failed was told of by an empty body.
const REMOVAL_ERRORS_SINCE: ApiVersion = ApiVersion(1, 34);

/// Waits for the end of a container. The head goes out at once, so that the client knows that the
/// wait has begun; the body follows the end.
pub async fn wait(request: Request, name: &str) -> Result<Response, ApiError> {
    let version = request.version;
    let is_early = version < CONDITIONS_SINCE;
    let condition = match request.text("condition") {
        None | Some("" | "not-running") => WaitCondition::NotRunning,
        Some(_) if is_early => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => {
            return Err(ApiError::invalid(format!("invalid condition: {other:?}")));
        }
    };
    let says_nothing_of_failures =
        matches!(condition, WaitCondition::Removed) && version < REMOVAL_ERRORS_SINCE;
    let waiting = request.engine.begin_wait(name, condition)?;
    let end = async move {
        let (code, message) = match waiting.finish().await {
            // That it could not be started was told to whoever started it.
            Ok(outcome) => (outcome.code, None),
            Err(error) => (-1, Some(error.full_message())),
        };
        let mut value = json!({"StatusCode": code});
        match message {
            Some(_) if says_nothing_of_failures => return Bytes::new(),
            Some(message) if !is_early => value["Error"] = json!({"Message": message}),
            _ => {}
        }
        Bytes::from(format!("{value}\n"))
    };
    if is_early {
        let body = body::Reply::Whole(Some(end.await));
        return Ok(reply::with_type(body, "application/json"));
    }
    let (sender, reply) = body::stream();
    tokio::spawn(async move {
        tokio::select! {
            bytes = end => {
                let _ = sender.send(Ok(bytes)).await;
            }
            () = sender.closed() => {}
        }
    });
    Ok(reply::with_type(reply, "application/json"))
}

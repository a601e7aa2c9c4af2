//! Gamut's own verbs, below `/gamut/v1`.

use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::Request;
use serde_json::{Value, json};

/// `GET /gamut/v1/dump`: the whole state, for people.
pub async fn dump(request: Request) -> Result<Response, ApiError> {
    let value = request.blocking(|engine, _| Ok(engine.dump())).await?;
    Ok(reply::json(&value))
}

/// `POST /gamut/v1/fsck`: checks everything; with `repair`, puts right what can be.
pub async fn fsck(request: Request) -> Result<Response, ApiError> {
    let repair = request.flag("repair");
    let findings = request
        .blocking(move |engine, caller| engine.fsck(caller, repair))
        .await?;
    let list: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "object": finding.object,
                "problem": finding.problem,
                "repaired": finding.repaired,
            })
        })
        .collect();
    Ok(reply::json(&list))
}

/// `GET /gamut/v1/refusals`: what each level cannot do, and why.
pub fn refusals(request: &Request) -> Response {
    let list: Vec<Value> = request
        .engine
        .refusals()
        .iter()
        .map(|refusal| {
            json!({
                "level": refusal.level.as_str(),
                "capability": refusal.capability,
                "reason": refusal.reason,
                "alternative": refusal.alternative,
            })
        })
        .collect();
    reply::json(&list)
}

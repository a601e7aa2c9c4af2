//! What goes to registries beyond pulls: push, login, search, looking without pulling.

use crate::credentials::{AuthConfig, credentials};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::images::joined_reference;
use crate::progress::reported;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_image::Platform;
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use serde_json::{Value, json};
use std::sync::Arc;

/// Docker's bounds of a search.
const SEARCH_LIMITS: std::ops::RangeInclusive<usize> = 1..=100;
const DEFAULT_SEARCH_LIMIT: usize = 25;

/// `POST /images/{name}/push`: one tag, or all of the repository.
pub async fn push(request: Request, name: &str) -> Result<Response, ApiError> {
    let tag = request.text("tag").unwrap_or_default();
    let given = joined_reference(name, tag)?;
    if given.digest().is_some() {
        return Err(ApiError::invalid("cannot push a digest reference"));
    }
    let names_tag = name
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'));
    let all = tag.is_empty() && !names_tag;
    let platform: Option<Platform> = request
        .text("platform")
        .filter(|text| !text.is_empty())
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| ApiError::invalid(format!("invalid platform: {error}")))?;
    let credentials = credentials(&request)?;
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    reported(false, move |progress| {
        let references = if all {
            engine.tags_of(&given)?
        } else {
            vec![given]
        };
        for reference in &references {
            let pushed = engine
                .push_image(
                    &caller,
                    reference,
                    platform.as_ref(),
                    credentials.clone(),
                    progress,
                )
                .map_err(|error| absent(error, reference))?;
            progress.send(&json!({
                "progressDetail": {},
                "aux": {
                    "Tag": pushed.tag,
                    "Digest": pushed.digest.to_string(),
                    "Size": pushed.size_bytes,
                },
            }));
        }
        Ok(())
    })
    .await
}

/// Docker's words for an image that is not there.
fn absent(error: gamut_engine::Error, reference: &Reference) -> gamut_engine::Error {
    if error.kind() == ErrorKind::NotFound && error.full_message().starts_with("No such image") {
        return gamut_engine::Error::new(
            ErrorKind::NotFound,
            format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar()
            ),
        );
    }
    error
}

/// `POST /auth`
pub async fn login(mut request: Request) -> Result<Response, ApiError> {
    let auth: AuthConfig = request
        .json()
        .await?
        .ok_or_else(|| ApiError::invalid("credentials are missing"))?;
    let credentials = auth.credentials().unwrap_or_default();
    let server = auth.serveraddress;
    let logged_in = request
        .blocking(move |engine, _| engine.login(&server, credentials))
        .await?;
    Ok(reply::json(&json!({
        "Status": "Login Succeeded",
        "IdentityToken": logged_in.identity_token.unwrap_or_default(),
    })))
}

/// `GET /images/search`
pub async fn search(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&["is-official", "is-automated", "stars"])?;
    let term = request.text("term").unwrap_or_default().to_owned();
    if term.is_empty() {
        return Err(ApiError::invalid("a term to search for is missing"));
    }
    let limit = match request.number("limit")? {
        None | Some(0) => DEFAULT_SEARCH_LIMIT,
        Some(limit) if SEARCH_LIMITS.contains(&limit) => limit,
        Some(limit) => {
            return Err(ApiError::invalid(format!(
                "limit {limit} is outside the range of [1, 100]"
            )));
        }
    };
    let official = filters.flag("is-official")?;
    let automated = filters.flag("is-automated")?;
    let mut least_stars = 0;
    for text in filters.values("stars") {
        let stars: i64 = text
            .parse()
            .map_err(|_| ApiError::invalid(format!("invalid filter 'stars={text}'")))?;
        least_stars = least_stars.max(stars);
    }
    let credentials = credentials(&request)?;
    let found = request
        .blocking(move |engine, _| engine.search_images(&term, limit, credentials))
        .await?;
    let list: Vec<Value> = found
        .iter()
        .filter(|one| official.is_none_or(|wanted| one.is_official == wanted))
        .filter(|one| automated.is_none_or(|wanted| one.is_automated == wanted))
        .filter(|one| one.star_count >= least_stars)
        .map(|one| {
            json!({
                "name": one.name,
                "description": one.description,
                "star_count": one.star_count,
                "is_official": one.is_official,
                "is_automated": one.is_automated,
            })
        })
        .collect();
    Ok(reply::json(&list))
}

/// `GET /distribution/{name}/json`
pub async fn distribution(request: Request, name: &str) -> Result<Response, ApiError> {
    let reference = joined_reference(name, "")?;
    let credentials = credentials(&request)?;
    let found = request
        .blocking(move |engine, _| engine.distribution(&reference, credentials))
        .await?;
    let platforms: Vec<Value> = found
        .platforms
        .iter()
        .map(|platform| {
            let mut value = json!({"architecture": platform.architecture, "os": platform.os});
            if let Some(variant) = &platform.variant {
                value["variant"] = json!(variant);
            }
            value
        })
        .collect();
    Ok(reply::json(&json!({
        "Descriptor": {
            "mediaType": found.descriptor.media_type,
            "digest": found.descriptor.digest.to_string(),
            "size": found.descriptor.size_bytes,
        },
        "Platforms": platforms,
    })))
}

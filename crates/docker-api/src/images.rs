//! Images.

use crate::body::{self, BodyReader, BodyWriter};
use crate::credentials::credentials;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::progress::{ProgressLines, reported};
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use bytes::Bytes;
use gamut_engine::Engine;
use gamut_image::{Image, ImportOptions, Platform, PruneFilter, PullOptions, Removal};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use gamut_spec::time;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

fn not_found(name: &str) -> ApiError {
    // As dockerd tells it: with the tag that was meant.
    let is_id = name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let meant = Reference::parse(name).ok().filter(|_| !is_id);
    let name = meant.map_or_else(|| name.to_owned(), |reference| reference.familiar());
    ApiError::new(ErrorKind::NotFound, format!("No such image: {name}"))
}

fn find(engine: &Engine, name: &str) -> Result<Image, ApiError> {
    engine.image(name).map_err(|error| match error.kind() {
        ErrorKind::NotFound => not_found(name),
        _ => error.into(),
    })
}

/// Before this version, `shared-size` means nothing.
const SHARED_SIZE_SINCE: ApiVersion = ApiVersion(1, 42);

/// As [`find`], of one that is built in as well: it need not be pulled. Clients that look before
/// they make a container (compose) find it here.
async fn find_or_load(request: &Request, name: &str) -> Result<Image, ApiError> {
    let found = find(&request.engine, name);
    if found.is_ok() {
        return found;
    }
    let built_in = name.to_owned();
    let load = move |engine: &Arc<Engine>, _: &gamut_engine::Caller| {
        Ok(engine.images().ensure_builtin(&built_in).unwrap_or(false))
    };
    if request.blocking(load).await? {
        return find(&request.engine, name);
    }
    found
}

/// `GET /images/json`
pub async fn list(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&[
        "before",
        "dangling",
        "label",
        "label!",
        "reference",
        "since",
        "until",
    ])?;
    let version = request.version;
    let with_shared = version >= SHARED_SIZE_SINCE && request.flag("shared-size");
    let dangling = filters.flag("dangling")?;
    let until_ns = filters.until_ns()?;
    let list = request
        .blocking(move |engine, _| {
            let containers = engine.containers();
            let images = engine.images().list().map_err(|error| {
                gamut_engine::Error::new(error.kind(), gamut_spec::error::chain(&error))
            })?;
            let created_of = |name: &String| {
                engine
                    .images()
                    .get(name, None)
                    .ok()
                    .map(|image| image.id)
                    .and_then(|id| {
                        images
                            .iter()
                            .find(|image| image.id == id)
                            .map(|image| image.created_s)
                    })
            };
            let usage = if with_shared {
                Some(engine.disk_usage()?)
            } else {
                None
            };
            let shared_bytes = |id: &str| -> i64 {
                let images = usage.as_ref().map_or(&[][..], |usage| &usage.images);
                let found = images.iter().find(|image| image.id == id);
                found.map_or(-1, |image| {
                    i64::try_from(image.shared_bytes).unwrap_or(i64::MAX)
                })
            };
            let mut list: Vec<(u64, Value)> = Vec::new();
            let is_wanted = |name: &&String| {
                filters.any("reference", |pattern| reference_matches(pattern, name))
            };
            let any_name = filters.any("reference", |_| false);
            for image in &images {
                // As in dockerd, a filter on names hides the other names of an image as well.
                let tags: Vec<_> = image.repo_tags.iter().filter(is_wanted).collect();
                let digests: Vec<_> = image.repo_digests.iter().filter(is_wanted).collect();
                let shown = dangling.is_none_or(|dangling| image.repo_tags.is_empty() == dangling)
                    && filters.match_labels(&image.labels)
                    && until_ns.is_none_or(|until| image.created_s < until / 1_000_000_000)
                    && (any_name || !tags.is_empty() || !digests.is_empty())
                    && filters.any("before", |name| {
                        created_of(name).is_some_and(|at| image.created_s < at)
                    })
                    && filters.any("since", |name| {
                        created_of(name).is_some_and(|at| image.created_s > at)
                    });
                if !shown {
                    continue;
                }
                let users = containers
                    .iter()
                    .filter(|record| record.image_id == image.id)
                    .count();
                let mut value = json!({
                    "Id": image.id,
                    "ParentId": image.parent.as_deref().unwrap_or(""),
                    "RepoTags": tags,
                    "RepoDigests": digests,
                    "Created": image.created_s,
                    "Size": image.size_bytes,
                    "VirtualSize": image.size_bytes,
                    "SharedSize": shared_bytes(&image.id),
                    "Labels": image.labels,
                    "Containers": users,
                    "Form": image.platform.form(),
                    "Unikernels": image.unikernels,
                });
                crate::compat::image_summary(version, &mut value);
                list.push((image.created_s, value));
            }
            list.sort_by_key(|(created_s, _)| std::cmp::Reverse(*created_s));
            Ok(list.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
        })
        .await?;
    Ok(reply::json(&list))
}

/// Docker's `reference` filter: a shell pattern on the name, or on name and tag.
fn reference_matches(pattern: &str, tag: &str) -> bool {
    let name = match tag.split_once('@') {
        Some((name, _digest)) => name,
        None => tag.rsplit_once(':').map_or(tag, |(name, _)| name),
    };
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), name.as_bytes())
}

/// `*` and `?`, neither of which stands for a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            let run = text.iter().take_while(|c| **c != b'/').count();
            (0..=run).any(|skip| text.get(skip..).is_some_and(|text| glob(rest, text)))
        }
        ([b'?', rest @ ..], [c, text @ ..]) if *c != b'/' => glob(rest, text),
        ([p, rest @ ..], [c, text @ ..]) if p == c => glob(rest, text),
        _ => false,
    }
}

/// `GET /images/{name}/json`
pub async fn inspect(request: Request, name: &str) -> Result<Response, ApiError> {
    let image = find_or_load(&request, name).await?;
    let config = &image.config;
    let mut execution = serde_json::to_value(&config.config)
        .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
    for (key, value) in [
        ("Hostname", json!("")),
        ("Domainname", json!("")),
        ("User", json!("")),
        ("AttachStdin", json!(false)),
        ("AttachStdout", json!(false)),
        ("AttachStderr", json!(false)),
        ("Tty", json!(false)),
        ("OpenStdin", json!(false)),
        ("StdinOnce", json!(false)),
        ("Env", Value::Null),
        ("Cmd", Value::Null),
        ("Image", json!("")),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
        ("Entrypoint", Value::Null),
        ("OnBuild", Value::Null),
        ("Labels", Value::Null),
    ] {
        if let Some(object) = execution.as_object_mut() {
            object.entry(key).or_insert(value);
        }
    }
    let layers: Vec<String> = config.diff_ids.iter().map(ToString::to_string).collect();
    let mut value = json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_deref().unwrap_or(""),
        "Comment": config.history.last().map_or("", |step| step.comment.as_str()),
        "Created": config.created.as_deref().unwrap_or(time::NEVER),
        "DockerVersion": config.raw["docker_version"].as_str().unwrap_or(""),
        "Author": config.author,
        "Config": execution,
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant.as_deref().unwrap_or(""),
        "Os": config.platform.os,
        "Form": config.platform.form(),
        "Unikernels": image.unikernels,
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Name": request.engine.snapshotter().name(), "Data": {}},
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {"LastTagTime": time::rfc3339(image.last_tagged_ns)},
    });
    if !config.platform.features.is_empty() {
        value["OsFeatures"] = json!(config.platform.features);
    }
    crate::compat::image(request.version, &mut value);
    if request.caller.client.starts_with("docker-compose/1.") {
        crate::compat::image_container(&mut value);
    }
    Ok(reply::json(&value))
}

/// `GET /images/{name}/history`
pub async fn history(request: Request, name: &str) -> Result<Response, ApiError> {
    let image = find_or_load(&request, name).await?;
    let steps = request.engine.images().history(&image);
    let list: Vec<Value> = steps
        .iter()
        .enumerate()
        .map(|(index, (step, size_bytes))| {
            let created = step
                .created
                .as_deref()
                .and_then(time::parse_rfc3339)
                .unwrap_or(0);
            let newest = index == 0;
            json!({
                "Id": if newest { image.id.as_str() } else { "<missing>" },
                "Created": created / 1_000_000_000,
                "CreatedBy": step.created_by,
                "Tags": if newest { json!(image.repo_tags) } else { json!([]) },
                "Size": size_bytes,
                "Comment": step.comment,
            })
        })
        .collect();
    Ok(reply::json(&list))
}

/// `POST /images/{name}/tag`
pub async fn tag(request: Request, name: &str) -> Result<Response, ApiError> {
    let repository = request.text("repo").unwrap_or_default().to_owned();
    let tag = request.text("tag").unwrap_or_default().to_owned();
    let target = joined_reference(&repository, &tag)?;
    if target.digest().is_some() {
        return Err(ApiError::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    let name = name.to_owned();
    find_or_load(&request, &name).await?;
    request
        .blocking(move |engine, caller| engine.tag_image(caller, &name, &target))
        .await?;
    Ok(reply::empty(StatusCode::CREATED))
}

pub(crate) fn joined_reference(repository: &str, tag: &str) -> Result<Reference, ApiError> {
    let text = if tag.is_empty() {
        repository.to_owned()
    } else if tag.contains(':') {
        format!("{repository}@{tag}")
    } else {
        format!("{repository}:{tag}")
    };
    Reference::parse(&text).map_err(|error| ApiError::invalid(error.to_string()))
}

/// `DELETE /images/{name}`
pub async fn remove(request: Request, name: &str) -> Result<Response, ApiError> {
    let force = request.flag("force");
    find(&request.engine, name)?;
    let name = name.to_owned();
    let removals = request
        .blocking(move |engine, caller| engine.remove_image(caller, &name, force))
        .await?;
    Ok(reply::json(&describe_removals(&removals)))
}

fn describe_removals(removals: &[Removal]) -> Vec<Value> {
    removals
        .iter()
        .map(|removal| match removal {
            Removal::Untagged(name) => json!({"Untagged": name}),
            Removal::Deleted(id) => json!({"Deleted": id}),
        })
        .collect()
}

/// `POST /images/prune`
pub async fn prune(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&["dangling", "until", "label", "label!"])?;
    let all = filters.flag("dangling")? == Some(false);
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.clone(), None),
    };
    let filter = PruneFilter {
        until_s: filters.until_ns()?.map(|until| until / 1_000_000_000),
        labels: filters.values("label").iter().map(pair).collect(),
        without_labels: filters.values("label!").iter().map(pair).collect(),
    };
    let pruned = request
        .blocking(move |engine, caller| engine.prune_images(caller, all, &filter))
        .await?;
    let removed = describe_removals(&pruned.removals);
    Ok(reply::json(&json!({
        "ImagesDeleted": if removed.is_empty() { Value::Null } else { json!(removed) },
        "SpaceReclaimed": pruned.reclaimed_bytes,
    })))
}

/// A name without a tag stands for all tags of it.
fn all_tags(engine: &Engine, names: Vec<String>) -> Vec<String> {
    let mut all = Vec::new();
    for name in names {
        let bare = Reference::parse(&name)
            .ok()
            .filter(|reference| reference.familiar_name() == name);
        let tags = bare.and_then(|bare| engine.tags_of(&bare).ok());
        match tags.filter(|tags| !tags.is_empty()) {
            Some(tags) => all.extend(tags.iter().map(Reference::familiar)),
            None => all.push(name),
        }
    }
    all
}

/// `GET /images/get`, `GET /images/{name}/get`: an archive.
pub async fn save(request: Request, mut names: Vec<String>) -> Result<Response, ApiError> {
    names.extend(
        request
            .texts("names")
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::to_owned),
    );
    if names.is_empty() {
        return Err(ApiError::invalid("no image names given"));
    }
    // Before the answer has begun, so that a missing image is a proper error.
    for name in &names {
        find_or_load(&request, name)
            .await
            .map_err(|_| ApiError::new(ErrorKind::NotFound, format!("No such image: {name}")))?;
    }
    let names = all_tags(&request.engine, names);
    let engine = Arc::clone(&request.engine);
    let (sender, reply) = body::stream();
    tokio::task::spawn_blocking(move || {
        let mut writer = BodyWriter::new(sender);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let saved = engine
            .images()
            .save(&names, &mut writer)
            .map_err(|error| std::io::Error::other(gamut_spec::error::chain(&error)))
            .and_then(|()| writer.flush());
        if let Err(error) = saved {
            tracing::warn!(%error, "an archive could not be sent");
            writer.fail(error);
        }
    });
    Ok(reply::with_type(reply, "application/x-tar"))
}

/// `POST /images/create`: pull, or import with `fromSrc`.
pub async fn create(request: Request) -> Result<Response, ApiError> {
    let platform = request
        .text("platform")
        .filter(|text| !text.is_empty())
        .map(Platform::from_str)
        .transpose()
        .map_err(|error| ApiError::invalid(gamut_spec::error::chain(&error)))?;
    let tag = request.text("tag").unwrap_or_default().to_owned();
    if let Some(source) = request.text("fromSrc").filter(|text| !text.is_empty()) {
        if source != "-" {
            return Err(ApiError::new(
                ErrorKind::Unsupported,
                "importing from a URL is not supported: fetch it and import from a file or stdin",
            ));
        }
        return import(request, &tag, platform).await;
    }
    let name = request.text("fromImage").unwrap_or_default().to_owned();
    let reference = joined_reference(&name, &tag)?;
    // Without tag and digest all tags are meant; clients that want one say `latest`.
    let is_bare = tag.is_empty() && Reference::is_bare(&name);
    let options = PullOptions {
        platform,
        credentials: credentials(&request)?,
        ..PullOptions::default()
    };
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    reported(true, move |progress| {
        if is_bare {
            return engine.pull_all_tags(&caller, &reference, &options, progress);
        }
        engine
            .pull_image(&caller, &reference, &options, progress)
            .map(drop)
    })
    .await
}

async fn import(
    request: Request,
    tag: &str,
    platform: Option<Platform>,
) -> Result<Response, ApiError> {
    let repository = request.text("repo").unwrap_or_default();
    let reference = if repository.is_empty() {
        None
    } else {
        Some(joined_reference(repository, tag)?)
    };
    let mut options = ImportOptions {
        changes: request.texts("changes").to_vec(),
        message: request.text("message").unwrap_or_default().to_owned(),
        ..ImportOptions::default()
    };
    if let Some(platform) = platform {
        options.platform = platform;
    }
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let reader = request.into_reader();
    let id = crate::request::blocking(&engine, &caller, move |engine, caller| {
        engine.import_image(caller, reader, reference.as_ref(), &options)
    })
    .await?;
    Ok(reply::json(&json!({"status": id})))
}

/// `POST /images/load`
pub fn load(request: Request) -> Result<Response, ApiError> {
    let quiet = request.flag("quiet");
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let reader: BodyReader = request.into_reader();
    let (sender, reply) = body::stream();
    tokio::task::spawn_blocking(move || {
        let lines = ProgressLines { sender, quiet };
        match engine.load_image(&caller, reader, &lines) {
            Ok(names) => {
                for name in names {
                    let word = if name.starts_with("sha256:") {
                        " ID"
                    } else {
                        ""
                    };
                    lines.send(&json!({"stream": format!("Loaded image{word}: {name}\n")}));
                }
            }
            Err(error) => {
                let line = format!("{}\r\n", ApiError::from(error).progress_line());
                let _ = lines.sender.blocking_send(Ok(Bytes::from(line)));
            }
        }
    });
    Ok(reply::with_type(reply, "application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(reference_matches("alp*", "alpine:3"));
        assert!(reference_matches("alpine:*", "alpine:3"));
        assert!(!reference_matches("a*", "a/b:1"));
        assert!(reference_matches("*/*", "a/b:1"));
        assert!(reference_matches("a:5000/b", "a:5000/b@sha256:0"));
        assert!(!reference_matches("a:5000", "a:5000/b@sha256:0"));
    }
}

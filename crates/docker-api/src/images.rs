//! Images.

use crate::body::{self, BodyReader, BodyWriter, Sender};
use crate::credentials::credentials;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use bytes::Bytes;
use gamut_engine::Engine;
use gamut_image::{
    Event, Image, ImportOptions, Platform, Progress, PruneFilter, PullOptions, Removal, Step,
};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use gamut_spec::time;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::io::Write;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Sends progress as lines of JSON.
struct ProgressLines {
    sender: Sender,
    quiet: bool,
}

impl ProgressLines {
    fn send(&self, value: &Value) {
        let _ = self
            .sender
            .blocking_send(Ok(Bytes::from(format!("{value}\r\n"))));
    }

    /// An event as clients are told of it.
    fn value(event: &Event<'_>) -> Value {
        let mut value = json!({"status": event.step.to_string()});
        if let Some(id) = event.id {
            value["id"] = json!(id);
        }
        if !matches!(event.step, Step::Message(_)) {
            value["progressDetail"] = json!({});
        }
        if let Some((current, total)) = event.step.amount_bytes() {
            value["progressDetail"] = json!({"current": current, "total": total});
            value["progress"] = json!(progress_bar(current, total));
        }
        value
    }
}

impl Progress for ProgressLines {
    fn report(&self, event: &Event<'_>) {
        if !self.quiet {
            self.send(&Self::value(event));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.sender.is_closed()
    }
}

/// `[=====>    ]  1.2MB/3.4MB`, for clients that only print it.
fn progress_bar(current: u64, total: u64) -> String {
    let filled = current
        .min(total)
        .saturating_mul(50)
        .checked_div(total.max(1))
        .unwrap_or(0);
    let filled = usize::try_from(filled).unwrap_or(50);
    let mut bar = "=".repeat(filled);
    if filled < 50 {
        bar.push('>');
        bar.push_str(&" ".repeat(49 - filled));
    }
    format!("[{bar}] {:>8}/{}", decimal(current), decimal(total))
}

fn decimal(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
    ];
    let (unit, scale) = UNITS
        .into_iter()
        .find(|(_, scale)| bytes >= *scale)
        .unwrap_or(("B", 1));
    if scale == 1 {
        return format!("{bytes}B");
    }
    let tenths = bytes / (scale / 10);
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
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
    let options = PullOptions {
        platform,
        credentials: credentials(&request)?,
        ..PullOptions::default()
    };
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    reported(true, move |progress| {
        engine
            .pull_image(&caller, &reference, &options, progress)
            .map(drop)
    })
    .await
}

/// Answers with lines of progress of blocking work. What fails before its first report is an
/// error, not a stream that begins with one; `announced` work says in its first message only what
/// it is about to do.
pub(crate) async fn reported(
    announced: bool,
    work: impl FnOnce(&FirstReport) -> gamut_engine::Result<()> + Send + 'static,
) -> Result<Response, ApiError> {
    let (sender, reply) = body::stream();
    let (begun, early) = tokio::sync::oneshot::channel::<Option<ApiError>>();
    tokio::task::spawn_blocking(move || {
        let progress = FirstReport {
            lines: ProgressLines {
                sender,
                quiet: false,
            },
            begun: Mutex::new(Some(begun)),
            announced,
            announcement: Mutex::new(None),
        };
        match work(&progress) {
            Ok(()) => drop(progress.begin(None)),
            Err(error) => progress.fail(error.into()),
        }
    });
    match early.await {
        Ok(Some(error)) => Err(error),
        _ => Ok(reply::with_type(reply, "application/json")),
    }
}

/// Lines of progress that tell when the first has been sent.
pub(crate) struct FirstReport {
    lines: ProgressLines,
    begun: Mutex<Option<tokio::sync::oneshot::Sender<Option<ApiError>>>>,
    announced: bool,
    /// The first message, held back until there is something to tell.
    announcement: Mutex<Option<Value>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FirstReport {
    /// Lets the answer begin, or be an error. False if it has begun before.
    fn begin(&self, error: Option<ApiError>) -> Option<ApiError> {
        let Some(sender) = lock(&self.begun).take() else {
            return error;
        };
        let has_failed = error.is_some();
        let unsent = sender.send(error).err().flatten();
        if let Some(announcement) = lock(&self.announcement).take()
            && !has_failed
        {
            self.lines.send(&announcement);
        }
        unsent
    }

    /// Whether this is the message that is held back.
    fn is_announcement(&self, event: &Event<'_>) -> bool {
        self.announced
            && matches!(event.step, Step::Message(_))
            && lock(&self.begun).is_some()
            && lock(&self.announcement).is_none()
    }

    /// Sends a line that is no report.
    pub(crate) fn send(&self, value: &Value) {
        self.begin(None);
        self.lines.send(value);
    }

    fn fail(&self, error: ApiError) {
        if let Some(error) = self.begin(Some(error)) {
            let line = format!("{}\r\n", error.progress_line());
            let _ = self.lines.sender.blocking_send(Ok(Bytes::from(line)));
        }
    }
}

impl Progress for FirstReport {
    fn report(&self, event: &Event<'_>) {
        if self.is_announcement(event) {
            *lock(&self.announcement) = Some(ProgressLines::value(event));
            return;
        }
        self.begin(None);
        self.lines.report(event);
    }

    fn is_cancelled(&self) -> bool {
        self.lines.is_cancelled()
    }
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

    #[test]
    fn bars() {
        assert_eq!(progress_bar(0, 0).len(), progress_bar(50, 100).len() - 2);
        assert!(progress_bar(1_500_000, 3_000_000).ends_with("1.5MB/3.0MB"));
    }
}

//! `GET /system/df`

use crate::compat;
use crate::containers::list;
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use gamut_engine::Engine;
use gamut_engine::system::disk_usage::DiskUsage;
use serde_json::{Value, json};

/// Before this version, `type` means nothing.
const TYPES_SINCE: ApiVersion = ApiVersion(1, 42);
/// Since this version, sums stand beside the lists.
const SUMS_SINCE: ApiVersion = ApiVersion(1, 52);

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    containers: bool,
    images: bool,
    volumes: bool,
    build_cache: bool,
    version: ApiVersion,
    verbose: bool,
}

impl Wanted {
    fn of(request: &Request) -> Result<Self, ApiError> {
        let all = request.version < TYPES_SINCE || request.text("type").is_none();
        let mut wanted = Self {
            containers: all,
            images: all,
            volumes: all,
            build_cache: all,
            version: request.version,
            verbose: request.flag("verbose"),
        };
        if all {
            return Ok(wanted);
        }
        for kind in request.texts("type") {
            match kind.as_str() {
                "container" => wanted.containers = true,
                "image" => wanted.images = true,
                "volume" => wanted.volumes = true,
                "build-cache" => wanted.build_cache = true,
                other => {
                    return Err(ApiError::invalid(format!("unknown object type: {other}")));
                }
            }
        }
        Ok(wanted)
    }
}

/// What images, containers and volumes take.
pub async fn disk_usage(request: Request) -> Result<Response, ApiError> {
    let wanted = Wanted::of(&request)?;
    let value = request
        .blocking(move |engine, _| {
            let usage = engine.disk_usage()?;
            Ok(describe(engine, &usage, wanted))
        })
        .await?;
    Ok(reply::json(&value))
}

/// A list of things with their sums.
struct Kind {
    items: Vec<Value>,
    active: usize,
    total_bytes: u64,
    reclaimable_bytes: u64,
}

impl Kind {
    fn sums(self, verbose: bool) -> Value {
        let mut value = json!({
            "ActiveCount": self.active,
            "TotalCount": self.items.len(),
            "TotalSize": self.total_bytes,
            "Reclaimable": self.reclaimable_bytes,
        });
        if verbose {
            value["Items"] = json!(self.items);
        }
        value
    }
}

fn describe(engine: &Engine, usage: &DiskUsage, wanted: Wanted) -> Value {
    let mut value = json!({});
    let mut add = |is_wanted: bool, list: &str, sums: &str, kind: &dyn Fn() -> Kind| {
        if !is_wanted {
            return;
        }
        let kind = kind();
        let has_sums = wanted.version >= SUMS_SINCE;
        if !(has_sums && wanted.verbose) {
            value[list] = json!(kind.items);
            if list == "Images" {
                value["LayersSize"] = json!(kind.total_bytes);
            }
        }
        if has_sums {
            value[sums] = kind.sums(wanted.verbose);
        }
    };
    add(wanted.images, "Images", "ImageUsage", &|| {
        images(usage, wanted.version)
    });
    add(wanted.containers, "Containers", "ContainerUsage", &|| {
        containers(engine, usage, wanted.version)
    });
    add(wanted.volumes, "Volumes", "VolumeUsage", &|| {
        volumes(engine, usage)
    });
    // Nothing is built, so nothing is cached.
    add(wanted.build_cache, "BuildCache", "BuildCacheUsage", &|| {
        Kind {
            items: Vec::new(),
            active: 0,
            total_bytes: 0,
            reclaimable_bytes: 0,
        }
    });
    if wanted.version < TYPES_SINCE {
        value["BuilderSize"] = json!(0);
    }
    value
}

fn images(usage: &DiskUsage, version: ApiVersion) -> Kind {
    let mut kind = Kind {
        items: Vec::new(),
        active: 0,
        total_bytes: usage.layers_bytes,
        reclaimable_bytes: usage.layers_bytes,
    };
    for image in &usage.images {
        let size_bytes = image.shared_bytes + image.unique_bytes;
        let mut value = json!({
            "Id": image.id,
            "ParentId": "",
            "RepoTags": image.repo_tags,
            "RepoDigests": image.repo_digests,
            "Created": image.created_s,
            "Size": size_bytes,
            "SharedSize": image.shared_bytes,
            "VirtualSize": size_bytes,
            "Labels": image.labels,
            "Containers": image.containers,
        });
        compat::image_summary(version, &mut value);
        value["Containers"] = json!(image.containers);
        kind.items.push(value);
        if image.containers > 0 {
            kind.active += 1;
            kind.reclaimable_bytes = kind.reclaimable_bytes.saturating_sub(image.unique_bytes);
        }
    }
    kind
}

fn containers(engine: &Engine, usage: &DiskUsage, version: ApiVersion) -> Kind {
    let mut kind = Kind {
        items: Vec::new(),
        active: 0,
        total_bytes: 0,
        reclaimable_bytes: 0,
    };
    for container in &usage.containers {
        let mut value = list::summary(&container.record, true, engine);
        compat::container_summary(version, &mut value);
        value["SizeRw"] = json!(container.bytes);
        kind.items.push(value);
        kind.total_bytes += container.bytes;
        if container.record.state.phase.is_live() {
            kind.active += 1;
        } else {
            kind.reclaimable_bytes += container.bytes;
        }
    }
    kind
}

fn volumes(engine: &Engine, usage: &DiskUsage) -> Kind {
    let mut kind = Kind {
        items: Vec::new(),
        active: 0,
        total_bytes: 0,
        reclaimable_bytes: 0,
    };
    for volume in &usage.volumes {
        let mut value = crate::volumes::describe(engine, &volume.record);
        value["UsageData"] = json!({"Size": volume.bytes, "RefCount": volume.users});
        kind.items.push(value);
        kind.total_bytes += volume.bytes;
        if volume.users > 0 {
            kind.active += 1;
        } else {
            kind.reclaimable_bytes += volume.bytes;
        }
    }
    kind
}

//! The engine as a whole.

use crate::body::Reply;
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{NEWEST, OLDEST, Request};
use gamut_spec::error::ErrorKind;
use gamut_spec::time;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `GET` and `HEAD /_ping`
pub fn ping(request: &Request) -> Response {
    let body = if request.method == hyper::Method::HEAD {
        None
    } else {
        Some("OK".into())
    };
    let mut response = Response::new(Reply::Whole(body));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert("pragma", HeaderValue::from_static("no-cache"));
    headers.insert(
        HeaderName::from_static("swarm"),
        HeaderValue::from_static("inactive"),
    );
    response
}

/// `GET /version`
pub async fn version(request: &Request) -> Result<Response, ApiError> {
    let host = gamut_engine::system::host::Host::read();
    let version = env!("CARGO_PKG_VERSION");
    Ok(reply::json(&json!({
        "Platform": {"Name": "Gamut"},
        "Components": [{
            "Name": "Engine",
            "Version": version,
            "Details": {
                "ApiVersion": NEWEST.to_string(),
                "MinAPIVersion": OLDEST.to_string(),
                "Arch": host.go_architecture(),
                "Os": "linux",
                "KernelVersion": host.kernel_version,
                "Experimental": "false",
                "BuildTime": "",
                "GitCommit": "",
                "GoVersion": "",
            },
        }],
        "Version": version,
        "ApiVersion": NEWEST.to_string(),
        "MinAPIVersion": OLDEST.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": host.go_architecture(),
        "KernelVersion": host.kernel_version,
        "Experimental": false,
        "BuildTime": "",
        "StartedAt": time::rfc3339(request.engine.started_ns()),
    })))
}

/// `GET /info`
pub async fn info(request: Request) -> Result<Response, ApiError> {
    let info = request.blocking(|engine, _| engine.info()).await?;
    let host = &info.host;
    let runtimes: BTreeMap<&str, Value> = info
        .levels
        .iter()
        .map(|level| (level.runtime_name(), json!({"path": "gamut-supervisor"})))
        .collect();
    Ok(reply::json(&json!({
        "ID": request.engine.id(),
        "Containers": info.running + info.paused + info.stopped,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", info.backing_filesystem], ["Isolation Levels", info.levels.iter().map(|level| level.as_str()).collect::<Vec<_>>().join(", ")]],
        "SystemStatus": Value::Null,
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": Value::Null, "Log": ["json-file", "none"]},
        "MemoryLimit": true,
        "SwapLimit": info.swap_limit,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": info.ipv4_forwarding,
        "Debug": false,
        "NFd": info.descriptors,
        "OomKillDisable": info.cgroup_version == 1,
        "NGoroutines": info.threads,
        "SystemTime": time::rfc3339(time::now_ns()),
        "LoggingDriver": "json-file",
        "CgroupDriver": if info.without_groups.is_some() { "none" } else { "cgroupfs" },
        "CgroupVersion": info.cgroup_version.to_string(),
        "NEventsListener": 0,
        "KernelVersion": host.kernel_version,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.operating_system_version,
        "OSType": "linux",
        "Architecture": host.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true}},
            "Mirrors": [],
        },
        "NCPU": host.processors,
        "MemTotal": host.memory_bytes,
        "GenericResources": Value::Null,
        "DockerRootDir": request.engine.options().data_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": host.name,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": runtimes,
        "DefaultRuntime": "gamut",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": Value::Null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": security_options(&info),
        "Warnings": info.warnings,
    })))
}

fn security_options(info: &gamut_engine::system::info::Info) -> Vec<&'static str> {
    let mut options = vec!["name=seccomp,profile=builtin", "name=cgroupns"];
    if info.rootless {
        options.push("name=rootless");
    }
    options
}

/// `GET /system/df`
pub async fn disk_usage(request: Request) -> Result<Response, ApiError> {
    let usage = request.blocking(|engine, _| engine.disk_usage()).await?;
    let images: Vec<Value> = usage
        .images
        .iter()
        .map(|image| {
            json!({
                "Id": image.id,
                "ParentId": "",
                "RepoTags": image.repo_tags,
                "RepoDigests": image.repo_digests,
                "Created": image.created_s,
                "Size": image.shared_bytes + image.unique_bytes,
                "SharedSize": image.shared_bytes,
                "VirtualSize": image.shared_bytes + image.unique_bytes,
                "Labels": image.labels,
                "Containers": image.containers,
            })
        })
        .collect();
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|container| {
            let record = &container.record;
            json!({
                "Id": record.id,
                "Names": [format!("/{}", record.name)],
                "Image": record.spec.image,
                "ImageID": record.image_id,
                "Command": record.process.args.join(" "),
                "Created": record.created_ns / 1_000_000_000,
                "SizeRw": container.bytes,
                "SizeRootFs": container.bytes,
                "State": record.state.phase.as_str(),
                "Status": record.state.phase.as_str(),
                "Labels": record.spec.labels,
                "Ports": [],
                "HostConfig": {"NetworkMode": record.spec.network_name},
                "NetworkSettings": {"Networks": {}},
                "Mounts": [],
            })
        })
        .collect();
    let volumes: Vec<Value> = usage
        .volumes
        .iter()
        .map(|volume| {
            json!({
                "Name": volume.record.name,
                "Driver": "local",
                "Mountpoint": request.engine.volume_path(&volume.record.name),
                "CreatedAt": time::rfc3339(volume.record.created_ns),
                "Labels": volume.record.labels,
                "Options": volume.record.options,
                "Scope": "local",
                "UsageData": {"Size": volume.bytes, "RefCount": volume.users},
            })
        })
        .collect();
    Ok(reply::json(&json!({
        "LayersSize": usage.layers_bytes,
        "Images": images,
        "Containers": containers,
        "Volumes": volumes,
        "BuildCache": [],
        "BuilderSize": 0,
    })))
}

/// `POST /auth`
#[must_use]
pub fn no_auth() -> ApiError {
    ApiError::new(
        ErrorKind::Unsupported,
        "logging in to a registry is not supported yet",
    )
}

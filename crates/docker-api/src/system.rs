//! The engine as a whole.

use crate::body::Reply;
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{NEWEST, OLDEST, Request};
use gamut_image::RegistrySettings;
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

fn mirrors(registries: &RegistrySettings, registry: &str) -> Vec<String> {
    let mut all = registries.all_mirrors();
    let own = all.remove(registry).or_else(|| all.remove("*"));
    own.unwrap_or_default()
}

fn insecure_networks(registries: &RegistrySettings) -> Vec<String> {
    let named = registries.insecure();
    ["::1/128", "127.0.0.0/8"]
        .into_iter()
        .map(str::to_owned)
        .chain(named.into_iter().filter(|name| name.contains('/')))
        .collect()
}

/// Docker Hub, and every registry that the administrator says something about.
fn index_configurations(registries: &RegistrySettings) -> Value {
    let insecure = registries.insecure();
    let named = insecure.iter().filter(|name| !name.contains('/')).cloned();
    let mut names: Vec<String> = vec!["docker.io".to_owned()];
    names.extend(named);
    names.extend(registries.all_mirrors().into_keys());
    names.retain(|name| name != "*");
    names
        .into_iter()
        .map(|name| {
            let value = json!({
                "Name": name,
                "Mirrors": mirrors(registries, &name),
                "Secure": !insecure.contains(&name),
                "Official": name == "docker.io",
            });
            (name, value)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// `GET /info`
pub async fn info(request: Request) -> Result<Response, ApiError> {
    let (info, registries) = request
        .blocking(|engine, _| Ok((engine.info()?, engine.registry_settings())))
        .await?;
    // What is wrong with the file is told to those who need it.
    let registries = registries.unwrap_or_default();
    let host = &info.host;
    let runtimes: BTreeMap<&str, Value> = info
        .levels
        .iter()
        .map(|level| (level.runtime_name(), json!({"path": "gamut-supervisor"})))
        .collect();
    let mut value = json!({
        "ID": request.engine.id(),
        "Containers": info.running + info.paused + info.stopped,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": request.engine.snapshotter().name(),
        "DriverStatus": [["Backing Filesystem", info.backing_filesystem], ["Isolation Levels", info.levels.iter().map(|level| level.as_str()).collect::<Vec<_>>().join(", ")]],
        "SystemStatus": Value::Null,
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": Value::Null, "Log": gamut_engine::logging::DRIVERS},
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
        "LoggingDriver": request.engine.options().log.driver,
        "CgroupDriver": if info.without_groups.is_some() { "none" } else { "cgroupfs" },
        "CgroupVersion": info.cgroup_version.to_string(),
        "NEventsListener": request.engine.events().listeners(),
        "KernelVersion": host.kernel_version,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.operating_system_version,
        "OSType": "linux",
        "Architecture": host.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": insecure_networks(&registries),
            "IndexConfigs": index_configurations(&registries),
            "Mirrors": mirrors(&registries, "docker.io"),
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
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": security_options(&info),
        "Warnings": info.warnings,
        "FirewallBackend": {"Driver": "nftables"},
    });
    crate::compat::info(request.version, &mut value);
    Ok(reply::json(&value))
}

fn security_options(info: &gamut_engine::system::info::Info) -> Vec<&'static str> {
    let mut options = vec!["name=seccomp,profile=builtin", "name=cgroupns"];
    if info.apparmor {
        options.insert(0, "name=apparmor");
    }
    if info.rootless {
        options.push("name=rootless");
    }
    options
}

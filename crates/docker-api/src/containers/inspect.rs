//! `GET /containers/{id}/json`: the engine's words to Docker's.

use super::ports::{bindings, port_key};
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_engine::Engine;
use gamut_engine::container::oci;
use gamut_engine::container::record::{ContainerRecord, MountKind, Phase};
use gamut_engine::container::spec::{
    ContainerSpec, IpcMode, MountSource, NamespaceMode, NetworkMode, RestartPolicy,
};
use gamut_engine::snapshotter::Snapshotter;
use gamut_spec::time;
use serde_json::{Map, Value, json};

/// `GET /containers/{id}/json`
pub async fn inspect(request: Request, name: &str) -> Result<Response, ApiError> {
    let (with_size, version) = (request.flag("size"), request.version);
    let name = name.to_owned();
    let value = request
        .blocking(move |engine, _| {
            let record = engine.container(&name)?;
            let mut value = describe(engine, &record);
            if with_size {
                let (own, total) = engine.container_sizes(&record);
                value["SizeRw"] = json!(own);
                value["SizeRootFs"] = json!(total);
            }
            crate::compat::container(version, &mut value);
            Ok(value)
        })
        .await?;
    Ok(reply::json(&value))
}

fn describe(engine: &Engine, record: &ContainerRecord) -> Value {
    let directory = engine.container_directory(&record.id);
    let etc = |name: &str| match record.spec.network {
        NetworkMode::Container(_) => String::new(),
        _ => directory.join(name).to_string_lossy().into_owned(),
    };
    let (path, arguments) = record
        .process
        .args
        .split_first()
        .map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    // Docker tells of the files of this driver only.
    let log_path = if record.spec.log.driver == "json-file" {
        engine
            .container_log_path(&record.id)
            .to_string_lossy()
            .into_owned()
    } else {
        String::new()
    };
    json!({
        "Id": record.id,
        "Created": time::rfc3339(record.created_ns),
        "Path": path,
        "Args": arguments,
        "State": state(record),
        "Image": record.image_id,
        "ResolvConfPath": etc("resolv.conf"),
        "HostnamePath": etc("hostname"),
        "HostsPath": etc("hosts"),
        "LogPath": log_path,
        "Name": format!("/{}", record.name),
        "RestartCount": record.state.restart_count,
        "Driver": engine.snapshotter().name(),
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": engine.apparmor_profile(record),
        "ExecIDs": Value::Null,
        "HostConfig": host_config(record),
        "GraphDriver": {
            "Name": engine.snapshotter().name(),
            "Data": match engine.snapshotter() {
                Snapshotter::Overlay => json!({
                    "UpperDir": directory.join("upper"),
                    "WorkDir": directory.join("work"),
                }),
                Snapshotter::Copy => json!({"RootDir": directory.join("rootfs")}),
            },
        },
        "Isolation": record.level.as_str(),
        "Machine": engine.machine_of(record).unwrap_or_default(),
        "Mounts": mounts(record),
        "Config": config(record),
        "NetworkSettings": network_settings(engine, record),
    })
}

fn state(record: &ContainerRecord) -> Value {
    let state = &record.state;
    let exit = state.exit;
    let live = state.phase.is_live();
    let mut value = json!({
        "Status": state.phase.as_str(),
        "Running": live,
        "Paused": state.phase == Phase::Paused,
        "Restarting": state.phase == Phase::Restarting,
        "OOMKilled": exit.is_some_and(|exit| exit.out_of_memory),
        "Dead": state.phase == Phase::Dead,
        "Pid": state.pid,
        "ExitCode": if live && state.phase != Phase::Restarting { 0 } else { exit.map_or(0, |exit| exit.code) },
        "Error": state.error,
        "StartedAt": time::rfc3339(state.started_ns),
        "FinishedAt": time::rfc3339(exit.map_or(0, |exit| exit.finished_ns)),
    });
    if let Some(health) = &state.health {
        value["Health"] = super::health::describe(health);
    }
    value
}

fn empty_objects(keys: impl Iterator<Item = String>) -> Value {
    Value::Object(keys.map(|key| (key, json!({}))).collect())
}

fn or_null(value: Value) -> Value {
    let empty =
        value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    if empty { Value::Null } else { value }
}

fn config(record: &ContainerRecord) -> Value {
    let spec = &record.spec;
    let (entrypoint, command) = record
        .process
        .args
        .split_at_checked(record.process.entrypoint_length)
        .unwrap_or((&[], &record.process.args));
    let (stdin, stdout, stderr) = spec.attach;
    let mut value = json!({
        "Hostname": oci::hostname(record),
        "Domainname": spec.domainname,
        "User": record.process.user,
        "AttachStdin": stdin,
        "AttachStdout": stdout,
        "AttachStderr": stderr,
        "Tty": spec.terminal,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": environment(record),
        "Cmd": or_null(json!(command)),
        "Image": spec.image,
        "Volumes": or_null(empty_objects(spec.anonymous_volumes.iter().cloned())),
        "WorkingDir": record.process.working_directory,
        "Entrypoint": or_null(json!(entrypoint)),
        "OnBuild": Value::Null,
        "Labels": spec.labels,
    });
    if !spec.exposed_ports.is_empty() {
        value["ExposedPorts"] =
            empty_objects(spec.exposed_ports.iter().map(|port| port_key(*port)));
    }
    if let Some(check) = &spec.healthcheck {
        value["Healthcheck"] = super::health::describe_check(check);
    }
    if !spec.stop_signal.is_empty() {
        value["StopSignal"] = json!(spec.stop_signal);
    }
    if let Some(seconds) = spec.stop_timeout_seconds {
        value["StopTimeout"] = json!(seconds);
    }
    if let Some(mac) = &spec.mac_address {
        value["MacAddress"] = json!(mac);
    }
    value
}

/// Name and largest number of retries.
#[must_use]
pub fn restart_policy(policy: RestartPolicy) -> (&'static str, u32) {
    match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(retries) => ("on-failure", retries),
    }
}

fn namespace_mode(mode: &NamespaceMode, private: &str) -> String {
    match mode {
        NamespaceMode::Private => private.to_owned(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Container(name) => format!("container:{name}"),
    }
}

fn ipc_mode(mode: &IpcMode) -> String {
    match mode {
        IpcMode::Private => "private".to_owned(),
        IpcMode::Shareable => "shareable".to_owned(),
        IpcMode::None => "none".to_owned(),
        IpcMode::Host => "host".to_owned(),
        IpcMode::Container(name) => format!("container:{name}"),
    }
}

/// The runtime as it was asked for, or that of the container's level.
fn runtime(record: &ContainerRecord) -> &str {
    match record.spec.runtime.as_str() {
        "" => record.level.runtime_name(),
        asked => asked,
    }
}

/// The word for isolation that was asked for, as far as it is one of Docker's; what the level is
/// stands beside `Machine`.
fn isolation(record: &ContainerRecord) -> &str {
    match record.spec.isolation.as_str() {
        "default" => "default",
        _ => "",
    }
}

/// A bare `NAME` in what was asked for takes a variable of the image away; it is shown.
fn environment(record: &ContainerRecord) -> Vec<&str> {
    let bare = record.spec.environment.iter();
    let bare = bare.filter(|entry| !entry.contains('='));
    let all = record.process.environment.iter().chain(bare);
    all.map(String::as_str).collect()
}

fn host_config(record: &ContainerRecord) -> Value {
    let spec = &record.spec;
    let limits = &spec.resources;
    let (policy, retries) = restart_policy(spec.restart);
    let binds: Vec<&str> = spec
        .mounts
        .iter()
        .map(|mount| mount.bind_text.as_str())
        .filter(|text| !text.is_empty())
        .collect();
    let tmpfs: Map<String, Value> = spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Tmpfs { options } if mount.mount_text.is_empty() => {
                Some((mount.destination.clone(), json!(options)))
            }
            _ => None,
        })
        .collect();
    let network_name = network_mode(spec);
    let links: Vec<String> = spec
        .links
        .iter()
        .map(|link| {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            format!("/{name}:/{}/{alias}", record.name)
        })
        .collect();
    let links = or_null(json!(links));
    let (rows, columns) = spec.console_size.unwrap_or((0, 0));
    let mut value = json!({
        "Binds": or_null(json!(binds)),
        "ContainerIDFile": "",
        "LogConfig": {"Type": spec.log.driver, "Config": spec.log.options},
        "NetworkMode": network_name,
        "PortBindings": bindings(spec.published_ports.iter()),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": retries},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": spec.volume_driver,
        "VolumesFrom": or_null(json!(spec.volumes_from)),
        "ConsoleSize": [rows, columns],
        "CapAdd": or_null(json!(spec.capabilities_add)),
        "CapDrop": or_null(json!(spec.capabilities_drop)),
        "CgroupnsMode": namespace_mode(&spec.cgroup_namespace_mode, "private"),
        "Dns": spec.dns,
        "DnsOptions": spec.dns_options,
        "DnsSearch": spec.dns_search,
        "ExtraHosts": or_null(json!(spec.extra_hosts)),
        "GroupAdd": or_null(json!(spec.additional_groups)),
        "IpcMode": ipc_mode(&spec.ipc_mode),
        "Cgroup": "",
        "Links": links,
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "PidMode": namespace_mode(&spec.pid_mode, ""),
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.readonly_root,
        "SecurityOpt": or_null(json!(spec.security_options)),
        "UTSMode": namespace_mode(&spec.uts_mode, ""),
        "UsernsMode": spec.user_namespace.to_string(),
        "ShmSize": spec.shm_size_bytes.unwrap_or(64 << 20),
        "Runtime": runtime(record),
        // Of Docker's words only those of Windows; ours stands beside `Machine`.
        "Isolation": isolation(record),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory_bytes.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CgroupParent": spec.cgroup_parent,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpuRealtimePeriod": limits.cpu_realtime_period_us.unwrap_or(0),
        "CpuRealtimeRuntime": limits.cpu_realtime_runtime_us.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "Devices": spec.devices.iter().map(|device| json!({
            "PathOnHost": device.host_path,
            "PathInContainer": device.container_path,
            "CgroupPermissions": device.access,
        })).collect::<Vec<_>>(),
        "DeviceCgroupRules": or_null(json!(spec.device_cgroup_rules)),
        "DeviceRequests": Value::Null,
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwap": limits.memory_swap_bytes.unwrap_or_else(|| {
            limits.memory_bytes.map_or(0, |limit| i64::try_from(limit.saturating_mul(2)).unwrap_or(-1))
        }),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids_limit,
        "Ulimits": spec.ulimits.iter().map(|limit| json!({
            "Name": limit.name, "Hard": limit.hard, "Soft": limit.soft,
        })).collect::<Vec<_>>(),
    });
    let per_device =
        |key: &str,
         field: &str,
         pick: &dyn Fn(&gamut_engine::container::spec::BlkioDevice) -> Option<u64>| {
            let list: Vec<Value> = limits
                .blkio_devices
                .iter()
                .filter_map(|device| pick(device).map(|n| json!({"Path": device.path, field: n})))
                .collect();
            (key.to_owned(), json!(list))
        };
    let lists = [
        per_device("BlkioWeightDevice", "Weight", &|d| d.weight.map(u64::from)),
        per_device("BlkioDeviceReadBps", "Rate", &|d| d.read_bytes_per_second),
        per_device("BlkioDeviceWriteBps", "Rate", &|d| d.write_bytes_per_second),
        per_device("BlkioDeviceReadIOps", "Rate", &|d| {
            d.read_operations_per_second
        }),
        per_device("BlkioDeviceWriteIOps", "Rate", &|d| {
            d.write_operations_per_second
        }),
    ];
    for (key, list) in lists {
        value[key] = list;
    }
    if !tmpfs.is_empty() {
        value["Tmpfs"] = Value::Object(tmpfs);
    }
    if !spec.annotations.is_empty() {
        value["Annotations"] = json!(spec.annotations);
    }
    let own_mounts = host_config_mounts(spec);
    if !own_mounts.is_empty() {
        value["Mounts"] = json!(own_mounts);
    }
    value["MaskedPaths"] = paths(spec, spec.masked_paths.as_ref(), &oci::MASKED_PATHS);
    value["ReadonlyPaths"] = paths(spec, spec.readonly_paths.as_ref(), &oci::READONLY_PATHS);
    // Of Windows.
    for key in [
        "CpuCount",
        "CpuPercent",
        "IOMaximumIOps",
        "IOMaximumBandwidth",
    ] {
        value[key] = json!(0);
    }
    if spec.init {
        value["Init"] = json!(true);
    }
    if !spec.sysctls.is_empty() {
        value["Sysctls"] = json!(spec.sysctls);
    }
    value
}

/// What `NetworkMode` says: the default is told by its name.
#[must_use]
pub fn network_mode(spec: &ContainerSpec) -> &str {
    match spec.network_name.as_str() {
        "" | "default" => "bridge",
        name => name,
    }
}

/// Paths as they are hidden or made read-only: the default unless told otherwise.
fn paths(spec: &ContainerSpec, asked: Option<&Vec<String>>, default: &[&str]) -> Value {
    match asked {
        Some(paths) => json!(paths),
        None if spec.privileged => Value::Null,
        None => json!(default),
    }
}

/// Mounts given by `--mount`, as they were given.
fn host_config_mounts(spec: &ContainerSpec) -> Vec<Value> {
    spec.mounts
        .iter()
        .filter(|mount| mount.bind_text.is_empty())
        .filter_map(|mount| {
            if !mount.mount_text.is_empty() {
                return serde_json::from_str(&mount.mount_text).ok();
            }
            // Records of earlier versions do not hold it.
            let (kind, source) = match &mount.source {
                MountSource::Bind { path, .. } => ("bind", path.as_str()),
                MountSource::Volume { name, .. } => ("volume", name.as_str()),
                MountSource::Tmpfs { .. } => return None,
            };
            let target = &mount.destination;
            Some(json!({"Type": kind, "Source": source, "Target": target, "ReadOnly": mount.readonly}))
        })
        .collect()
}

/// The mounts as they are resolved.
#[must_use]
pub fn mounts(record: &ContainerRecord) -> Vec<Value> {
    record
        .mounts
        .iter()
        .map(|mount| {
            let mut value = json!({
                "Type": mount.kind.as_str(),
                "Source": mount.source,
                "Destination": mount.destination,
                "Mode": mount.mode,
                "RW": !mount.readonly,
                "Propagation": "",
            });
            match mount.kind {
                MountKind::Volume => {
                    value["Name"] = json!(mount.volume);
                    value["Driver"] = json!("local");
                }
                MountKind::Bind => {
                    value["Propagation"] = json!(if mount.propagation.is_empty() {
                        "rprivate"
                    } else {
                        mount.propagation.as_str()
                    });
                }
                MountKind::Tmpfs => {}
            }
            value
        })
        .collect()
}

fn network_settings(engine: &Engine, record: &ContainerRecord) -> Value {
    let mut ports = bindings(record.published());
    if record.state.phase.is_live() {
        for port in &record.spec.exposed_ports {
            if let Some(object) = ports.as_object_mut() {
                object.entry(port_key(*port)).or_insert(Value::Null);
            }
        }
    }
    let networks = super::endpoints::networks(engine, record);
    let on_bridge = networks.get("bridge").cloned().unwrap_or_else(|| json!({}));
    let of = |key: &str| on_bridge.get(key).cloned().unwrap_or_else(|| json!(""));
    let sandbox_key = if record.state.pid == 0 {
        String::new()
    } else {
        format!("/proc/{}/ns/net", record.state.pid)
    };
    json!({
        "Bridge": "",
        "SandboxID": if record.state.phase.is_live() { record.id.as_str() } else { "" },
        "SandboxKey": sandbox_key,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports,
        "SecondaryIPAddresses": Value::Null,
        "SecondaryIPv6Addresses": Value::Null,
        "EndpointID": of("EndpointID"),
        "Gateway": of("Gateway"),
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": of("IPAddress"),
        "IPPrefixLen": on_bridge.get("IPPrefixLen").cloned().unwrap_or_else(|| json!(0)),
        "IPv6Gateway": "",
        "MacAddress": of("MacAddress"),
        "Networks": networks,
    })
}

//! `POST /containers/create`: Docker's words to the engine's.

use super::{mounts, ports};
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use gamut_engine::container::spec::{
    BlkioDevice, ContainerSpec, DeviceMapping, EndpointSpec, IpcMode, LogSpec, NamespaceMode,
    NetworkMode, ResourceSpec, RestartPolicy, Ulimit,
};
use gamut_spec::error::ErrorKind;
use gamut_spec::isolation::IsolationLevel;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// `null` is the default.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of words; old clients send one string.
pub fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(
        Option::<Words>::deserialize(deserializer)?.map(|words| match words {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        }),
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    #[serde(deserialize_with = "null_as_default")]
    hostname: String,
    #[serde(deserialize_with = "null_as_default")]
    domainname: String,
    #[serde(deserialize_with = "null_as_default")]
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(deserialize_with = "null_as_default")]
    exposed_ports: BTreeMap<String, Value>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    #[serde(deserialize_with = "null_as_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "words")]
    cmd: Option<Vec<String>>,
    healthcheck: Option<super::health::WireHealthcheck>,
    #[serde(deserialize_with = "null_as_default")]
    image: String,
    #[serde(deserialize_with = "null_as_default")]
    volumes: BTreeMap<String, Value>,
    #[serde(deserialize_with = "null_as_default")]
    working_dir: String,
    #[serde(deserialize_with = "words")]
    entrypoint: Option<Vec<String>>,
    network_disabled: Option<bool>,
    #[serde(deserialize_with = "null_as_default")]
    mac_address: String,
    #[serde(deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    stop_signal: String,
    stop_timeout: Option<i64>,
    /// Where docker-py puts it.
    #[serde(deserialize_with = "null_as_default")]
    runtime: String,
    #[serde(deserialize_with = "null_as_default")]
    host_config: WireHostConfig,
    #[serde(deserialize_with = "null_as_default")]
    networking_config: WireNetworkingConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireNetworkingConfig {
    #[serde(deserialize_with = "null_as_default")]
    endpoints_config: BTreeMap<String, Option<super::endpoints::WireEndpoint>>,
}

/// Limits, as they stand in `HostConfig` and in updates.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WireResources {
    cpu_shares: Option<i64>,
    memory: Option<i64>,
    nano_cpus: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    cgroup_parent: String,
    blkio_weight: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    blkio_weight_device: Vec<WireBlkio>,
    #[serde(deserialize_with = "null_as_default")]
    blkio_device_read_bps: Vec<WireBlkio>,
    #[serde(deserialize_with = "null_as_default")]
    blkio_device_write_bps: Vec<WireBlkio>,
    #[serde(rename = "BlkioDeviceReadIOps", deserialize_with = "null_as_default")]
    blkio_device_read_iops: Vec<WireBlkio>,
    #[serde(rename = "BlkioDeviceWriteIOps", deserialize_with = "null_as_default")]
    blkio_device_write_iops: Vec<WireBlkio>,
    cpu_period: Option<i64>,
    cpu_quota: Option<i64>,
    // Go's decoder does not tell upper from lower case, which docker-py counts on.
    #[serde(alias = "CPURealtimePeriod")]
    cpu_realtime_period: Option<i64>,
    #[serde(alias = "CPURealtimeRuntime")]
    cpu_realtime_runtime: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    cpuset_cpus: String,
    #[serde(deserialize_with = "null_as_default")]
    cpuset_mems: String,
    #[serde(deserialize_with = "null_as_default")]
    devices: Vec<WireDevice>,
    #[serde(deserialize_with = "null_as_default")]
    device_cgroup_rules: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    device_requests: Vec<Value>,
    memory_reservation: Option<i64>,
    memory_swap: Option<i64>,
    memory_swappiness: Option<i64>,
    oom_kill_disable: Option<bool>,
    init: Option<bool>,
    pids_limit: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    ulimits: Vec<WireUlimit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireBlkio {
    path: String,
    weight: Option<u16>,
    rate: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireDevice {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireUlimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// `{"Name": "on-failure", "MaximumRetryCount": 3}`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WireRestartPolicy {
    /// Name of the policy.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    maximum_retry_count: i64,
}

impl WireRestartPolicy {
    /// In the engine's words.
    ///
    /// # Errors
    /// If there is no such policy.
    pub fn into_domain(self) -> Result<RestartPolicy, ApiError> {
        let retries = self.maximum_retry_count;
        if retries != 0 && self.name != "on-failure" {
            return Err(ApiError::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        match self.name.as_str() {
            "" | "no" => Ok(RestartPolicy::No),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            "on-failure" => u32::try_from(retries)
                .map(RestartPolicy::OnFailure)
                .map_err(|_| {
                    ApiError::invalid(
                        "invalid restart policy: maximum retry count cannot be negative",
                    )
                }),
            other => Err(ApiError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', \
                 'on-failure', or 'unless-stopped'"
            ))),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireHostConfig {
    #[serde(flatten)]
    resources: WireResources,
    #[serde(deserialize_with = "null_as_default")]
    binds: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    log_config: WireLogConfig,
    #[serde(deserialize_with = "null_as_default")]
    network_mode: String,
    #[serde(deserialize_with = "null_as_default")]
    port_bindings: BTreeMap<String, Option<Vec<ports::WirePortBinding>>>,
    #[serde(deserialize_with = "null_as_default")]
    restart_policy: WireRestartPolicy,
    auto_remove: bool,
    #[serde(deserialize_with = "null_as_default")]
    volume_driver: String,
    #[serde(deserialize_with = "null_as_default")]
    volumes_from: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    mounts: Vec<Value>,
    console_size: Option<(u16, u16)>,
    #[serde(deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    cap_add: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    cap_drop: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    cgroupns_mode: String,
    #[serde(deserialize_with = "null_as_default")]
    dns: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    dns_options: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    dns_search: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    extra_hosts: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    group_add: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    ipc_mode: String,
    #[serde(deserialize_with = "null_as_default")]
    links: Vec<String>,
    oom_score_adj: Option<i32>,
    #[serde(deserialize_with = "null_as_default")]
    pid_mode: String,
    privileged: bool,
    publish_all_ports: bool,
    readonly_rootfs: bool,
    #[serde(deserialize_with = "null_as_default")]
    security_opt: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    storage_opt: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode", deserialize_with = "null_as_default")]
    uts_mode: String,
    #[serde(deserialize_with = "null_as_default")]
    userns_mode: String,
    shm_size: Option<i64>,
    #[serde(deserialize_with = "null_as_default")]
    sysctls: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    runtime: String,
    #[serde(deserialize_with = "null_as_default")]
    isolation: String,
    masked_paths: Option<Vec<String>>,
    readonly_paths: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireLogConfig {
    #[serde(rename = "Type", deserialize_with = "null_as_default")]
    driver: String,
    #[serde(deserialize_with = "null_as_default")]
    config: BTreeMap<String, String>,
}

pub(super) fn unsupported(what: &str) -> ApiError {
    ApiError::new(
        ErrorKind::Unsupported,
        format!("{what} is not supported yet"),
    )
}

/// Before this version, `platform` means nothing.
const PLATFORM_SINCE: ApiVersion = ApiVersion(1, 41);

/// `POST /containers/create`
pub async fn create(mut request: Request) -> Result<Response, ApiError> {
    let mut body: Value = request.json().await?.ok_or_else(|| {
        ApiError::invalid("config cannot be empty in order to create a container")
    })?;
    let warnings = super::requested::understand(request.version, &mut body)?;
    let body: Body = serde_json::from_value(body)
        .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))?;
    let platform = request
        .text("platform")
        .filter(|text| !text.is_empty() && request.version >= PLATFORM_SINCE)
        .map(str::to_owned);
    let name = request.text("name").map(str::to_owned);
    let mut spec = into_domain(body)?;
    spec.platform = platform;
    let mut made = request
        .blocking(move |engine, caller| engine.create_container(caller, name.as_deref(), spec))
        .await
        .map_err(super::requested::only_images_are_not_found)?;
    made.warnings.extend(warnings);
    Ok(reply::created(
        &json!({"Id": made.id, "Warnings": made.warnings}),
    ))
}

fn into_domain(body: Body) -> Result<ContainerSpec, ApiError> {
    let mut host = body.host_config;
    if host.runtime.is_empty() {
        host.runtime = body.runtime;
    }
    if !host.storage_opt.is_empty() {
        return Err(unsupported("--storage-opt"));
    }
    let healthcheck = body
        .healthcheck
        .map(super::health::WireHealthcheck::into_domain)
        .transpose()?;
    let (network, network_name) = network_mode(&host.network_mode, body.network_disabled)?;
    let endpoints = endpoints(body.networking_config, &network, &network_name)?;
    let mounts = mounts::into_domain(&host.binds, host.mounts, host.tmpfs)?;
    let mut exposed_ports = BTreeSet::new();
    for text in body.exposed_ports.keys() {
        exposed_ports.insert(ports::parse_port(text)?);
    }
    let mac_address = Some(body.mac_address).filter(|mac| !mac.is_empty());
    let level = level(&host.runtime, &host.isolation, &host.annotations)?;
    let init = host.resources.init.unwrap_or(false);
    let cgroup_parent = host.resources.cgroup_parent.clone();
    if !host.resources.device_requests.is_empty() {
        return Err(unsupported("a device request (--gpus)"));
    }
    let devices = host.resources.devices.iter().map(device).collect();
    let ulimits = host.resources.ulimits.iter().map(ulimit).collect();
    let device_cgroup_rules = host.resources.device_cgroup_rules.clone();
    Ok(ContainerSpec {
        healthcheck,
        volumes_from: host.volumes_from,
        volume_driver: host.volume_driver,
        image: body.image,
        level,
        runtime: host.runtime,
        isolation: host.isolation,
        entrypoint: body.entrypoint,
        command: body.cmd,
        environment: body.env,
        working_directory: body.working_dir,
        user: body.user,
        additional_groups: host.group_add,
        hostname: body.hostname,
        domainname: body.domainname,
        labels: body.labels,
        annotations: host.annotations,
        terminal: body.tty,
        console_size: host.console_size.filter(|size| *size != (0, 0)),
        open_stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        attach: (body.attach_stdin, body.attach_stdout, body.attach_stderr),
        stop_signal: body.stop_signal,
        stop_timeout_seconds: body.stop_timeout,
        exposed_ports,
        published_ports: ports::published(host.port_bindings)?,
        publish_all: host.publish_all_ports,
        anonymous_volumes: body.volumes.into_keys().collect(),
        mounts,
        network,
        network_name,
        endpoints,
        links: links(&host.links),
        address: None,
        mac_address,
        dns: host.dns,
        dns_search: host.dns_search,
        dns_options: host.dns_options,
        extra_hosts: host.extra_hosts,
        restart: host.restart_policy.into_domain()?,
        auto_remove: host.auto_remove,
        privileged: host.privileged,
        capabilities_add: host.cap_add,
        capabilities_drop: host.cap_drop,
        security_options: host.security_opt,
        readonly_root: host.readonly_rootfs,
        init,
        devices,
        device_cgroup_rules,
        sysctls: host.sysctls,
        ulimits,
        resources: host.resources.into_domain()?,
        oom_score_adj: host.oom_score_adj.filter(|adjustment| *adjustment != 0),
        shm_size_bytes: shm_size(host.shm_size)?,
        pid_mode: namespace_mode("PID", &host.pid_mode)?,
        ipc_mode: ipc_mode(&host.ipc_mode)?,
        uts_mode: namespace_mode("UTS", &host.uts_mode)?,
        user_namespace: host.userns_mode.parse()?,
        cgroup_namespace_mode: namespace_mode("cgroup namespace", &host.cgroupns_mode)?,
        cgroup_parent,
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        log: log_config(host.log_config),
        platform: None,
    })
}

fn shm_size(size: Option<i64>) -> Result<Option<u64>, ApiError> {
    match size.unwrap_or(0) {
        0 => Ok(None),
        size => u64::try_from(size)
            .map(Some)
            .map_err(|_| ApiError::invalid("SHM size can not be less than 0")),
    }
}

fn network_mode(text: &str, disabled: Option<bool>) -> Result<(NetworkMode, String), ApiError> {
    if disabled == Some(true) {
        return Ok((NetworkMode::None, "none".to_owned()));
    }
    let mode = match text {
        "" | "default" | "bridge" => NetworkMode::Bridge,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        other => match other.strip_prefix("container:") {
            Some(name) if !name.is_empty() => NetworkMode::Container(name.to_owned()),
            Some(_) => {
                return Err(ApiError::invalid(
                    "Invalid network mode: invalid container format container:<name|id>",
                ));
            }
            None => NetworkMode::Network(other.to_owned()),
        },
    };
    let name = if text.is_empty() { "default" } else { text };
    Ok((mode, name.to_owned()))
}

/// Of a network that does not exist the engine tells. Where no network was named, the only one
/// described is meant.
fn endpoints(
    config: WireNetworkingConfig,
    mode: &NetworkMode,
    name: &str,
) -> Result<Vec<EndpointSpec>, ApiError> {
    let is_own = |wanted: &str| {
        wanted == name || (*mode == NetworkMode::Bridge && matches!(wanted, "" | "default"))
    };
    let mut endpoints = Vec::new();
    for (wanted, settings) in config.endpoints_config {
        let name = if is_own(&wanted) && *mode == NetworkMode::Bridge {
            "bridge"
        } else {
            &wanted
        };
        endpoints.push(settings.unwrap_or_default().into_domain(name)?);
    }
    Ok(endpoints)
}

/// `/NAME:/CONTAINER/ALIAS`, as an answer has it, means `NAME:ALIAS`.
fn links(links: &[String]) -> Vec<String> {
    let plain = |link: &String| match link.split_once(':') {
        Some((name, alias)) => {
            let alias = alias.rsplit('/').next().unwrap_or(alias);
            format!("{}:{alias}", name.trim_start_matches('/'))
        }
        None => link.trim_start_matches('/').to_owned(),
    };
    links.iter().map(plain).collect()
}

fn ipc_mode(text: &str) -> Result<IpcMode, ApiError> {
    match text {
        "" | "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "none" => Ok(IpcMode::None),
        "host" => Ok(IpcMode::Host),
        other => match other.strip_prefix("container:") {
            Some(name) if !name.is_empty() => Ok(IpcMode::Container(name.to_owned())),
            _ => Err(ApiError::invalid(format!("invalid IPC mode: {other}"))),
        },
    }
}

fn namespace_mode(what: &str, text: &str) -> Result<NamespaceMode, ApiError> {
    match text {
        "" | "private" => Ok(NamespaceMode::Private),
        "host" => Ok(NamespaceMode::Host),
        other => match other.strip_prefix("container:") {
            Some(name) if !name.is_empty() && what == "PID" => {
                Ok(NamespaceMode::Container(name.to_owned()))
            }
            _ => Err(ApiError::invalid(format!("invalid {what} mode: {other}"))),
        },
    }
}

/// What the driver makes of its options is the engine's to say.
fn log_config(config: WireLogConfig) -> LogSpec {
    LogSpec::asked(&config.driver, config.config)
}

fn device(device: &WireDevice) -> DeviceMapping {
    DeviceMapping {
        host_path: device.path_on_host.clone(),
        container_path: if device.path_in_container.is_empty() {
            device.path_on_host.clone()
        } else {
            device.path_in_container.clone()
        },
        access: device.cgroup_permissions.clone(),
    }
}

fn ulimit(limit: &WireUlimit) -> Ulimit {
    Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    }
}

impl WireResources {
    /// In the engine's words. Zero means: nothing asked for.
    ///
    /// # Errors
    /// For negative numbers where there are none.
    pub fn into_domain(self) -> Result<ResourceSpec, ApiError> {
        fn positive(name: &str, value: Option<i64>) -> Result<Option<u64>, ApiError> {
            match value.unwrap_or(0) {
                0 => Ok(None),
                value => u64::try_from(value).map(Some).map_err(|_| {
                    ApiError::invalid(format!("invalid {name}: {value}: must not be negative"))
                }),
            }
        }
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let blkio_weight = match self.blkio_weight.unwrap_or(0) {
            0 => None,
            weight @ 10..=1000 => u16::try_from(weight).ok(),
            _ => {
                return Err(ApiError::invalid(
                    "Range of blkio weight is from 10 to 1000",
                ));
            }
        };
        let swappiness = match self.memory_swappiness.unwrap_or(-1) {
            -1 => None,
            value @ 0..=100 => u64::try_from(value).ok(),
            value => {
                return Err(ApiError::invalid(format!(
                    "Invalid value: {value}, valid memory swappiness range is 0-100"
                )));
            }
        };
        let mut blkio_devices = Vec::new();
        let mut add = |list: Vec<WireBlkio>, set: fn(&mut BlkioDevice, &WireBlkio)| {
            for wire in list {
                let mut device = BlkioDevice {
                    path: wire.path.clone(),
                    ..BlkioDevice::default()
                };
                set(&mut device, &wire);
                blkio_devices.push(device);
            }
        };
        add(self.blkio_weight_device, |device, wire| {
            device.weight = wire.weight;
        });
        add(self.blkio_device_read_bps, |device, wire| {
            device.read_bytes_per_second = wire.rate;
        });
        add(self.blkio_device_write_bps, |device, wire| {
            device.write_bytes_per_second = wire.rate;
        });
        add(self.blkio_device_read_iops, |device, wire| {
            device.read_operations_per_second = wire.rate;
        });
        add(self.blkio_device_write_iops, |device, wire| {
            device.write_operations_per_second = wire.rate;
        });
        Ok(ResourceSpec {
            cpu_shares: positive("CPU shares", self.cpu_shares)?,
            nano_cpus: positive("CPUs", self.nano_cpus)?,
            cpu_period_us: positive("CPU period", self.cpu_period)?,
            cpu_quota_us: self.cpu_quota.filter(|quota| *quota != 0),
            cpu_realtime_period_us: positive("real-time period", self.cpu_realtime_period)?,
            cpu_realtime_runtime_us: positive("real-time runtime", self.cpu_realtime_runtime)?,
            cpuset_cpus: text(self.cpuset_cpus),
            cpuset_mems: text(self.cpuset_mems),
            memory_bytes: positive("memory limit", self.memory)?,
            memory_reservation_bytes: positive("memory reservation", self.memory_reservation)?,
            memory_swap_bytes: self.memory_swap.filter(|swap| *swap != 0),
            memory_swappiness: swappiness,
            oom_kill_disable: self.oom_kill_disable.unwrap_or(false),
            pids_limit: self.pids_limit.filter(|limit| *limit != 0),
            blkio_weight,
            blkio_devices,
        })
    }
}

/// The annotation by which clients that know no isolation ask for a level.
const ISOLATION_ANNOTATION: &str = "dev.gamut.isolation";

/// The level that is asked for by `--runtime`, `--isolation` or an annotation; `None` leaves it to
/// the image.
fn level(
    runtime: &str,
    isolation: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Option<IsolationLevel>, ApiError> {
    let by_runtime = match runtime {
        "" => None,
        name => Some(IsolationLevel::from_runtime_name(name).ok_or_else(|| {
            ApiError::invalid(format!("unknown or invalid runtime name: {name}"))
        })?),
    };
    let word = |word: &str| match word {
        "" | "default" => Ok(None),
        word => word
            .parse::<IsolationLevel>()
            .map(Some)
            .map_err(|error| ApiError::invalid(error.to_string())),
    };
    let by_isolation = word(isolation)?;
    let annotation = annotations.get(ISOLATION_ANNOTATION);
    let by_annotation = word(annotation.map_or("", String::as_str))?;
    let mut asked = [by_runtime, by_isolation, by_annotation]
        .into_iter()
        .flatten();
    let first = asked.next();
    match asked.find(|other| Some(*other) != first) {
        Some(other) => Err(ApiError::invalid(format!(
            "conflicting options: isolation levels {} and {other}",
            first.map_or("", IsolationLevel::as_str)
        ))),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(body: Value) -> Result<ContainerSpec, ApiError> {
        into_domain(serde_json::from_value(body).unwrap())
    }

    #[test]
    fn a_typical_request() {
        let spec = spec(json!({
            "Image": "alpine", "Cmd": ["sh"], "Tty": true, "OpenStdin": true, "Env": null,
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "Binds": ["/a:/b:ro", "data:/c"], "NanoCpus": 500_000_000, "Memory": 67_108_864,
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
                "NetworkMode": "default", "Tmpfs": {"/run": "size=64m"}, "ConsoleSize": [24, 80],
            },
        }))
        .unwrap();
        assert_eq!(spec.command.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(spec.mounts.len(), 3);
        assert!(spec.mounts[0].readonly);
        assert_eq!(spec.published_ports[0].host_port, 8080);
        assert_eq!(spec.restart, RestartPolicy::OnFailure(3));
        assert_eq!(spec.resources.nano_cpus, Some(500_000_000));
        assert_eq!(spec.console_size, Some((24, 80)));
        assert_eq!(spec.network_name, "default");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for host in [
            json!({"Binds": ["relative:path"]}),
            json!({"Binds": ["/a:/b:what"]}),
            json!({"RestartPolicy": {"Name": "sometimes"}}),
            json!({"NetworkMode": "container:"}),
            json!({"PortBindings": {"99999/tcp": []}}),
            json!({"Memory": -5}),
            json!({"Runtime": "magic"}),
        ] {
            assert!(
                spec(json!({"Image": "x", "HostConfig": host})).is_err(),
                "{host}"
            );
        }
    }
}

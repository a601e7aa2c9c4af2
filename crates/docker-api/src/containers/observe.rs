//! Processes and use of resources of containers.

use crate::body;
use crate::error::ApiError;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request, blocking};
use bytes::Bytes;
use gamut_abi::resources::Limit;
use gamut_engine::system::observe::StatsSample;
use gamut_spec::time;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// `GET /containers/{id}/top`
pub async fn top(request: Request, name: &str) -> Result<Response, ApiError> {
    let ps_args = request.text("ps_args").unwrap_or_default().to_owned();
    let name = name.to_owned();
    let top = request
        .blocking(move |engine, caller| engine.processes(caller, &name, &ps_args))
        .await?;
    Ok(reply::json(
        &json!({"Titles": top.titles, "Processes": top.processes}),
    ))
}

/// Before this version, `one-shot` means nothing.
const ONE_SHOT_SINCE: ApiVersion = ApiVersion(1, 41);

/// `GET /containers/{id}/stats`: every second, or once.
pub async fn stats(request: Request, name: &str) -> Result<Response, ApiError> {
    let record = request.engine.container(name)?;
    // Nothing would be told by zeros.
    if let Some(reason) = &request.engine.options().without_groups {
        return Err(ApiError::new(
            gamut_spec::error::ErrorKind::Conflict,
            format!(
                "cannot measure container {}: it has no control group: {reason}",
                record.name
            ),
        ));
    }
    let stream = request.flag_or("stream", true);
    let one_shot = request.version >= ONE_SHOT_SINCE && request.flag("one-shot");
    let header = (record.id.clone(), format!("/{}", record.name));
    let (engine, caller) = (Arc::clone(&request.engine), request.caller.clone());
    let sample = move || {
        let id = record.id.clone();
        let (engine, caller) = (Arc::clone(&engine), caller.clone());
        async move {
            let sample = blocking(&engine, &caller, move |engine, caller| {
                engine.stats(caller, &id)
            });
            sample.await.ok()
        }
    };
    if !stream {
        let previous = if one_shot {
            None
        } else {
            let first = sample().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            first
        };
        let current = sample().await;
        return Ok(reply::json(&describe(
            &header,
            previous.as_ref(),
            current.as_ref(),
        )));
    }
    let (sender, reply) = body::stream();
    tokio::spawn(async move {
        let mut previous: Option<StatsSample> = None;
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = sender.closed() => return,
            }
            let current = sample().await;
            let value = describe(&header, previous.as_ref(), current.as_ref());
            if sender
                .send(Ok(Bytes::from(format!("{value}\n"))))
                .await
                .is_err()
            {
                return;
            }
            previous = current;
        }
    });
    Ok(reply::with_type(reply, "application/json"))
}

/// A container that does not run has zeros throughout, as dockerd tells it.
fn describe(
    header: &(String, String),
    previous: Option<&StatsSample>,
    current: Option<&StatsSample>,
) -> Value {
    let read = |sample: Option<&StatsSample>| time::rfc3339(sample.map_or(0, |s| s.time_ns));
    let mut value = json!({
        "read": read(current),
        "preread": read(previous),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(current),
        "precpu_stats": cpu(previous),
        "name": header.1,
        "id": header.0,
    });
    let Some(sample) = current else {
        for key in ["pids_stats", "blkio_stats", "memory_stats"] {
            value[key] = json!({});
        }
        return value;
    };
    let pids = &sample.cgroup.pids;
    let mut pids_stats = json!({"current": pids.current});
    if let Limit::Value(limit) = pids.limit {
        pids_stats["limit"] = json!(limit);
    }
    value["pids_stats"] = pids_stats;
    value["memory_stats"] = memory(sample);
    value["blkio_stats"] = blkio(sample);
    if !sample.networks.is_empty() {
        let networks: Map<String, Value> = sample
            .networks
            .iter()
            .map(|interface| {
                let counters = json!({
                    "rx_bytes": interface.rx_bytes,
                    "rx_packets": interface.rx_packets,
                    "rx_errors": interface.rx_errors,
                    "rx_dropped": interface.rx_dropped,
                    "tx_bytes": interface.tx_bytes,
                    "tx_packets": interface.tx_packets,
                    "tx_errors": interface.tx_errors,
                    "tx_dropped": interface.tx_dropped,
                });
                (interface.name.clone(), counters)
            })
            .collect();
        value["networks"] = Value::Object(networks);
    }
    value
}

fn cpu(sample: Option<&StatsSample>) -> Value {
    let Some(sample) = sample else {
        return json!({
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        });
    };
    let cpu = &sample.cgroup.cpu;
    let mut usage = json!({
        "total_usage": cpu.usage_ns,
        "usage_in_kernelmode": cpu.system_ns,
        "usage_in_usermode": cpu.user_ns,
    });
    if !cpu.per_cpu_ns.is_empty() {
        usage["percpu_usage"] = json!(cpu.per_cpu_ns);
    }
    json!({
        "cpu_usage": usage,
        "system_cpu_usage": sample.system_cpu_ns,
        "online_cpus": sample.online_cpus,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        },
    })
}

fn memory(sample: &StatsSample) -> Value {
    let memory = &sample.cgroup.memory;
    let details: Map<String, Value> = memory
        .details
        .iter()
        .map(|(name, number)| (name.clone(), json!(number)))
        .collect();
    let mut value = json!({
        "usage": memory.usage_bytes,
        "max_usage": memory.max_usage_bytes,
        "stats": details,
        "failcnt": memory.limit_failures,
    });
    value["limit"] = match memory.limit_bytes {
        Limit::Value(limit) => json!(limit.min(host_memory_bytes())),
        Limit::Max => json!(host_memory_bytes()),
    };
    value
}

/// Memory of the host in bytes.
fn host_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn blkio(sample: &StatsSample) -> Value {
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    for device in &sample.cgroup.io {
        let entry = |op: &str, value: u64| json!({"major": device.major, "minor": device.minor, "op": op, "value": value});
        bytes.push(entry("read", device.read_bytes));
        bytes.push(entry("write", device.write_bytes));
        operations.push(entry("read", device.read_operations));
        operations.push(entry("write", device.write_operations));
    }
    json!({
        "io_service_bytes_recursive": bytes,
        "io_serviced_recursive": operations,
        "io_queue_recursive": Value::Null,
        "io_service_time_recursive": Value::Null,
        "io_wait_time_recursive": Value::Null,
        "io_merged_recursive": Value::Null,
        "io_time_recursive": Value::Null,
        "sectors_recursive": Value::Null,
    })
}

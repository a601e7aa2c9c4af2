//! The default networks: `bridge`, `host` and `none`.

use crate::containers::inspect;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_engine::Engine;
use gamut_spec::error::ErrorKind;
use gamut_spec::time;
use serde_json::{Map, Value, json};

const NAMES: [&str; 3] = ["bridge", "host", "none"];

/// 64 hexadecimal digits that depend on nothing but the words.
fn stable_id(words: &[&str]) -> String {
    let mut id = String::with_capacity(64);
    for round in 0u64..4 {
        // FNV-1a, which is stable over builds; nothing rests on its quality.
        let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ round;
        for byte in words.iter().flat_map(|word| word.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        id.push_str(&format!("{hash:016x}"));
    }
    id
}

/// Id of a default network.
#[must_use]
pub fn id_of(name: &str) -> String {
    stable_id(&["network", name])
}

/// Id of a container's endpoint on a network.
#[must_use]
pub fn endpoint_id(container: &str, network: &str) -> String {
    stable_id(&["endpoint", container, network])
}

/// User-defined networks do not exist yet.
#[must_use]
pub fn not_yet() -> ApiError {
    ApiError::new(
        ErrorKind::Unsupported,
        "user-defined networks are not supported yet: use bridge, host, none or container:NAME",
    )
}

fn describe(engine: &Engine, name: &str, with_containers: bool) -> Value {
    let driver = if name == "none" { "null" } else { name };
    let mut ipam = json!([]);
    let mut options = json!({});
    if name == "bridge" {
        let network = engine.networking().network();
        ipam = json!([{
            "Subnet": network.subnet().to_string(),
            "Gateway": network.gateway().to_string(),
        }]);
        options = json!({
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            "com.docker.network.bridge.name": network.name(),
            "com.docker.network.driver.mtu": network.mtu().to_string(),
        });
    }
    let mut containers = Map::new();
    if with_containers {
        for record in engine.containers() {
            let here = inspect::network_name(&record.spec.network) == Some(name);
            if !here || !record.state.phase.is_live() {
                continue;
            }
            let lease = record.lease.as_ref();
            containers.insert(
                record.id.clone(),
                json!({
                    "Name": record.name,
                    "EndpointID": endpoint_id(&record.id, name),
                    "MacAddress": lease.map_or("", |lease| &lease.mac),
                    "IPv4Address": lease.map_or(String::new(), |lease| {
                        format!("{}/{}", lease.address, lease.prefix)
                    }),
                    "IPv6Address": "",
                }),
            );
        }
    }
    json!({
        "Name": name,
        "Id": id_of(name),
        "Created": time::rfc3339(engine.started_ns()),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": Value::Null, "Config": ipam},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options,
        "Labels": {},
    })
}

/// `GET /networks`
pub fn list(request: &Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(request)?;
    filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let no_labels = std::collections::BTreeMap::new();
    let list: Vec<Value> = NAMES
        .into_iter()
        .filter(|name| {
            let driver = if *name == "none" { "null" } else { name };
            filters.any("name", |wanted| name.contains(wanted.as_str()))
                && filters.any("id", |wanted| id_of(name).starts_with(wanted.as_str()))
                && filters.any("driver", |wanted| wanted == driver)
                && filters.any("scope", |wanted| wanted == "local")
                && filters.any("type", |wanted| wanted == "builtin")
                && filters.any("dangling", |wanted| {
                    !matches!(wanted.as_str(), "1" | "true")
                })
                && filters.match_labels(&no_labels)
        })
        .map(|name| describe(&request.engine, name, false))
        .collect();
    Ok(reply::json(&list))
}

/// `GET /networks/{id}`
pub fn inspect(request: &Request, wanted: &str) -> Result<Response, ApiError> {
    let found = NAMES
        .into_iter()
        .find(|name| *name == wanted || (wanted.len() >= 4 && id_of(name).starts_with(wanted)));
    match found {
        Some(name) => Ok(reply::json(&describe(&request.engine, name, true))),
        None => Err(ApiError::new(
            ErrorKind::NotFound,
            format!("network {wanted} not found"),
        )),
    }
}

/// `POST /networks/prune`: there is nothing to remove.
#[must_use]
pub fn prune(_request: &Request) -> Response {
    reply::json(&json!({"NetworksDeleted": Value::Null}))
}

//! Networks.

use crate::containers::create::null_as_default;
use crate::containers::endpoints::WireEndpoint;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::reply::{self, Response};
use crate::request::{ApiVersion, Request};
use gamut_engine::Engine;
use gamut_engine::networking::record::{Addresses, NetworkRecord, endpoint_id};
use gamut_engine::networking::verbs::{NetworkSpec, SubnetSpec};
use gamut_spec::error::ErrorKind;
use gamut_spec::time;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Before this version a list tells of containers, too.
const LIST_WITHOUT_CONTAINERS: ApiVersion = ApiVersion(1, 28);

/// One entry of `IPAM.Config`.
fn describe_addresses<Subnet: Display, Address: Display>(
    addresses: &Addresses<Subnet, Address>,
) -> Value {
    let mut one = json!({
        "Subnet": addresses.subnet.to_string(),
        "Gateway": addresses.gateway.to_string(),
    });
    if let Some(range) = &addresses.range {
        one["IPRange"] = json!(range.to_string());
    }
    if !addresses.auxiliary.is_empty() {
        let auxiliary = addresses.auxiliary.iter();
        let auxiliary = auxiliary.map(|(name, address)| (name.clone(), json!(address.to_string())));
        one["AuxiliaryAddresses"] = Value::Object(auxiliary.collect());
    }
    one
}

fn describe(engine: &Engine, record: &NetworkRecord, with_containers: bool) -> Value {
    let config: Vec<Value> = [
        record.addresses.as_ref().map(describe_addresses),
        record.addresses6.as_ref().map(describe_addresses),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut containers = Map::new();
    if with_containers {
        for (member, lease) in engine.network_members(record) {
            containers.insert(
                member.id.clone(),
                json!({
                    "Name": member.name,
                    "EndpointID": endpoint_id(&member.id, &record.name),
                    "MacAddress": lease.as_ref().map_or("", |lease| &lease.mac),
                    "IPv4Address": lease.as_ref().map_or(String::new(), |lease| {
                        format!("{}/{}", lease.address, lease.prefix)
                    }),
                    "IPv6Address": lease.as_ref().and_then(|lease| lease.ipv6).map_or(
                        String::new(),
                        |place| format!("{}/{}", place.address, place.prefix),
                    ),
                }),
            );
        }
    }
    json!({
        "Name": record.name,
        "Id": record.id,
        "Created": time::rfc3339(record.created_ns),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": true,
        "EnableIPv6": record.addresses6.is_some(),
        "IPAM": {"Driver": "default", "Options": record.ipam_options, "Config": if record.addresses.is_none() { Value::Null } else { json!(config) }},
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": record.options,
        "Labels": record.labels,
    })
}

/// `GET /networks`
pub fn list(request: &Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(request)?;
    filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let dangling = filters.flag("dangling")?;
    let is_type = |word: &String| matches!(word.as_str(), "builtin" | "custom");
    if let Some(word) = filters.values("type").iter().find(|word| !is_type(word)) {
        return Err(ApiError::invalid(format!(
            "invalid filter: 'type'='{word}'"
        )));
    }
    let engine = &request.engine;
    let with_containers = request.version < LIST_WITHOUT_CONTAINERS;
    let list: Vec<Value> = engine
        .networks()
        .iter()
        .filter(|record| {
            let kind = if record.is_predefined() {
                "builtin"
            } else {
                "custom"
            };
            filters.any("name", |wanted| record.name.contains(wanted.as_str()))
                && filters.any("id", |wanted| record.id.starts_with(wanted.as_str()))
                && filters.any("driver", |wanted| *wanted == record.driver)
                && filters.any("scope", |wanted| wanted == "local")
                && filters.any("type", |wanted| wanted == kind)
                && dangling.is_none_or(|dangling| {
                    let is_dangling =
                        !record.is_predefined() && engine.network_members(record).is_empty();
                    dangling == is_dangling
                })
                && filters.match_labels(&record.labels)
        })
        .map(|record| {
            let mut value = describe(engine, record, with_containers);
            crate::compat::network_summary(request.version, &mut value);
            value
        })
        .collect();
    Ok(reply::json(&list))
}

/// `GET /networks/{id}`
pub fn inspect(request: &Request, wanted: &str) -> Result<Response, ApiError> {
    let record = request.engine.network(wanted)?;
    if request
        .text("scope")
        .is_some_and(|scope| !matches!(scope, "" | "local"))
    {
        return Err(ApiError::new(
            ErrorKind::NotFound,
            format!("network {wanted} not found"),
        ));
    }
    let mut value = describe(&request.engine, &record, true);
    crate::compat::network(request.version, &mut value);
    Ok(reply::json(&value))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateBody {
    #[serde(deserialize_with = "null_as_default")]
    name: String,
    #[serde(deserialize_with = "null_as_default")]
    driver: String,
    #[serde(deserialize_with = "null_as_default")]
    scope: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Option<WireConfigFrom>,
    #[serde(rename = "IPAM")]
    ipam: Option<WireIpam>,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(deserialize_with = "null_as_default")]
    options: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireConfigFrom {
    #[serde(deserialize_with = "null_as_default")]
    network: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireIpam {
    #[serde(deserialize_with = "null_as_default")]
    driver: String,
    options: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "null_as_default")]
    config: Vec<WireSubnet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireSubnet {
    #[serde(deserialize_with = "null_as_default")]
    subnet: String,
    #[serde(rename = "IPRange", deserialize_with = "null_as_default")]
    range: String,
    #[serde(deserialize_with = "null_as_default")]
    gateway: String,
    #[serde(
        rename = "AuxiliaryAddresses",
        alias = "AuxAddress",
        deserialize_with = "null_as_default"
    )]
    auxiliary: BTreeMap<String, String>,
}

impl CreateBody {
    fn into_domain(self) -> Result<NetworkSpec, ApiError> {
        let unsupported = |what: &str| {
            Err(ApiError::new(
                ErrorKind::Unsupported,
                format!("{what} is not supported yet"),
            ))
        };
        if self.name.is_empty() {
            return Err(ApiError::invalid("network name cannot be empty"));
        }
        if self.scope == "swarm" {
            return Err(ApiError::invalid(
                "cannot create a swarm scoped network when swarm is not active",
            ));
        }
        if self.ingress {
            return Err(crate::swarm::not_a_manager());
        }
        let from = self.config_from.unwrap_or_default();
        if self.config_only || !from.network.is_empty() {
            return unsupported("a network that is a configuration only");
        }
        if self.enable_ipv4 == Some(false) {
            return unsupported("a network without IPv4");
        }
        let ipam = self.ipam.unwrap_or_default();
        Ok(NetworkSpec {
            name: self.name,
            driver: self.driver,
            ipam_driver: ipam.driver,
            ipam_options: ipam.options,
            subnets: ipam
                .config
                .into_iter()
                .map(|one| SubnetSpec {
                    subnet: one.subnet,
                    range: one.range,
                    gateway: one.gateway,
                    auxiliary: one.auxiliary,
                })
                .collect(),
            ipv6: self.enable_ipv6 == Some(true),
            internal: self.internal,
            attachable: self.attachable,
            labels: self.labels,
            options: self.options,
        })
    }
}

/// `POST /networks/create`
pub async fn create(mut request: Request) -> Result<Response, ApiError> {
    let body: CreateBody = request.json().await?.unwrap_or_default();
    let spec = body.into_domain()?;
    let record = request
        .blocking(move |engine, caller| engine.create_network(caller, spec))
        .await?;
    Ok(reply::created(&json!({"Id": record.id, "Warning": ""})))
}

/// `DELETE /networks/{id}`
pub async fn remove(request: Request, name: &str) -> Result<Response, ApiError> {
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| engine.remove_network(caller, &name))
        .await?;
    Ok(reply::no_content())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConnectBody {
    #[serde(deserialize_with = "null_as_default")]
    container: String,
    endpoint_config: Option<WireEndpoint>,
    force: bool,
}

impl ConnectBody {
    async fn read(request: &mut Request) -> Result<Self, ApiError> {
        let body: Self = request.json().await?.unwrap_or_default();
        if body.container.is_empty() {
            return Err(ApiError::invalid(
                "invalid container name or ID: value is empty",
            ));
        }
        Ok(body)
    }
}

/// `POST /networks/{id}/connect`
pub async fn connect(mut request: Request, name: &str) -> Result<Response, ApiError> {
    let body = ConnectBody::read(&mut request).await?;
    let name = name.to_owned();
    let endpoint = body
        .endpoint_config
        .unwrap_or_default()
        .into_domain(&name)?;
    request
        .blocking(move |engine, caller| {
            engine.connect_network(caller, &name, &body.container, endpoint)
        })
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /networks/{id}/disconnect`
pub async fn disconnect(mut request: Request, name: &str) -> Result<Response, ApiError> {
    let body = ConnectBody::read(&mut request).await?;
    let name = name.to_owned();
    request
        .blocking(move |engine, caller| {
            engine.disconnect_network(caller, &name, &body.container, body.force)
        })
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /networks/prune`
pub async fn prune(request: Request) -> Result<Response, ApiError> {
    let filters = Filters::from_request(&request)?;
    filters.check(&["until", "label", "label!"])?;
    let until_ns = filters.until_ns()?;
    let removed = request
        .blocking(move |engine, caller| {
            engine.prune_networks(caller, &|record| {
                filters.match_labels(&record.labels)
                    && until_ns.is_none_or(|until| record.created_ns < until)
            })
        })
        .await?;
    let removed = if removed.is_empty() {
        Value::Null
    } else {
        json!(removed)
    };
    Ok(reply::json(&json!({"NetworksDeleted": removed})))
}

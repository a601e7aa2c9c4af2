//! Places of containers in networks, on the wire.

use super::create::null_as_default;
use crate::error::ApiError;
use gamut_engine::Engine;
use gamut_engine::container::record::ContainerRecord;
use gamut_engine::container::spec::EndpointSpec;
use gamut_engine::networking::names::names;
use gamut_engine::networking::record::{endpoint_id, is_predefined, predefined_id};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// What a client says of an endpoint. What only an answer says is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WireEndpoint {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<WireIpam>,
    #[serde(deserialize_with = "null_as_default")]
    links: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    aliases: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    mac_address: String,
    #[serde(deserialize_with = "null_as_default")]
    driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    gw_priority: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireIpam {
    #[serde(rename = "IPv4Address", deserialize_with = "null_as_default")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address", deserialize_with = "null_as_default")]
    ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", deserialize_with = "null_as_default")]
    link_local: Vec<String>,
}

impl WireEndpoint {
    /// In the engine's words; `network` as the client wrote it.
    ///
    /// # Errors
    /// For an address that is none.
    pub fn into_domain(self, network: &str) -> Result<EndpointSpec, ApiError> {
        let ipam = self.ipam_config.unwrap_or_default();
        let address: Option<Ipv4Addr> = parse("IPv4", &ipam.ipv4_address)?;
        let address6 = parse("IPv6", &ipam.ipv6_address)?;
        Ok(EndpointSpec {
            network: network.to_owned(),
            network_id: String::new(),
            aliases: self.aliases,
            address: address.map(IpAddr::V4),
            address6,
            link_local: link_local(&ipam.link_local)?,
            mac_address: Some(self.mac_address).filter(|mac| !mac.is_empty()),
            links: self.links,
            gateway_priority: self.gw_priority,
            driver_options: self.driver_opts,
        })
    }
}

fn link_local(texts: &[String]) -> Result<Vec<Ipv4Addr>, ApiError> {
    let parse = |text: &String| {
        text.parse::<Ipv4Addr>()
            .map_err(|_| ApiError::invalid(format!("invalid link-local IP address: {text}")))
    };
    texts.iter().map(parse).collect()
}

/// `IPAMConfig`: the addresses that were asked for.
fn ipam(endpoint: &EndpointSpec) -> Value {
    let mut asked = Map::new();
    if let Some(address) = endpoint.address {
        asked.insert("IPv4Address".to_owned(), json!(address.to_string()));
    }
    if let Some(address) = endpoint.address6 {
        asked.insert("IPv6Address".to_owned(), json!(address.to_string()));
    }
    if !endpoint.link_local.is_empty() {
        let texts = endpoint.link_local.iter().map(Ipv4Addr::to_string);
        let texts = texts.collect::<Vec<_>>();
        asked.insert("LinkLocalIPs".to_owned(), json!(texts));
    }
    if asked.is_empty() {
        return Value::Null;
    }
    Value::Object(asked)
}

/// An address of a family, if there is one.
fn parse<A: FromStr>(family: &str, text: &str) -> Result<Option<A>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse().ok();
    address
        .map(Some)
        .ok_or_else(|| ApiError::invalid(format!("invalid {family} address: {text}")))
}

/// `NetworkSettings.Networks` of a container.
#[must_use]
pub fn networks(engine: &Engine, record: &ContainerRecord) -> Map<String, Value> {
    let mut networks = Map::new();
    let endpoints = record.endpoints();
    for endpoint in &endpoints {
        let current = engine.networking().name_of(&endpoint.network_id);
        let name = current.unwrap_or_else(|| endpoint.network.clone());
        networks.insert(name.clone(), describe(record, endpoint, &name));
    }
    if let (true, Some(name)) = (endpoints.is_empty(), record.spec.network.predefined_name())
        && name != "bridge"
    {
        let endpoint = EndpointSpec {
            network_id: predefined_id(name),
            ..EndpointSpec::default()
        };
        networks.insert(name.to_owned(), describe(record, &endpoint, name));
    }
    networks
}

fn describe(record: &ContainerRecord, endpoint: &EndpointSpec, name: &str) -> Value {
    let lease = record.lease_in(&endpoint.network_id);
    let text = |value: Option<String>| value.unwrap_or_default();
    let list = |words: &[String]| {
        if words.is_empty() {
            Value::Null
        } else {
            json!(words)
        }
    };
    let sixth = lease.and_then(|lease| lease.ipv6);
    let is_live = record.state.phase.is_live();
    let names = if is_predefined(name) {
        Value::Null
    } else {
        json!(names(record, endpoint))
    };
    let mut value = json!({
        "IPAMConfig": ipam(endpoint),
        "Links": list(&endpoint.links),
        "Aliases": list(&endpoint.aliases),
        "MacAddress": text(lease.map(|lease| lease.mac.clone()).or_else(|| endpoint.mac_address.clone())),
        "DriverOpts": Value::Null,
        "GwPriority": endpoint.gateway_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": if is_live { endpoint_id(&record.id, name) } else { String::new() },
        "Gateway": text(lease.and_then(|lease| lease.gateway).map(|gateway| gateway.to_string())),
        "IPAddress": text(lease.map(|lease| lease.address.to_string())),
        "IPPrefixLen": lease.map_or(0, |lease| lease.prefix),
        "IPv6Gateway": text(sixth.and_then(|place| place.gateway).map(|gateway| gateway.to_string())),
        "GlobalIPv6Address": text(sixth.map(|place| place.address.to_string())),
        "GlobalIPv6PrefixLen": sixth.map_or(0, |place| place.prefix),
        "DNSNames": names,
    });
    if !endpoint.driver_options.is_empty() {
        value["DriverOpts"] = json!(endpoint.driver_options);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_as_clients_send_it() {
        let wire: WireEndpoint = serde_json::from_value(json!({
            "IPAMConfig": {"IPv4Address": "10.0.0.5", "LinkLocalIPs": ["169.254.8.8"]}, "Links": null,
            "Aliases": ["db"], "MacAddress": "", "NetworkID": "x", "DriverOpts": null, "GwPriority": 3,
        }))
        .unwrap();
        let endpoint = wire.into_domain("net").unwrap();
        assert_eq!(endpoint.address, Some(IpAddr::from([10, 0, 0, 5])));
        assert_eq!(endpoint.link_local, [Ipv4Addr::from([169, 254, 8, 8])]);
        assert_eq!(endpoint.aliases, ["db"]);
        assert_eq!((endpoint.gateway_priority, endpoint.mac_address), (3, None));
        let wire = json!({"IPAMConfig": {"IPv4Address": "10.0.0.5", "IPv6Address": "fd00::5"}});
        let wire: WireEndpoint = serde_json::from_value(wire).unwrap();
        let endpoint = wire.into_domain("net").unwrap();
        assert_eq!(endpoint.address6, Some("fd00::5".parse().unwrap()));
        assert!(endpoint.address.is_some());
        for bad in [
            json!({"IPv4Address": "x"}),
            json!({"IPv4Address": "::1"}),
            json!({"IPv6Address": "10.0.0.1"}),
            json!({"LinkLocalIPs": ["fe80::1"]}),
        ] {
            let wire: WireEndpoint = serde_json::from_value(json!({"IPAMConfig": bad})).unwrap();
            assert!(wire.into_domain("net").is_err());
        }
    }
}

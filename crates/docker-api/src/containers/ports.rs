//! Ports of containers on the wire.

use super::create::null_as_default;
use crate::error::ApiError;
use gamut_engine::container::spec::{Port, Protocol, PublishedPort};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where a client wants a port.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct WirePortBinding {
    #[serde(deserialize_with = "null_as_default")]
    host_ip: String,
    #[serde(deserialize_with = "null_as_default")]
    host_port: String,
}

/// Parses `80` and `80/tcp`.
///
/// # Errors
/// For a number that is no port, and other protocols than tcp, udp and sctp.
pub(super) fn parse_port(text: &str) -> Result<Port, ApiError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let bad = || ApiError::invalid(format!("invalid port specification: {text:?}"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(bad()),
    };
    let number = number
        .parse()
        .ok()
        .filter(|number: &u16| *number > 0)
        .ok_or_else(bad)?;
    Ok(Port { number, protocol })
}

/// The ports to publish, of `HostConfig.PortBindings`.
///
/// # Errors
/// For what is no port, no range of ports, or no address.
pub(super) fn published(
    bindings: BTreeMap<String, Option<Vec<WirePortBinding>>>,
) -> Result<Vec<PublishedPort>, ApiError> {
    let mut list = Vec::new();
    for (port, bindings) in bindings {
        let container = parse_port(&port)?;
        for binding in bindings.unwrap_or_default() {
            let host_address = if binding.host_ip.is_empty() {
                None
            } else {
                // In the brackets of an address with a port, too.
                let text = binding.host_ip.trim_start_matches('[');
                let address = text.trim_end_matches(']').parse().map_err(|_| {
                    ApiError::invalid(format!("invalid IP address: {}", binding.host_ip))
                })?;
                Some(address)
            };
            let (host_port, host_port_last) = host_ports(&binding.host_port)?;
            list.push(PublishedPort {
                container,
                host_address,
                host_port,
                host_port_last,
            });
        }
    }
    Ok(list)
}

/// The first and the last port of a range; the last is 0 where there is no choice. Nothing at all
/// leaves the choice to the engine.
fn host_ports(text: &str) -> Result<(u16, u16), ApiError> {
    let bad = || ApiError::invalid(format!("invalid port specification: {text:?}"));
    if text.is_empty() {
        return Ok((0, 0));
    }
    let parse = |text: &str| text.parse::<u16>().map_err(|_| bad());
    let Some((first, last)) = text.split_once('-') else {
        return Ok((parse(text)?, 0));
    };
    match (parse(first)?, parse(last)?) {
        (first, last) if first == last => Ok((first, 0)),
        (first, last) if 0 < first && first < last => Ok((first, last)),
        _ => Err(bad()),
    }
}

/// `80/tcp`.
pub(super) fn port_key(port: Port) -> String {
    format!("{}/{}", port.number, port.protocol.as_str())
}

/// Ports and where the host offers them, as clients send and get them.
pub(super) fn bindings<'a>(ports: impl Iterator<Item = &'a PublishedPort>) -> Value {
    let mut object = Map::new();
    for port in ports {
        let host_port = match (port.host_port, port.host_port_last) {
            (0, _) => String::new(),
            (port, 0) => port.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let binding = json!({
            "HostIp": port.host_address.map_or(String::new(), |address: IpAddr| address.to_string()),
            "HostPort": host_port,
        });
        let list = object
            .entry(port_key(port.container))
            .or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(binding);
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_what_clients_send() {
        let wire = serde_json::from_value(json!({
            "80/tcp": [
                {"HostIp": "", "HostPort": ""}, {"HostIp": "::1", "HostPort": "8080"},
                {"HostIp": "0.0.0.0", "HostPort": "8000-8010"}, {"HostPort": "9000-9000"},
            ],
            "53/udp": null,
        }))
        .unwrap();
        let ports = published(wire).unwrap();
        let ranges: Vec<_> = ports
            .iter()
            .map(|port| (port.host_port, port.host_port_last))
            .collect();
        assert_eq!(ranges, [(0, 0), (8080, 0), (8000, 8010), (9000, 0)]);
        assert_eq!(ports[1].host_address, Some("::1".parse().unwrap()));
        let told = bindings(ports.iter());
        assert_eq!(
            told["80/tcp"][2],
            json!({"HostIp": "0.0.0.0", "HostPort": "8000-8010"})
        );
        for bad in ["x", "0-5", "9-8", "1-", "-1", "65536", "1-2-3"] {
            assert!(host_ports(bad).is_err(), "{bad}");
        }
        for bad in ["0", "80/icmp", "x/tcp", "65536"] {
            assert!(parse_port(bad).is_err(), "{bad}");
        }
    }
}

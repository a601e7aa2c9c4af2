//! Ports to publish and published ones, in the words of the crate that publishes them.

use crate::container::record::ContainerRecord;
use crate::container::spec::{Port, Protocol, PublishedPort};
use gamut_network::{PortMapping, Published};
use std::net::{IpAddr, Ipv4Addr};

/// The ports to publish: those named, and with `publish_all` every exposed one not named.
pub(super) fn mappings(
    record: &ContainerRecord,
    default_address: Option<IpAddr>,
) -> Vec<PortMapping> {
    let spec = &record.spec;
    let mut list = Vec::new();
    for published in &spec.published_ports {
        list.push(PortMapping {
            host_ip: published.host_address.or(default_address),
            host_port: published.host_port,
            container_port: published.container.number,
            protocol: protocol(published.container.protocol),
        });
    }
    if spec.publish_all {
        for port in &spec.exposed_ports {
            if !spec
                .published_ports
                .iter()
                .any(|published| published.container == *port)
            {
                list.push(PortMapping {
                    host_ip: default_address,
                    host_port: 0,
                    container_port: port.number,
                    protocol: protocol(port.protocol),
                });
            }
        }
    }
    list
}

fn protocol(protocol: Protocol) -> gamut_network::Protocol {
    match protocol {
        Protocol::Tcp => gamut_network::Protocol::Tcp,
        Protocol::Udp => gamut_network::Protocol::Udp,
        Protocol::Sctp => gamut_network::Protocol::Sctp,
    }
}

pub(super) fn from_published(published: &Published) -> PublishedPort {
    let protocol = match published.protocol {
        gamut_network::Protocol::Tcp => Protocol::Tcp,
        gamut_network::Protocol::Udp => Protocol::Udp,
        gamut_network::Protocol::Sctp => Protocol::Sctp,
    };
    PublishedPort {
        container: Port {
            number: published.container_port,
            protocol,
        },
        host_address: Some(IpAddr::V4(published.host_ip)),
        host_port: published.host_port,
    }
}

pub(super) fn to_published(port: &PublishedPort) -> Option<Published> {
    let host_ip = match port.host_address {
        Some(IpAddr::V4(address)) => address,
        None => Ipv4Addr::UNSPECIFIED,
        Some(IpAddr::V6(_)) => return None,
    };
    Some(Published {
        host_ip,
        host_port: port.host_port,
        container_port: port.container.number,
        protocol: protocol(port.container.protocol),
    })
}

/// The same ports again, for another address of the same workload.
pub(super) fn again(ports: &[PublishedPort]) -> Vec<PortMapping> {
    let same = |port: &PublishedPort| PortMapping {
        host_ip: port.host_address,
        host_port: port.host_port,
        container_port: port.container.number,
        protocol: protocol(port.container.protocol),
    };
    ports.iter().map(same).collect()
}

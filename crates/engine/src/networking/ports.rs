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
            host_port_last: published.host_port_last,
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
                    host_port_last: 0,
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
        host_address: Some(published.host_ip),
        host_port: published.host_port,
        host_port_last: 0,
    }
}

pub(super) fn to_published(port: &PublishedPort) -> Published {
    Published {
        host_ip: port.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        host_port: port.host_port,
        container_port: port.container.number,
        protocol: protocol(port.container.protocol),
    }
}

/// The ports that a container has published again, for other addresses of the same container: those
/// of the host stay what they are, chosen ones too.
pub(super) fn again(record: &ContainerRecord) -> Vec<PortMapping> {
    let mut list: Vec<PortMapping> = Vec::new();
    for port in record.published() {
        let is_named = record.spec.published_ports.iter().any(|asked| {
            asked.container == port.container && asked.host_address == port.host_address
        });
        // All addresses are those of the families that the container has then.
        let is_any = port
            .host_address
            .is_none_or(|address| address.is_unspecified());
        let mapping = PortMapping {
            host_ip: port.host_address.filter(|_| is_named || !is_any),
            host_port: port.host_port,
            host_port_last: 0,
            container_port: port.container.number,
            protocol: protocol(port.container.protocol),
        };
        if !list.contains(&mapping) {
            list.push(mapping);
        }
    }
    list
}
